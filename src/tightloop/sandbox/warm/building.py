# ruff: noqa: TID252 - started as a script, without the package above
"""Makes a process hold the project's modules, and keeps what they were made from."""

import contextlib
import gc
import importlib
import linecache
import os
import sys
import types
import warnings
from dataclasses import dataclass, field
from typing import Any

from . import early
from .child import become_cold, forget_listings
from .compiled import Codes
from .declining import CONFIG_FILES
from .recording import ChangedMeanwhile, RandomState, Recorder, Refusal, project_objects
from .report import attributes, hide
from .stamps import Seen, Tree, is_below


@dataclass(slots=True)
class Learnt:
    """What a run of the same command had imported when its collection was over.

    ``modules`` are names with files in the order of import, ``tests`` the files that pytest
    itself imports (tests, conftest, plugins of the project) with their packages.
    """

    modules: dict[str, str]
    tests: dict[str, str]
    path: list[str]

    @classmethod
    def of(cls, message: dict[str, Any]) -> "Learnt":
        """From the line of the learning plugin."""
        modules = {str(name): str(file) for name, file in message["modules"]}
        tests = {str(file): str(package) for file, package in message["tests"].items()}
        return cls(modules, tests, [str(place) for place in message["path"]])


@dataclass(slots=True)
class Lesson:
    """A command, what a run of it had imported, and the tree as it was before that run.

    ``shape`` is what a run can tell of its output, see ``standing_in``.
    """

    request: dict[str, Any]
    learnt: Learnt
    tree: Tree
    shape: tuple[int, ...] = ()
    codes: Codes = field(default_factory=Codes)


@dataclass(slots=True)
class State:
    """What is resident, and what it was made from."""

    workspace: str
    tree: Tree
    tests: dict[str, bytes] = field(default_factory=dict)
    outside: dict[str, Seen] = field(default_factory=dict)
    looked: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    functions: dict[str, list[types.FunctionType]] = field(default_factory=dict)
    suspended: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    executed: set[int] = field(default_factory=set)
    recorder: Recorder | None = None
    random: RandomState = field(default_factory=RandomState)
    hidden: list[Any] = field(default_factory=list)
    _places: dict[str, bool] = field(default_factory=dict)

    def is_project(self, path: str) -> bool:
        """Whether a file is the project's own, not of an environment inside its directory."""
        known = self._places.get(path)
        if known is None:
            real = os.path.realpath(path)
            is_tool = is_below(real, os.path.realpath(sys.prefix))
            is_ours = is_below(real, self.workspace) and not is_tool
            # what Python brings along has no path, and would be found in this directory
            known = self._places[path] = is_ours and not path.startswith("<frozen ")
        return known


def build(lesson: Lesson, workspace: str) -> State:
    """Imports the project. Raises Refusal, or whatever an import raises."""
    request, learnt = lesson.request, lesson.learnt
    if not hasattr(build.__code__, "co_qualname"):
        raise Refusal("project modules stay resident from Python 3.11 on")
    search_path, importers = list(sys.path), set(sys.path_importer_cache)
    become_cold(request, workspace, lesson.codes)
    lesson.codes.is_keeping = True  # modules only: a test file is not imported here
    state = State(workspace, Tree(workspace))
    state.hidden = hide()
    check_tests(lesson.tree, learnt)
    statements = find_imports(state, learnt)
    before = set(sys.modules)
    sys.argv[0] = argument_zero(request)
    pytest: Any = sys.modules["pytest"]
    os.environ["PYTEST_VERSION"] = pytest.__version__  # as in any run
    sys.path[:] = learnt.path
    recorder = state.recorder = Recorder(state.is_project)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        recorder.start()
        try:
            for module, names in statements:
                if names:
                    __import__(module, {}, {}, names, 0)
                else:
                    importlib.import_module(module)
        finally:
            recorder.stop()
    if said:
        raise Refusal(f"importing warns: {said[0].message}")
    state.random.note(is_set=recorder.is_seeded, unseeded=recorder.unseeded.values())
    sys.path[:] = search_path
    del os.environ["PYTEST_VERSION"]
    for place in set(sys.path_importer_cache) - importers:
        del sys.path_importer_cache[place]
    forget_listings(workspace)
    new = {name: sys.modules[name] for name in sys.modules if name not in before}
    check_modules(new, learnt, state)
    take_stock(state, recorder, new)
    return state


