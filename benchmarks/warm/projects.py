"""The projects that ``make projects`` installs, and scratch copies of them to edit."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORT_DATA = "equivalence_import.txt"
"""Read by a module of the project on import; ``broken`` makes that fail."""
TEST_DATA = "equivalence_test.txt"
"""Read by a test; any other text than ``fine`` makes it fail."""


def installed_in() -> Path:
    """Where ``make projects`` puts them; TIGHTLOOP_PROJECTS names another place."""
    return Path(os.environ.get("TIGHTLOOP_PROJECTS") or ROOT / ".projects")


@dataclass(frozen=True, slots=True)
class Project:
    """One project and what is run of it.

    ``tests`` are the files of the equality runs, quick ones; ``timed`` are the selections that
    are measured, each with the file and the function whose body is edited: one that the tests call
    and importing does not. ``reads_data`` is the module that gets the line which reads a file on import.
    """

    name: str
    code: str
    tests: tuple[str, ...]
    conftest: str
    reads_data: str
    timed: tuple[tuple[str, str, str], ...]

    @property
    def folder(self) -> Path:
        """Where it is installed. Raises FileNotFoundError when it is not."""
        folder = installed_in() / self.name
        if not (folder / ".complete").is_file():
            raise FileNotFoundError(f"{folder} is not installed: make projects installs it")
        return folder


PROJECTS = {
    project.name: project
    for project in (
        Project(
            "click",
            "src/click",
            ("tests/test_formatting.py", "tests/test_command_decorators.py"),
            "tests/conftest.py",
            "src/click/globals.py",
            (("tests/test_formatting.py", "src/click/formatting.py", "HelpFormatter.write"),),
        ),
        Project(
            "flask",
            "src/flask",
            ("tests/test_config.py", "tests/test_blueprints.py"),
            "tests/conftest.py",
            "src/flask/signals.py",
            (
                (
                    "tests/test_blueprints.py",
                    "src/flask/blueprints.py",
                    "Blueprint.send_static_file",
                ),
            ),
        ),
        Project(
            "attrs",
            "src/attr",
            ("tests/test_setattr.py", "tests/test_cmp.py"),
            "tests/conftest.py",
            "src/attr/exceptions.py",
            (("tests/test_setattr.py", "src/attr/setters.py", "convert"),),
        ),
        Project(
            "sympy",
            "sympy",
            ("sympy/core/tests/test_symbol.py", "sympy/physics/units/tests/test_prefixes.py"),
            "sympy/conftest.py",
            "sympy/core/rules.py",
            (
                ("sympy/core/tests/test_symbol.py", "sympy/core/symbol.py", "disambiguate"),
                (
                    "sympy/physics/units/tests/test_prefixes.py",
                    "sympy/physics/units/prefixes.py",
                    "Prefix.__truediv__",
                ),
            ),
        ),
    )
}


def copy(project: Project, into: Path) -> Path:
    """A scratch copy with an environment of its own that imports from the copy.

    Real copies: a hard link changes the times of what it links to, and resident processes that
    watch those files would take them for newly installed.
    """
    source, target = project.folder, into / project.name
    left_out = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".pytest_cache", ".complete")
    shutil.copytree(source, target, symlinks=True, ignore=left_out)
    shutil.copytree(source / ".venv", target / ".venv", symlinks=True)
    for path in (target / ".venv" / "lib").glob(f"python*/site-packages/{project.name}.pth"):
        text = path.read_text("utf-8").replace(os.path.realpath(source), str(target))
        if str(target) not in text:
            raise ValueError(
                f"{str(path)!r} leads to {text.strip()!r}, not into the project: 'make projects'"
            )
        path.unlink()
        path.write_text(text, "utf-8")
    return target


def add_data(project: Project, copy: Path) -> None:
    """A module reads one file on import, a test reads another: edits of both must show."""
    (copy / IMPORT_DATA).write_text("fine\n", "utf-8")
    (copy / TEST_DATA).write_text("fine\n", "utf-8")
    with (copy / project.reads_data).open("a", encoding="utf-8") as module:
        module.write(
            f"\n\nwith open({str(copy / IMPORT_DATA)!r}, 'rb') as _file:\n"
            "    if _file.read() == b'broken\\n':\n"
            "        raise ImportError('the data is broken')\n"
        )
    with (copy / project.tests[0]).open("a", encoding="utf-8") as module:
        module.write(
            "\n\ndef test_data_of_equivalence():\n"
            f"    with open({str(copy / TEST_DATA)!r}, 'rb') as file:\n"
            "        assert file.read() == b'fine\\n'\n"
        )


def compile_sources(copy: Path) -> None:
    """Byte code that is believed only while the source has the same content.

    It makes cold runs quick without the staleness of byte code that goes by times and sizes.
    """
    subprocess.run(
        [
            *(copy / ".venv" / "bin" / "python", "-m", "compileall", "-q", "-j", "2"),
            *("--invalidation-mode", "checked-hash", "-x", r"[/\\]\.venv[/\\]", str(copy)),
        ],
        check=False,  # projects carry files that are wrong on purpose
        stdout=subprocess.DEVNULL,
    )
