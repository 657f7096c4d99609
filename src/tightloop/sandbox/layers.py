"""Makes of a written layer one that can lie under others: it only adds, and carries no marks."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

from tightloop.sandbox.entries import open_parent, read_entry
from tightloop.sandbox.interface import SandboxError

_MAX_FEW, _MAX_FEW_BYTES = 200, 8 << 20
_COPIED_BYTES = 1 << 20


def keep_what_is_new(layer: Path, base: Path) -> list[str]:
    """Only what base lacks is left in the layer.

    Returns the paths that differ from base or are deleted there, in order: they are base's again.
    Version control's directory, devices, fifos and sockets go without a word.
    """
    lost = []
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        _unmark(layer / directory)
        with os.scandir(layer / directory) as found:
            entries = list(found)
        for entry in entries:
            name = f"{directory}/{entry.name}" if directory else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            if name == ".git":
                _remove(layer / name)
            elif is_directory and (_is_directory(base / name) or not os.path.lexists(base / name)):
                waiting.append(name)
            elif os.path.lexists(base / name) or not _is_ordinary(entry):
                if read_entry(base / name) != read_entry(layer / name):
                    lost.append(name)
                _remove(layer / name)
    _drop_passages(layer, base)
    return sorted(lost)


def _is_ordinary(entry: os.DirEntry[str]) -> bool:
    mode = entry.stat(follow_symlinks=False).st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _is_directory(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _unmark(directory: Path) -> None:
    """What overlayfs noted there holds for the layer beneath it, not for others."""
    for name in os.listxattr(directory, follow_symlinks=False):
        if name.startswith("user.overlay."):
            os.removexattr(directory, name, follow_symlinks=False)


def _remove(path: Path) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        path.unlink()


def _drop_passages(layer: Path, base: Path) -> None:
    """Directories that were only passed through are base's."""
    for place, _, _ in os.walk(layer, topdown=False):
        if place != str(layer) and _is_directory(base / Path(place).relative_to(layer)):
            with contextlib.suppress(OSError):  # there is something new in it
                os.rmdir(place)


def size_of(directory: Path) -> tuple[int, int]:
    """Bytes on disk of all files and links below, and how many there are.

    A file with a second name elsewhere takes no room of its own.
    """
    num_bytes = num_files = 0
    for place, directories, files in os.walk(directory):
        for name in [*files, *directories]:
            status = os.lstat(os.path.join(place, name))
            if not stat.S_ISDIR(status.st_mode):
                num_files += 1
                num_bytes += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return num_bytes, num_files


def files_with(secrets: dict[str, str], layer: Path) -> list[tuple[str, str]]:
    """Files of the layer that hold a secret's value: the secret's name and the relative path."""
    wanted = {name: value.encode() for name, value in secrets.items() if len(value) >= 8}
    found: list[tuple[str, str]] = []
    for place, _, files in os.walk(layer) if wanted else ():
        for file in files:
            path = Path(place, file)
            entry = read_entry(path)
            content = entry.content if entry is not None else b""
            found += [
                (name, path.relative_to(layer).as_posix())
                for name, value in wanted.items()
                if value in content
            ]
    return sorted(found)


def new_roots(layer: Path, base: Path) -> list[str]:
    """The topmost paths of the layer that base lacks, in order: everything below is new too."""
    found = []
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(layer / directory) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                if not os.path.lexists(base / name):
                    found.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
    return sorted(found)


def hide_from_git(layer: Path, base: Path) -> None:
    """git in a view of both does not list what the layer adds; nothing happens without git."""
    exclude = Path(".git", "info", "exclude")
    if not (base / ".git").is_dir() or (base / exclude).exists():
        return
    special = str.maketrans({character: f"\\{character}" for character in "\\*?[!# "})
    lines = [f"/{name.translate(special)}\n" for name in new_roots(layer, base) if "\n" not in name]
    (layer / exclude).parent.mkdir(parents=True, exist_ok=True)
    (layer / exclude).write_bytes("".join(lines).encode(errors="surrogateescape"))