def argument_zero(request: dict[str, Any]) -> str:
    """``sys.argv[0]`` as it is in a run while modules are imported."""
    if not request["is_module"]:
        return str(request["program"])
    pytest: Any = sys.modules["pytest"]
    return os.path.join(os.path.dirname(pytest.__file__), "__main__.py")


def check_tests(then: Tree, learnt: Learnt) -> None:
    """The same test files would be collected now, and import the same. Raises ChangedMeanwhile."""
    listing, changed = then.changes()
    tests = {os.path.realpath(file) for file in learnt.tests}
    for path in changed:
        if os.path.basename(path) in CONFIG_FILES or os.path.realpath(path) in tests:
            listing = path
    if listing:
        raise ChangedMeanwhile(f"{listing} changed since it was learnt what to import")


def find_imports(state: State, learnt: Learnt) -> list[early.Import]:
    """What the test files certainly import, in their order.

    Raises Refusal when a test file might do more than import.
    """
    statements: list[early.Import] = []
    for file, package in learnt.tests.items():
        if not state.is_project(file) or not file.endswith(".py"):
            continue
        with open(file, "rb") as opened:
            text = state.tests[os.path.realpath(file)] = opened.read()
        try:
            found = early.effect(text)
            statements += early.first_imports(text, package)
        except (SyntaxError, ValueError) as error:
            raise Refusal(f"{file}: {error}") from error
        if found:
            raise Refusal(f"{file}: {found}")
    statements = [statement for statement in statements if statement[0] in learnt.modules]
    if not any(state.is_project(learnt.modules[name] or os.sep) for name, _ in statements):
        raise Refusal("the tests import nothing of the project")
    return statements


def check_modules(new: dict[str, Any], learnt: Learnt, state: State) -> None:
    """Nothing is here that a run would not have, or would have from elsewhere. Raises Refusal."""
    for name, module in new.items():
        file = _file(module)
        if os.path.realpath(file) in state.tests:
            raise Refusal(f"{file} is for pytest to import")
        if name not in learnt.modules:
            raise Refusal(f"{name} was not imported by the run before")
        if file != learnt.modules[name]:
            raise Refusal(f"{name} comes from {file}, not from {learnt.modules[name]}")


def take_stock(state: State, recorder: Recorder, new: dict[str, Any]) -> None:
    """The key of what is resident: files read and code run. Raises Refusal when they changed."""
    files = {os.path.realpath(file) for module in new.values() if (file := _file(module))}
    state.read |= {
        path
        for path, count in recorder.opened.items()
        if path not in recorder.sources or count != recorder.sources[path].num_loads
    }
    # compiled from something else than the text, or by a loader of another kind
    state.read |= {path for path in files if path not in recorder.sources}
    state.read |= {path for path, source in recorder.sources.items() if source.num_loads > 1}
    state.read |= {os.path.realpath(path) for path in linecache.cache if path in state.tree.seen}
    outside = {path for path in state.read | files if path not in state.tree.seen}
    state.outside = {path: Seen(path) for path in outside}
    state.looked, listed = recorder.looks.beside(state.tree, outside)
    state.outside = listed | state.outside
    for path, source in recorder.sources.items():
        with contextlib.suppress(OSError), open(path, "rb") as opened:
            if opened.read() == source.text:
                continue
        raise ChangedMeanwhile(f"{path} changed meanwhile")
    listing, changed = state.tree.changes()
    if listing or changed:
        raise ChangedMeanwhile(f"{listing or changed[0]} changed meanwhile")
    watch_known(state)
    state.functions, suspended = project_objects(state.is_project)
    state.suspended = {os.path.realpath(path) for path in suspended}
    state.executed = set(recorder.executed)
    gc.collect()
    gc.freeze()


def watch_known(state: State) -> None:
    """Changes of files that nothing resident has come from make no difference."""
    assert state.recorder is not None
    known = state.read | state.recorder.sources.keys() | state.tests.keys()

    def is_known(path: str) -> bool:
        real = os.path.realpath(path)
        if real != path:
            state.links[path] = real
        is_configuration = os.path.basename(path) in CONFIG_FILES
        return is_configuration or path in known or real in known or real != path

    state.tree.watch_only(is_known)


def _file(module: Any) -> str:
    return str(attributes(module).get("__file__") or "")
