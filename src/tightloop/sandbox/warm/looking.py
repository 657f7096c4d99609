# ruff: noqa: TID252 - started as a script, without the package above
"""What importing asked of files that it did not read: whether they are there, what is in a directory.

The tree of the project is listed before every run. Here is what lies elsewhere, or in directories
that are left out there: a program of the PATH, a directory behind a link.
"""

import os
import pathlib
import sys
import types
from collections.abc import Iterable

from .stamps import Seen, Tree, is_below

_FUNCTIONS = (
    *(os.path.exists, os.path.lexists, os.path.isfile, os.path.isdir, os.path.islink),
    *(os.path.ismount, os.path.getsize, os.path.getmtime, os.path.getctime, os.path.getatime),
    *(pathlib.Path.stat, pathlib.Path.lstat),
)
ASKING = {
    id(function.__code__): function.__code__.co_varnames[0]
    for function in _FUNCTIONS
    if isinstance(function, types.FunctionType)
}
"""Numbers of the code of such functions, with the name of the argument that is a path."""
_PLACES_OF_SYSTEM = ("/proc", "/sys", "/dev")


class Looks:
    """Paths that were asked about, with the answer of that moment."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.listed: dict[str, Seen] = {}
        self._is_looking = False
        # what is installed there is watched by the bare process
        self._left_out = (
            *_PLACES_OF_SYSTEM,
            os.path.dirname(os.path.realpath(os.__file__)),
            *(os.path.join(os.path.realpath(sys.prefix), name) for name in ("lib", "lib64")),
        )

    def on_call(self, frame: types.FrameType) -> None:
        """A function of Python begins; the library's own questions have a path as first argument."""
        name = ASKING.get(id(frame.f_code))
        if name is None:
            return
        path = self._wanted(frame.f_locals.get(name))
        if path and path not in self.kinds:
            self.kinds[path] = kind_of(path)

    def on_listing(self, directory: object) -> None:
        """A directory is about to be listed, by its name or an open descriptor."""
        if self._is_looking:
            return  # that is this method, below
        if isinstance(directory, int):
            directory = f"/proc/self/fd/{directory}"
        try:
            path = self._wanted(os.path.realpath(os.fsdecode(directory or ".")))  # type: ignore[arg-type]
        except TypeError:
            return  # not a path: it will not be listed
        if not path or path in self.listed:
            return
        self._is_looking = True
        try:
            self.listed[path] = Seen(path)
        finally:
            self._is_looking = False

    def _wanted(self, path: object) -> str:
        """As an absolute path; empty for what is left out."""
        try:
            found = os.fsdecode(path)  # type: ignore[arg-type]
        except TypeError:
            return ""  # a descriptor: somebody opened it by name before
        found = os.path.abspath(found)
        return "" if any(is_below(found, place) for place in self._left_out) else found

    def beside(self, tree: Tree, known: Iterable[str]) -> tuple[dict[str, int], dict[str, Seen]]:
        """What a sweep of the tree does not show: paths with their kind, and listings."""
        left_out = set(known)
        kinds = {
            path: kind
            for path, kind in self.kinds.items()
            if path not in left_out and path not in tree.seen and path + os.sep not in tree.seen
        }
        return kinds, {path: seen for path, seen in self.listed.items() if not tree.lists(path)}


def kind_of(path: str) -> int:
    """Type and permissions; 0 when nothing is there."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return 0
