# ruff: noqa: TID252 - started as a script, without the package above
"""What a forked child does: become what a cold start would be at this point, run, exit."""

import atexit
import contextlib
import ctypes
import fcntl
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import _bootstrap_external
from importlib.machinery import SourceFileLoader
from typing import Any, NoReturn

from .compiled import IMPORT, Codes
from .report import LearningPlugin, Lines, OutcomePlugin, hide, register
from .stamps import is_below

_PR_SET_DUMPABLE = 4
HIGH_FD = 200  # descriptors of ours lie above those that a run opens


@dataclass(slots=True)
class Child:
    """What one run needs. Descriptors are -1 when there is none.

    ``prepare`` changes what a colder process would not have to change, before the run may begin.
    """

    request: dict[str, Any]
    workspace: str
    output: int
    wait_fd: int
    report_fd: int = -1
    learn_fd: int = -1
    prepare: Callable[[], None] | None = None
    codes: Codes = field(default_factory=Codes)
    hidden: list[Any] = field(default_factory=list)


def run_child(child: Child) -> NoReturn:
    """In the child: wait until the run is announced, then be a cold run from here on."""
    code = 1
    try:
        os.setpgid(0, 0)
        if child.prepare is not None:
            child.prepare()
        if not os.read(child.wait_fd, 1):
            os._exit(0)  # nobody could announce this run: it goes colder
        os.dup2(child.output, 1)
        os.dup2(child.output, 2)
        follow_lines()
        plugins = keep_reports(child)
        set_dumpable(True)
        child.hidden = hide()
        become_cold(child.request, child.workspace, child.codes)
        register(plugins)
        code = run_pytest("" if child.request["is_module"] else child.request["program"])
    except BaseException:  # noqa: BLE001 - the last frame of the process
        traceback.print_exc()
    finally:
        end_child(code)


def follow_lines() -> None:
    """A cold interpreter sends each line at once when its output is a terminal."""
    if os.isatty(1) and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)


def keep_reports(child: Child) -> list[Any]:
    """Every descriptor but the standard ones is closed, those for reports moved out of the way."""
    kept: dict[int, Any] = {}
    wanted = ((child.report_fd, OutcomePlugin), (child.learn_fd, LearningPlugin))
    for fd, plugin in wanted:
        if fd >= 0:
            moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
            kept[moved] = plugin(Lines(moved))
    first = 3
    for fd in [*sorted(kept), 4096]:
        os.closerange(first, fd)
        first = fd + 1
    return list(kept.values())


def set_dumpable(value: bool) -> None:
    """Whether another process of the same user may look into this one."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(value), 0, 0, 0)


def become_cold(request: dict[str, Any], workspace: str, codes: Codes) -> None:
    """Directory, variables, arguments and search path as ``python -m pytest`` has them."""
    cwd, program = request["cwd"], request["program"]
    os.chdir(cwd)
    os.environ.update(request["environment"])
    if request["is_script"]:
        os.environ.update({"PWD": cwd, "SHLVL": "0", "_": program})
    if request["is_module"]:
        sys.executable = program
        sys.path.insert(0, os.getcwd())
    else:
        sys.path.insert(0, os.path.dirname(os.path.realpath(program)))
    sys.argv = [program, *request["args"]]
    forget_listings(workspace)
    ignore_cached_code(workspace, codes)


def forget_listings(workspace: str) -> None:
    """What the import system remembers of directories of the workspace."""
    for place in [place for place in sys.path_importer_cache if is_below(place, workspace)]:
        # listings of other places are known to be fresh, by their stamps
        if not is_below(place, os.path.realpath(sys.prefix)):
            del sys.path_importer_cache[place]


def ignore_cached_code(workspace: str, codes: Codes) -> None:
    """Files of the workspace are compiled from their source, or were from the very same text.

    Python and pytest trust cached code when size and whole seconds agree; two edits within one
    second would then run the old code.
    """
    sys.dont_write_bytecode = True
    if hasattr(_bootstrap_external.cache_from_source, "is_warm"):
        return  # the process that this one was forked from has done it
    outside = os.path.realpath(sys.prefix)

    def is_ours(path: str) -> bool:
        path = os.path.realpath(path)
        return is_below(path, workspace) and not is_below(path, outside)

    _compile_from_source(is_ours, codes)
    _rewrite_from_source(is_ours, codes)


def _compile_from_source(is_ours: Callable[[str], bool], codes: Codes) -> None:
    original: Callable[..., str] = _bootstrap_external.cache_from_source
    loader: Any = _bootstrap_external.SourceLoader
    to_code = loader.source_to_code

    def cache_from_source(path: str, *args: Any, **kwargs: Any) -> str:
        if is_ours(os.fspath(path)):
            raise NotImplementedError  # the import system then does without a cache
        return original(path, *args, **kwargs)

    def source_to_code(self: Any, data: Any, path: Any, **options: Any) -> Any:
        is_plain = type(self) is SourceFileLoader and isinstance(data, bytes)
        if is_plain and isinstance(path, str) and is_ours(path):
            kind = f"import {options}" if options else IMPORT
            known = codes.find(kind, path, data)
            if known is not None:
                return known
            if codes.is_keeping:
                return codes.keep(kind, path, data, lambda: to_code(self, data, path, **options))
        return to_code(self, data, path, **options)

    # Python leaves frames of its import system out of tracebacks; this is one of them
    importing = to_code.__code__.co_filename
    source_to_code.__code__ = source_to_code.__code__.replace(co_filename=importing)
    cache_from_source.is_warm = True  # type: ignore[attr-defined]
    _bootstrap_external.cache_from_source = cache_from_source  # type: ignore[assignment]
    loader.source_to_code = source_to_code


def _rewrite_from_source(is_ours: Callable[[str], bool], codes: Codes) -> None:
    from _pytest.assertion import rewrite

    read_pyc, rewrite_test = rewrite._read_pyc, rewrite._rewrite_test

    def read_rewritten(source: Any, *args: Any, **kwargs: Any) -> Any:
        path = os.fspath(source)
        if not is_ours(path):
            return read_pyc(source, *args, **kwargs)
        kinds = [
            _rewriting(hook.config)
            for hook in sys.meta_path
            if isinstance(hook, rewrite.AssertionRewritingHook)
        ]
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return codes.find(kinds[0], path, file.read()) if kinds else None
        return None

    def rewritten(source: Any, config: Any) -> Any:
        path = os.fspath(source)
        if not is_ours(path) or not codes.is_keeping:
            return rewrite_test(source, config)
        with open(path, "rb") as file:
            text = file.read()
        code = codes.keep(_rewriting(config), path, text, lambda: rewrite_test(source, config)[1])
        return None, code  # beside it comes what only a cached file would need

    rewrite._read_pyc = read_rewritten
    if codes.is_keeping:  # elsewhere it would show in tracebacks
        vars(rewrite)["_rewrite_test"] = rewritten


def _rewriting(config: Any) -> str:
    return f"rewrite {config.getini('enable_assertion_pass_hook')}"


def run_pytest(script: str) -> int:
    """Exit code of the run, by the same entry point as a cold one: ``-m pytest`` or a script."""
    try:
        if script:
            runpy.run_path(script, run_name="__main__")
        else:
            runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    return 0


def end_child(code: int) -> NoReturn:
    """Threads joined, exit functions run and streams flushed, as at a normal exit."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, AttributeError):
                stream.flush()
    finally:
        os._exit(code)
