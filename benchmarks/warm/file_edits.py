"""Edits beside a project's modules: tests, conftest, data, new and deleted files, configuration."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.warm import body_edits, module_edits
from benchmarks.warm.projects import IMPORT_DATA, TEST_DATA, Project
from benchmarks.warm.sources import Source, is_plain_text

Writes = Mapping[str, bytes | None]
FileEdit = tuple[Writes, str] | None
"""What is in which file afterwards (None: no file), and what was edited."""

_HOOK = b"""
def pytest_collection_modifyitems(items):
    items.reverse()
"""
_FIXTURE = b"""
import pytest as edited_pytest

@edited_pytest.fixture(autouse=True)
def edited_fixture():
    print("edited")
"""
_EARLY = b"import os\nos.environ['EDITED'] = '1'\n"
_SHADOWED = ("textwrap", "colorsys", "string", "typing_extensions")


@dataclass(frozen=True, slots=True)
class Subject:
    """A scratch copy and what is known of it.

    ``used`` has, for every module that the tests import, the functions that they call.
    """

    project: Project
    root: Path
    used: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def read(self, path: str) -> bytes | None:
        """What is in a file; None when it is not there."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def source(self, path: str) -> Source | None:
        """A module that can be parsed; None when it cannot or is not there."""
        text = self.read(path)
        if text is None or not is_plain_text(text):
            return None
        return Source(text, self.used.get(path, frozenset()))

    def pick_module(self, rng: random.Random) -> str:
        """A module of the project, mostly one whose functions the tests call."""
        called = {path: len(names) for path, names in self.used.items() if names}
        if called and rng.random() < 0.8:
            return rng.choices(list(called), list(called.values()))[0]
        return rng.choice(list(self.used))


def test_body(subject: Subject, rng: random.Random) -> FileEdit:
    """A test or a helper in a test file does something else."""
    path = rng.choice(subject.project.tests)
    source = subject.source(path)
    edit = rng.choice(list(body_edits.BODIES.values()))
    edited = edit(source, rng) if source else None
    return ({path: edited[0]}, f"{path} {edited[1]}") if edited else None


def test_added(subject: Subject, rng: random.Random) -> FileEdit:
    """One more test, which passes or fails."""
    path = rng.choice(subject.project.tests)
    number = rng.randrange(99)
    code = b"\n\ndef test_edited_%d():\n    assert %d %% 3\n" % (number, number)
    return _appended(subject, path, code)


def test_module(subject: Subject, rng: random.Random) -> FileEdit:
    """A test file imports, assigns or defines something else."""
    path = rng.choice(subject.project.tests)
    source = subject.source(path)
    kinds = module_edits.MODULES | module_edits.SIGNATURES
    edited = rng.choice(list(kinds.values()))(source, rng) if source else None
    return ({path: edited[0]}, f"{path} {edited[1]}") if edited else None


def conftest_added(subject: Subject, rng: random.Random) -> FileEdit:
    """The conftest gets a hook, a fixture for all tests, a variable, a comment."""
    code = rng.choice((_HOOK, _FIXTURE, _EARLY, b"EDITED = 1\n", b"# edited\n"))
    return _appended(subject, subject.project.conftest, code)


def conftest_body(subject: Subject, rng: random.Random) -> FileEdit:
    """A fixture or hook of the conftest does something else."""
    source = subject.source(subject.project.conftest)
    edit = rng.choice(list(body_edits.BODIES.values()))
    edited = edit(source, rng) if source else None
    return ({subject.project.conftest: edited[0]}, edited[1]) if edited else None


def _appended(subject: Subject, path: str, code: bytes) -> FileEdit:
    text = subject.read(path)
    if text is None:
        return None
    about = code.strip().splitlines()[0].decode()
    return {path: text + code}, f"{path} {about}"


def import_data(subject: Subject, rng: random.Random) -> FileEdit:
    """The file that a module reads on import."""
    new = b"fine\n" if subject.read(IMPORT_DATA) == b"broken\n" else b"broken\n"
    new = rng.choice((new, new, b"other\n"))
    return {IMPORT_DATA: new}, new.decode().strip()


