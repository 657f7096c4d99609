"""A plugin that tells, as JSON lines, how each test ended, and once what collection imported.

It is registered in the process of a warm run and changes nothing there. Writing never fails a
run: when nobody listens any more, it stops.
"""

import contextlib
import json
import os
import sys
from typing import Any

_PRECEDENCE = ("error", "failed", "xfailed", "xpassed", "skipped", "passed")


class Lines:
    """JSON lines into a descriptor, which is closed when the other side has gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, message: dict[str, Any]) -> None:
        """One line, whole."""
        data = json.dumps(message).encode() + b"\n"
        while data and self.fd >= 0:
            try:
                data = data[os.write(self.fd, data) :]
            except OSError:
                self.close()

    def close(self) -> None:
        """No more lines."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class OutcomePlugin:
    """``{"test": node id, "outcome": ..., "duration_s": ...}`` when a test has ended.

    Outcomes: passed, failed, error (set-up, tear-down or collection), skipped, xfailed, xpassed.
    """

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.outcomes: dict[str, list[str]] = {}
        self.duration_s = 0.0

    def pytest_collectreport(self, report: Any) -> None:
        """A module that cannot be collected counts as one test."""
        if report.failed:
            self.lines.write({"test": report.nodeid, "outcome": "error", "duration_s": 0.0})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called for set-up, call and tear-down; the last of them ends the test."""
        said = self.outcomes.setdefault(report.nodeid, [])
        said.append(outcome(report))
        self.duration_s += report.duration
        if report.when == "teardown":
            del self.outcomes[report.nodeid]
            worst = min(said, key=_rank)
            line = {"test": report.nodeid, "outcome": worst, "duration_s": self.duration_s}
            self.lines.write(line)
            self.duration_s = 0.0


def _rank(said: str) -> int:
    return _PRECEDENCE.index(said) if said in _PRECEDENCE else -1


def outcome(report: Any) -> str:
    """What one phase of a test says about the whole."""
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed and report.when != "call":
        return "error"
    return str(report.outcome)


def register(plugins: list[Any]) -> None:
    """The first configuration that pytest makes gets the plugins; later ones belong to tests."""
    from _pytest import config

    original = config.get_config

    def get_config(*args: Any, **kwargs: Any) -> Any:
        config.get_config = original
        made = original(*args, **kwargs)
        for plugin in plugins:
            made.pluginmanager.register(plugin)
        return made

    if plugins:
        config.get_config = get_config


def hide() -> list[Any]:
    """Takes our modules out of ``sys.modules``, where a test could see them.

    Returns them: whoever still runs code of theirs keeps them.
    """
    package = __name__.partition(".")[0]
    ours = [name for name in sys.modules if name.partition(".")[0] == package]
    return [sys.modules.pop(name) for name in ours]


class LearningPlugin:
    """Says once, when collection is over and before a test runs, which modules it imported."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def pytest_collection_finish(self, session: Any) -> None:
        """Says nothing when collection failed, and never fails the run."""
        with contextlib.suppress(Exception):
            if not session.testsfailed and session.items:
                self.lines.write(collected(session))
        self.lines.close()


def collected(session: Any) -> dict[str, Any]:
    """Modules in the order of their import, test files and their kin, and the search path."""
    from _pytest.assertion.rewrite import AssertionRewritingHook

    modules: list[list[str]] = []
    tests: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        known = attributes(module)
        file = str(known.get("__file__") or "")
        loader = getattr(known.get("__spec__"), "loader", None)
        if isinstance(loader, AssertionRewritingHook):
            tests[file] = str(known.get("__package__") or "")
        else:
            modules.append([str(name), file])
    for plugin in session.config.pluginmanager.get_plugins():
        known = attributes(plugin)
        file = str(known.get("__file__") or "")
        if os.path.basename(file) == "conftest.py":
            tests.setdefault(file, str(known.get("__package__") or ""))
    for item in session.items:
        tests.setdefault(str(item.path), "")
    return {"modules": modules, "tests": tests, "path": [str(place) for place in sys.path]}


def attributes(thing: Any) -> dict[str, Any]:
    """What a module has without being asked: some import more when they are."""
    try:
        known = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return known if isinstance(known, dict) else {}
