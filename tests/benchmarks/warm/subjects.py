"""A small project to edit."""

from pathlib import Path

from benchmarks.warm.file_edits import Subject
from benchmarks.warm.projects import IMPORT_DATA, TEST_DATA, Project

MODULE = b'''"""A module with something of everything."""

from __future__ import annotations

import functools
import os

LIMIT = 3
NAME: str = "na\xc3\xafve"


def plain(x, y=1):
    """Adds."""
    if x == y:
        return 2
    return x + y


def second(z):
    total = z * 4
    return total


@functools.lru_cache
def cached(n):
    return n


class Thing:
    size = 2

    def method(self):
        return self.size

    @property
    def documented(self):
        """Only says so."""


def outer(start):
    def inner(n):
        return n

    return inner(start)
'''
PROJECT = Project(
    "small",
    "src/small",
    ("tests/test_small.py",),
    "tests/conftest.py",
    "src/small/core.py",
    (),
)


def make_subject(root: Path) -> Subject:
    """A project of one package, one test file and a conftest."""
    files = {
        "src/small/__init__.py": b"from small.core import plain\n",
        "src/small/core.py": MODULE,
        "src/small/more.py": b"def more(n):\n    return n == 1\n",
        "src/small/unused.py": b"VALUE = 1\n",
        "tests/test_small.py": b"from small import plain\n\n\ndef test_plain():\n    assert plain(1) == 2\n",
        "tests/conftest.py": b"import pytest\n\n\n@pytest.fixture\ndef three():\n    return 3\n",
        "README.md": b"small\n",
        IMPORT_DATA: b"fine\n",
        TEST_DATA: b"fine\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    used = {"src/small/__init__.py": frozenset[str](), "src/small/core.py": frozenset({"plain"})}
    used["src/small/more.py"] = frozenset({"more"})
    return Subject(PROJECT, root, used)


def every_file(root: Path) -> dict[str, bytes]:
    """Content by path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }
