"""Finds the file of a model by the name a user gives it.

``patchling`` is bundled; a path names a file; ``hf:OWNER/REPO/FILE@REVISION`` is fetched once from
the Hugging Face hub and kept in its cache. Nothing is ever chosen for the user.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tightloop.engine.interface import EngineError

BUNDLED = "patchling"
_log = logging.getLogger(__name__)
_MAGIC = b"GGUF"
_HUB_NAME = re.compile(r"hf:([^/@\s]+/[^/@\s]+)/([^@\s]+?)(?:@(\S+))?$")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the hub; without a revision the newest one is meant."""

    repository: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        suffix = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repository}/{self.file}{suffix}"


Download = Callable[[HubFile], Path]


def resolve(name: str, *, download: Download | None = None) -> Path:
    """The local file of the model ``name``. Raises ``EngineError`` saying what to do instead."""
    if name == BUNDLED:
        return bundled_path()
    if name.startswith("hf:"):
        return (download or download_from_hub)(parse_hub_name(name))
    path = Path(name).expanduser()
    if not path.is_file():
        raise EngineError(
            f"there is no model file {name!r}; give a path to a .gguf file, "
            f"hf:OWNER/REPO/FILE@REVISION, or {BUNDLED!r}",
            code="model_not_found",
        )
    return path


def bundled_path() -> Path:
    """The file of the bundled model."""
    path = Path(str(resources.files("tightloop.models").joinpath("patchling.gguf")))
    if not path.is_file():
        raise EngineError(
            f"the bundled model is missing at {path}; reinstall tightloop, or choose another model",
            code="model_not_found",
        )
    return path


def parse_hub_name(name: str) -> HubFile:
    """The parts of ``hf:OWNER/REPO/FILE@REVISION`` (the revision may be left out)."""
    match = _HUB_NAME.match(name)
    if match is None or not match[2].endswith(".gguf"):
        raise EngineError(
            f"{name!r} does not name a file on the hub; write hf:OWNER/REPO/FILE.gguf@REVISION",
            code="model_not_found",
        )
    return HubFile(match[1], match[2], match[3])


def download_from_hub(file: HubFile) -> Path:
    """The file in the hub's local cache, fetched with a progress bar on stderr when it is not."""
    from huggingface_hub import hf_hub_download

    try:
        with in_own_words(file):
            path = hf_hub_download(
                file.repository, file.file, revision=file.revision, tqdm_class=_progress_bar()
            )
    except Exception as error:
        raise explain(error, file) from error
    return Path(str(path))


class _Once(logging.Handler):
    """Says ``text`` at the first record, and nothing of any."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._is_said = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and not self._is_said:
            self._is_said = True
            _log.warning("%s", self._text)


@contextmanager
def in_own_words(file: HubFile) -> Iterator[None]:
    """What the hub's client logs at each of its attempts is told once: ``explain`` has the reason."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.handlers, logger.propagate
    logger.handlers = [_Once(f"the hub does not give {file} at once; trying for half a minute")]
    logger.propagate = False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


def check(name: str) -> str:
    """What must be known of the model ``name`` before it is loaded; "" where it is all here.

    Nothing is fetched. Raises ``EngineError`` for a file that is missing or is no GGUF file.
    """
    if name.startswith("hf:"):
        file = parse_hub_name(name)
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(file.repository, file.file, revision=file.revision)
        return "" if isinstance(cached, str) else f"{name} is not here yet: the start fetches it"
    path = resolve(name)
    try:
        with path.open("rb") as opened:
            head = opened.read(len(_MAGIC))
    except OSError as error:
        raise EngineError(
            f"cannot read {path}: {error.strerror}", code="model_not_found"
        ) from error
    if head != _MAGIC:
        raise EngineError(
            f"{path} is no GGUF file: it begins with {head!r}", code="model_not_found"
        )
    return ""


def explain(error: Exception, file: HubFile) -> EngineError:
    """What a failed download means and what to do. An error that is none of the hub's is raised."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{file.repository}"
    causes: list[tuple[type[Exception] | tuple[type[Exception], ...], str]] = [
        (
            errors.GatedRepoError,
            f"{file.repository} is gated: accept its terms at {page}, then run `hf auth login` "
            "or set HF_TOKEN",
        ),
        (
            errors.RepositoryNotFoundError,
            f"the hub has no repository {file.repository!r}, or it is private: check the name, "
            "or set HF_TOKEN",
        ),
        (
            errors.RevisionNotFoundError,
            f"{file.repository} has no revision {file.revision!r}: see {page}/commits",
        ),
        (
            errors.LocalEntryNotFoundError,
            f"{file} is not in the local cache and the hub cannot be reached: connect once, or "
            "give the path of a file you have",
        ),
        (
            errors.EntryNotFoundError,
            f"{file.repository} has no file {file.file!r}: see {page}/tree/main",
        ),
        (errors.HfHubHTTPError, f"the hub refused {file}: {error}"),
        (OSError, f"cannot fetch or store {file}: {error}"),
    ]
    for kind, text in causes:
        if isinstance(error, kind):
            return EngineError(text, code="model_not_found")
    raise error


def _progress_bar() -> Any:
    """A progress-bar class as the hub's client wants it, drawn with rich on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
    from tqdm.std import tqdm  # type: ignore[import-untyped]

    class RichBar(tqdm):  # type: ignore[misc]
        """Keeps tqdm's counting, which the client relies on, and draws the bar itself."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(str(options.get("desc") or "download"))
            super().__init__(*args, **options)
            if not self.disable:
                self._progress.start()

        def display(self, *_args: Any, **_options: Any) -> None:
            self._progress.update(self._task, completed=self.n, total=self.total)

        def close(self) -> None:
            super().close()
            self._progress.stop()

    return RichBar