def test_data(subject: Subject, rng: random.Random) -> FileEdit:
    """The file that a test reads."""
    new = b"wrong\n" if subject.read(TEST_DATA) == b"fine\n" else b"fine\n"
    return {TEST_DATA: new}, new.decode().strip()


def other_data(subject: Subject, rng: random.Random) -> FileEdit:
    """A file that nothing reads."""
    return _appended(subject, "README.md", b"edited\n")


def data_deleted(subject: Subject, rng: random.Random) -> FileEdit:
    """One of the data files is gone."""
    path = rng.choice((IMPORT_DATA, TEST_DATA))
    return ({path: None}, path) if subject.read(path) is not None else None


def module_deleted(subject: Subject, rng: random.Random) -> FileEdit:
    """A module of the project is gone, whether the tests import it or not."""
    code = subject.root / subject.project.code
    every = sorted(path.relative_to(subject.root).as_posix() for path in code.glob("**/*.py"))
    unused = [path for path in every if path not in subject.used]
    path = rng.choice(unused if unused and rng.random() < 0.5 else every)
    return {path: None}, path


def test_deleted(subject: Subject, rng: random.Random) -> FileEdit:
    """A test file that the command names is gone."""
    path = rng.choice(subject.project.tests)
    return ({path: None}, path) if subject.read(path) is not None else None


def file_added(subject: Subject, rng: random.Random) -> FileEdit:
    """A new file that nothing imports."""
    folder = rng.choice((".", subject.project.code, str(Path(subject.project.conftest).parent)))
    name = f"{folder}/edited_{rng.randrange(99)}.{rng.choice(('py', 'txt', 'json'))}"
    return {name: b"0\n"}, name


def shadowing(subject: Subject, rng: random.Random) -> FileEdit:
    """A new file or package that an import finds instead of the one it found before."""
    code = rng.choice((b"", b"raise ImportError('edited')\n", b"EDITED = 1\n"))
    own = subject.project.code.rpartition("/")[2]
    name = rng.choice((*_SHADOWED, own, own))
    path = rng.choice((f"{name}.py", f"{name}/__init__.py"))
    return ({path: code}, path) if subject.read(path) is None else None


def configuration(subject: Subject, rng: random.Random) -> FileEdit:
    """A ``pytest.ini``, which wins over every other configuration."""
    lines = (b"addopts = -x", b"addopts = --tb=line", b"python_functions = test_b* test_s*")
    return {"pytest.ini": b"[pytest]\n" + rng.choice(lines) + b"\n"}, "pytest.ini"


def two_modules(subject: Subject, rng: random.Random) -> FileEdit:
    """Bodies in two modules at once."""
    writes: dict[str, bytes | None] = {}
    about = []
    for _ in range(2):
        path = subject.pick_module(rng)
        source = subject.source(path)
        edited = rng.choice(list(body_edits.BODIES.values()))(source, rng) if source else None
        if edited is None or path in writes:
            return None
        writes[path] = edited[0]
        about.append(f"{path} {edited[1]}")
    return writes, ", ".join(about)


FILES: Mapping[str, tuple[Callable[[Subject, random.Random], FileEdit], float]] = {
    "two bodies": (two_modules, 3.0),
    "test: body": (test_body, 4.0),
    "test: added": (test_added, 2.0),
    "test: module": (test_module, 2.0),
    "conftest: added": (conftest_added, 2.0),
    "conftest: body": (conftest_body, 2.0),
    "data: read on import": (import_data, 2.0),
    "data: read by a test": (test_data, 2.0),
    "data: read by nothing": (other_data, 1.0),
    "data: deleted": (data_deleted, 1.0),
    "deleted: module": (module_deleted, 2.0),
    "deleted: test file": (test_deleted, 0.5),
    "new: file": (file_added, 1.5),
    "new: shadowing": (shadowing, 2.0),
    "new: configuration": (configuration, 1.0),
}
"""By kind, with how often each is chosen beside the others."""