def copy_tree(source: Path, target: Path) -> None:
    """The target directory holds all that the source holds, sharing blocks where it can.

    Directories that are there already are filled up. A few files are copied right here, which
    takes less than a process does. Raises SandboxError with the reason.
    """
    try:
        entries = _few_entries(source)
        if entries is not None:
            at_target = target.stat()
            ours = (os.geteuid(), os.getegid())
            is_plain = (at_target.st_uid, at_target.st_gid) == ours
            is_plain = is_plain and not at_target.st_mode & stat.S_ISGID
            for name, status in entries:
                _copy(source, name, target / name, status)
                if ours[0] == 0 and not (is_plain and (status.st_uid, status.st_gid) == ours):
                    _give(target / name, status)
            for name, status in reversed(entries):  # writing into a directory changes its times
                if stat.S_ISDIR(status.st_mode):
                    shutil.copystat(source / name, target / name)
            shutil.copystat(source, target)
            return
    except OSError as error:
        raise SandboxError(f"copying {str(source)!r} failed: {error}") from error
    command = ["cp", "-a", "--reflink=auto", f"{source}/.", str(target)]
    copied = subprocess.run(command, capture_output=True, check=False)
    if copied.returncode != 0:
        said = copied.stderr.decode(errors="replace").strip()
        raise SandboxError(f"copying {str(source)!r} failed: {said}")


def _few_entries(source: Path) -> list[tuple[str, os.stat_result]] | None:
    """All there is, parents first; None when it is much, or of a kind that cp knows better."""
    found: list[tuple[str, os.stat_result]] = []
    waiting = [""]
    num_bytes = 0
    while waiting:
        directory = waiting.pop()
        with os.scandir(source / directory) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                status = entry.stat(follow_symlinks=False)
                found.append((name, status))
                num_bytes += status.st_size
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    waiting.append(name)
                elif not _is_copied_here(status):
                    return None
        if len(found) > _MAX_FEW or num_bytes > _MAX_FEW_BYTES:
            return None
    return found


def _is_copied_here(status: os.stat_result) -> bool:
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0  # a deletion, as overlayfs marks it
    is_plain = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
    return is_plain and status.st_nlink == 1


def _copy(tree: Path, name: str, target: Path, status: os.stat_result) -> None:
    """One entry with its mode, times and attributes."""
    source = tree / name
    kind = stat.S_IFMT(status.st_mode)
    if os.path.islink(target) or kind != stat.S_IFDIR:
        target.unlink(missing_ok=True)  # writing there would reach what a link leads to
    if kind == stat.S_IFDIR:
        target.mkdir(exist_ok=True)
    elif kind == stat.S_IFLNK:
        target.symlink_to(os.readlink(source))
    elif kind == stat.S_IFCHR:
        os.mknod(target, status.st_mode, status.st_rdev)
    else:
        _copy_content(tree, name, target)
    if kind != stat.S_IFDIR:
        shutil.copystat(source, target, follow_symlinks=False)


def _copy_content(tree: Path, name: str, target: Path) -> None:
    """Never that of another file: a command that goes on may put a link or a fifo there."""
    directory = open_parent(tree, name)
    if directory is None:
        raise OSError(errno.ESTALE, "it is changed meanwhile", str(tree / name))
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name.rpartition("/")[2], flags, dir_fd=directory)
    finally:
        os.close(directory)
    with open(fd, "rb") as reading, open(target, "xb") as writing:
        shutil.copyfileobj(reading, writing, _COPIED_BYTES)


def _give(target: Path, status: os.stat_result) -> None:
    """The owner is that of the source; the kernel takes marks like set-uid away then."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        target.chmod(stat.S_IMODE(status.st_mode))


def remove_tree(directory: Path) -> None:
    """The directory is gone, also what overlayfs leaves there without any permission."""
    for place, directories, _ in os.walk(directory):
        for name in directories:
            path = os.path.join(place, name)
            if not os.path.islink(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                with contextlib.suppress(OSError):  # gone, or not ours: rmtree passes it over
                    os.chmod(path, 0o700)
    shutil.rmtree(directory, ignore_errors=True)
