"""Files of a recipe on disk: never over what a person has written."""

from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import ConfigFile, ConnectError, Setting

ENVIRONMENT_FILE = "environment.sh"


def environment_file(settings: Sequence[Setting], unset: Sequence[str]) -> ConfigFile:
    """A file for a shell to read, with every variable and why it is there."""
    lines = ["# Read by a shell: . environment.sh"]
    for setting in settings:
        lines += [f"# {setting.why}", setting.in_shell()]
    lines += [f"unset {name}" for name in unset]
    return ConfigFile(ENVIRONMENT_FILE, "your shell", "\n".join(lines) + "\n", "the variables")


def write_new(directory: Path, files: Sequence[ConfigFile]) -> list[Path]:
    """Each file is in ``directory``; the paths of those that were not there already.

    Raises ``ConnectError``, before anything is written, when one exists with another content.
    """
    try:
        missing = [file for file in files if not _is_there(directory / file.name, file.text)]
        if missing:
            directory.mkdir(parents=True, exist_ok=True)
        for file in missing:
            with (directory / file.name).open("x", encoding="utf-8") as out:
                out.write(file.text)
    except OSError as error:
        raise ConnectError(f"cannot write {directory}: {error.strerror or error}") from error
    return [directory / file.name for file in missing]


def write_own(directory: Path, files: Sequence[ConfigFile]) -> None:
    """Each file is in ``directory``, which belongs to this program. Raises ``ConnectError``.

    One that begins as it should is left alone: clients append what they remember, such as which
    projects are trusted, and would otherwise ask again every time.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in files:
            path = directory / file.name
            if path.exists() and path.read_bytes().startswith(file.text.encode()):
                continue
            partial = path.with_name(path.name + ".partial")
            partial.write_text(file.text, "utf-8")
            partial.replace(path)
    except OSError as error:
        raise ConnectError(f"cannot write {directory}: {error.strerror or error}") from error


def _is_there(path: Path, text: str) -> bool:
    """Whether the file has exactly this text; an error if it has another."""
    if not path.exists() and not path.is_symlink():
        return False
    if path.is_file() and path.read_bytes() == text.encode():
        return True
    raise ConnectError(
        f"{path} exists and is different, so nothing was written; give --write another directory"
    )
