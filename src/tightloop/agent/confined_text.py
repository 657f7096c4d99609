"""Text files of a repository, read without being led out of it."""

from pathlib import Path


def read_inside(path: Path, root: Path | None, max_bytes: int) -> str:
    """The beginning of a regular file as text; empty when there is none, it cannot be read, or it is
    a link that leads out of ``root`` (None: anywhere), since such a link could name any file of the
    user. ``root`` is a real path."""
    try:
        real = path.resolve(strict=True)
        if not real.is_file() or (root is not None and not real.is_relative_to(root)):
            return ""
        with real.open("rb") as file:
            return file.read(max(max_bytes, 0)).decode("utf-8", "ignore")
    except (OSError, ValueError, RuntimeError):
        return ""
