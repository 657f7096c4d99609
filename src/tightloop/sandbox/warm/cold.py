# ruff: noqa: TID252 - started as a script, without the package above
"""A cold run that says per test how it ended: what warm verdicts are checked against.

``python -m pytest`` or the script itself, by the function that ``-m`` calls, in an interpreter of
its own. It shares with warm runs only what tells outcomes: none of our modules is in
``sys.modules`` and none that pytest would not import, so that a test that a warm process leads
astray ends here as it would for a person. Like a warm run it believes no cached code of the
project, which may be stale for edits within one second; that changes nothing a module can tell.
"""

import os
import sys
from typing import Any

from .report import Lines, OutcomePlugin, hide, register

_REPORT_FD = 200  # above those that a run opens


def main() -> None:
    """``cold REPORT WORKSPACE PROGRAM ARGUMENT...``; PROGRAM is the python or the pytest script."""
    _, _, report, workspace, program, *args = sys.argv
    opened = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.dup2(opened, _REPORT_FD, inheritable=False)
    os.close(opened)
    is_module = not os.path.basename(program).startswith("pytest")
    if not sys.flags.safe_path:
        own = os.getcwd() if is_module else os.path.dirname(os.path.realpath(program))
        sys.path.insert(0, own)
    sys.argv = [program, *args]
    kept = hide()
    watch(os.path.realpath(workspace))
    names = vars(sys.modules["__main__"])
    loader = type(names["__loader__"])
    names.clear()
    # as Python has it before it runs anything
    names.update(__name__="__main__", __builtins__=sys.modules["builtins"], __doc__=None)
    names.update(__package__=None, __loader__=None, __spec__=None, __annotations__={})
    if is_module:
        import runpy

        runpy._run_module_as_main("pytest")  # type: ignore[attr-defined]
    else:
        names.update(__file__=program, __cached__=None, __loader__=loader("__main__", program))
        with open(program, "rb") as file:
            code = compile(file.read(), program, "exec", dont_inherit=True)
        exec(code, names)
    del kept


def watch(workspace: str) -> None:
    """Pytest will report, and cached code of the workspace is neither read nor written.

    Where there is no pytest, nothing is done: the run says so.
    """
    try:
        from _pytest.assertion import rewrite
    except ImportError:
        return
    register([OutcomePlugin(Lines(_REPORT_FD))])
    outside = os.path.realpath(sys.prefix)

    def is_ours(path: Any) -> bool:
        path = os.path.realpath(path)
        return _is_below(path, workspace) and not _is_below(path, outside)

    from importlib.machinery import SourceFileLoader

    of_source: Any = SourceFileLoader
    stats = of_source.path_stats
    names: dict[str, Any] = vars(rewrite)
    read, make = names["_read_pyc"], names["try_makedirs"]

    def path_stats(self: Any, path: str) -> Any:
        if is_ours(path):
            raise OSError  # what has no time has no cached code
        return stats(self, path)

    def read_rewritten(source: Any, *args: Any, **kwargs: Any) -> Any:
        return None if is_ours(source) else read(source, *args, **kwargs)

    def try_makedirs(directory: Any) -> bool:
        return not is_ours(directory) and bool(make(directory))

    of_source.path_stats = path_stats
    names.update(_read_pyc=read_rewritten, try_makedirs=try_makedirs)


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip(os.sep) + os.sep)
