"""Byte code of project files by their content, kept from one process to the next.

Cached code in the workspace is not believed, see ``child.ignore_cached_code``; compiling hundreds
of unchanged modules for each run would cost more than all else. What compiles with a warning is
not kept: a run that takes kept code would not give it.
"""

import contextlib
import hashlib
import marshal
import os
import types
import warnings
from collections.abc import Callable, Iterable
from functools import partial

IMPORT = "import {}"
"""The kind of what the import system compiles with no options of its own."""

_MAX_BYTES = 96 << 20
_Entry = tuple[bytes, int, int]


class Codes:
    """What is known, and in ``is_keeping`` processes what has been compiled since."""

    def __init__(self) -> None:
        self.is_keeping = False
        self._found: dict[bytes, _Entry] = {}
        self._fresh: dict[bytes, bytes] = {}
        self._num_bytes = 0

    def find(self, kind: str, path: str, text: bytes) -> types.CodeType | None:
        """The code of a text where it is known."""
        found = self._found.get(_key(kind, path, text))
        if found is None:
            return None
        blob, start, size = found
        code = marshal.loads(memoryview(blob)[start : start + size])
        return code if isinstance(code, types.CodeType) and code.co_filename == path else None

    def keep(
        self, kind: str, path: str, text: bytes, make: Callable[[], types.CodeType]
    ) -> types.CodeType:
        """The code that ``make`` makes of the text. Raises whatever that raises."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            code = make()
        if said:
            return make()  # says them where they belong
        self._fresh[_key(kind, path, text)] = marshal.dumps(code)
        return code

    def keep_modules(self, files: Iterable[str]) -> None:
        """The code of modules as importing would make it, without running any of it.

        For runs that import them anew each time. What cannot be read or compiled is left to them.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are for the runs, which compile such files
            for path in files:
                with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
                    self._keep_module(path)

    def _keep_module(self, path: str) -> None:
        with open(path, "rb") as file:
            text = file.read()
        if self.find(IMPORT, path, text) is None:
            self.keep(IMPORT, path, text, partial(_compiled, text, path))

    def take_fresh(self) -> int:
        """A descriptor of a file with everything compiled since; -1 when there is nothing."""
        if not self._fresh:
            return -1
        fd = os.memfd_create("codes", os.MFD_CLOEXEC)
        sizes = [(key, len(data)) for key, data in self._fresh.items()]
        head = marshal.dumps(sizes)
        with open(fd, "wb", closefd=False) as file:
            file.writelines((len(head).to_bytes(8, "little"), head, *self._fresh.values()))
        self._fresh.clear()
        return fd

    def add(self, fd: int) -> None:
        """Learns what another process has compiled, from such a descriptor."""
        blob = os.pread(fd, os.fstat(fd).st_size, 0)
        if self._num_bytes + len(blob) > _MAX_BYTES:
            self._found.clear()
            self._num_bytes = 0
        self._num_bytes += len(blob)
        start = 8 + int.from_bytes(blob[:8], "little")
        for key, size in marshal.loads(memoryview(blob)[8:start]):
            self._found[key] = (blob, start, size)
            start += size


def _compiled(text: bytes, path: str) -> types.CodeType:
    code = compile(text, path, "exec", dont_inherit=True, optimize=-1)
    assert isinstance(code, types.CodeType)
    return code


def _key(kind: str, path: str, text: bytes) -> bytes:
    name = f"{kind}\0{path}".encode("utf-8", "surrogateescape")
    name = hashlib.blake2b(name, digest_size=32).digest()
    return hashlib.blake2b(text, digest_size=20, key=name).digest()
