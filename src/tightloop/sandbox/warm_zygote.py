"""A resident interpreter that forks one child per pytest run.

Runs inside the sandbox with the project's own ``python``, as a script, standard library only.
It holds pytest, its installed plugins and common standard modules, and no module of the project:
what the project says now is imported afresh in every child, so there is nothing to go stale.
Whenever a run might differ from a cold ``python -m pytest``, it declines and the run goes cold.

One SOCK_SEQPACKET connection, JSON. In: ``{"id", "args", "program", "is_module", "is_script",
"cwd", "environment"}`` with the output pipe. Out: ``{"state": "ready" | "refused" | "declined"
| "started" | "ended", ...}``.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # the directory of this script: it must not shadow anything

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import runpy
import select
import shutil
import signal
import socket
import stat
import tempfile
import threading
import traceback
import types
from collections.abc import Callable
from importlib import _bootstrap_external
from typing import Any, NoReturn

_MAX_MESSAGE_BYTES = 200_000
_PR_SET_DUMPABLE = 4
# Chosen by how often test suites import them; each is only a start, never a difference.
_STANDARD_MODULES = """
    abc argparse asyncio base64 bisect calendar collections concurrent.futures configparser
    contextvars copy csv dataclasses datetime decimal difflib email.message enum fractions
    functools getpass glob gzip hashlib heapq hmac html http.client importlib.metadata inspect
    io itertools json logging.handlers math mimetypes multiprocessing numbers operator pathlib
    pickle platform pprint queue random re secrets shlex shutil signal socket sqlite3 ssl
    statistics string struct subprocess tempfile textwrap threading timeit tokenize typing
    unittest.mock urllib.request uuid weakref xml.etree.ElementTree zipfile zoneinfo
""".split()  # noqa: SIM905 - as a list it fills a page
_PROBE = "def test_pass(tmp_path):\n    pass\n\n\ndef test_fail():\n    assert [1] == [2]\n"
_OPTIONS = frozenset(
    """
    --tb --maxfail --lf --last-failed --ff --failed-first --nf --new-first --sw --stepwise
    --no-header --no-summary --durations --durations-min --co --collect-only --color --verbose
    --quiet --exitfirst --capture --showlocals --disable-warnings --strict-markers
    --strict-config --deselect --ignore --ignore-glob --cache-clear --runxfail --junitxml
    --show-capture --full-trace --timeout
    """.split()  # noqa: SIM905
)
_SHORT_OPTIONS = re.compile(r"-(?:[qvxsl]+|r[A-Za-z]*|[km].*)")
_CONFIG_FILES = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"),
    *("pyproject.toml", "tox.ini", "setup.cfg"),
)
_UNSURE_CONFIG = re.compile(
    r"""(?:^|[\s"',=\[])(?:-p[\s"',]*(?!no:|[\s"',])|-n[\s"',=\d]|--(?:cov|dist|pdb|trace|forked"""
    r"""|numprocesses|boxed)\b|xdist)""",
    re.MULTILINE,
)
_MARKER = "TIGHTLOOP_COMMAND"
# Set for the whole session it holds for preload and runs alike: fewer plugins, nothing else.
_NO_PLUGINS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
_MAX_DIRECTORIES = 500


class Refusal(Exception):
    """This interpreter cannot serve as a warm one; the text says why."""


class Zygote:
    """Forks a child per request, reports its end; single-threaded.

    It serves as soon as pytest and its plugins are loaded and learns the rest while nobody waits,
    so that the first run does not wait for what only later ones gain from.
    """

    def __init__(self, control: socket.socket, workspace: str) -> None:
        self.control = control
        self.workspace = os.path.realpath(workspace)
        self.poll = select.epoll()
        self.children: dict[int, tuple[int, int]] = {}  # pidfd -> (request id, pid)
        self.stamps: dict[str, tuple[int, ...]] = {}
        self.names: frozenset[str] = frozenset()
        self.counted: set[str] = set()  # modules that the stamps cover
        self.probe = Probe()
        self.to_import: list[str] | None = None  # None until the probe has told
        self.hooks: list[Any] = []

    def serve(self) -> None:
        """Preload, then serve until the other side closes the connection."""
        try:
            self.preload()
            self.poll.register(self.control.fileno(), select.EPOLLIN)
            while self.serve_once():
                pass
        except Refusal as refusal:
            self.send({"state": "refused", "reason": str(refusal)})
        except BaseException as error:  # noqa: BLE001 - plugins may raise anything on import
            self.send({"state": "refused", "reason": f"{type(error).__name__}: {error}"})

    def serve_once(self) -> bool:
        """What has happened is dealt with, or one thing is learnt; False when all is over."""
        can_learn = not self.children and (self.to_import or not self.probe.is_started)
        events = self.poll.poll(0 if can_learn else None)
        if not events:
            self.learn()
        for fd, _ in events:
            if fd == self.control.fileno():
                if not self.on_request():
                    return False
            elif fd == self.probe.read_fd:
                self.on_probe()
            else:
                self.on_child_end(fd)
        return True

    def send(self, message: dict[str, Any]) -> None:
        self.control.sendall(json.dumps(message).encode())

    # -- what is resident

    def preload(self) -> None:
        for name in os.environ:
            if name.startswith(("PYTEST", "COV_CORE", "COVERAGE_")) and name != _NO_PLUGINS:
                raise Refusal(f"{name} is set")
        os.chdir(self.workspace)  # modules may remember it: hypothesis does
        self.hooks = load_pytest()
        self.take_stock()
        gc.freeze()

    def learn(self) -> None:
        """One step, short enough for a request to wait: start the probe, or import one module."""
        if not self.probe.is_started:
            self.probe.start()
            self.poll.register(self.probe.read_fd, select.EPOLLIN)
            return
        assert self.to_import
        name = self.to_import.pop()
        before = list(sys.path)
        sys.meta_path[:0] = self.hooks  # plugins expect to be rewritten
        try:
            # a build of Python may lack a module; some make sense in a real run only
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        finally:
            sys.meta_path[:] = [hook for hook in sys.meta_path if hook not in self.hooks]
            sys.path[:] = before
        self.take_stock()
        if not self.to_import:
            gc.collect()
            gc.freeze()
            self.send({"state": "ready", "num_modules": len(sys.modules)})

    def on_probe(self) -> None:
        names = self.probe.take()
        if names is not None:
            self.poll.unregister(self.probe.read_fd)
            self.probe.end()
            self.to_import = [*_STANDARD_MODULES, *names][::-1]

    def take_stock(self) -> None:
        """What was imported since is watched from now on. Raises Refusal."""
        new = {name: module for name, module in sys.modules.items() if name not in self.counted}
        self.counted.update(new)
        files = {
            os.path.realpath(file)
            for module in new.values()
            if (file := getattr(module, "__file__", None))
        }
        for file in files:
            if is_below(file, self.workspace) and not is_below(file, os.path.realpath(sys.prefix)):
                raise Refusal(f"{file} of the project was imported by a plugin")
        if threading.active_count() > 1:
            raise Refusal("a plugin started a thread on import")
        for module in list(sys.modules.values()):
            # a warning already shown here would not be shown again in a run
            if isinstance(module, types.ModuleType):
                object.__getattribute__(module, "__dict__").pop("__warningregistry__", None)
        places = files | {place for place in sys.path if os.path.isdir(place)}
        self.stamps.update((place, stamp(place)) for place in places - self.stamps.keys())
        self.names |= {name.partition(".")[0] for name in new}

    def is_stale(self) -> bool:
        """Whether a resident file, or what is installed beside it, has changed."""
        return any(stamp(place) != seen for place, seen in self.stamps.items())

    # -- requests

    def on_request(self) -> bool:
        """Serves one request; False when there will be no more."""
        data, fds = receive(self.control)
        if not data:
            return False
        request = json.loads(data)
        output = fds[0]
        try:
            if self.is_stale():
                self.send({"state": "declined", "id": request["id"], "reason": "stale"})
                return bool(self.children)
            reason = self.unsure(request)
            if reason:
                self.send({"state": "declined", "id": request["id"], "reason": reason})
            else:
                self.fork(request, output)
        finally:
            os.close(output)
        return True

    def unsure(self, request: dict[str, Any]) -> str:
        """Why a cold run might behave differently; empty when nothing is known."""
        if os.path.realpath(request["cwd"]) != self.workspace:
            return "another directory than that of the preload"
        return (
            other_interpreter(request["program"], request["is_module"])
            or unknown_argument(request["args"])
            or own_variables(request["environment"])
            or unsure_config(request["cwd"], self.workspace)
            or shadowing(request["cwd"], self.names)
        )

    def fork(self, request: dict[str, Any], output: int) -> None:
        wait_fd, go_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_fd)
            run_child(request, output, wait_fd, self.workspace)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # both sides do it, whoever comes first
        os.close(wait_fd)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (request["id"], pid)
        self.probe.pause()
        self.poll.register(pidfd, select.EPOLLIN)
        self.send({"state": "started", "id": request["id"], "pid": pid})
        os.write(go_fd, b"g")  # only now: what is not reported may not print
        os.close(go_fd)

    def on_child_end(self, pidfd: int) -> None:
        number, pid = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # before reaping: the zombie keeps the group id
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.send({"state": "ended", "id": number, "code": code})
        if not self.children:
            self.probe.resume()


def load_pytest() -> list[Any]:
    """Pytest and its installed plugins are imported, rewritten as in a real run.

    By pytest's own start-up with no project in sight, undone right after: importing plugins by
    hand would skip the assertion rewriting that pytest later expects of them. Returns the import
    hooks that rewrite.
    """
    try:
        from _pytest import config
        from _pytest.assertion import rewrite
    except ImportError as error:
        raise Refusal(f"pytest is not installed for {sys.executable}") from error
    if not hasattr(rewrite, "_read_pyc"):
        raise Refusal("this version of pytest caches rewritten tests in an unknown way")
    before = list(sys.path)
    arguments = ["--noconftest", "-c", os.devnull, "--rootdir=/", os.devnull]
    prepared = config._prepareconfig(arguments)
    hooks = [hook for hook in sys.meta_path if isinstance(hook, rewrite.AssertionRewritingHook)]
    prepared._ensure_unconfigure()
    sys.path[:] = before
    return hooks


class Probe:
    """Every module that a run of two trivial tests imports, plugins' late imports included.

    Found by running them in a child that is thrown away and holds still while others run.
    """

    def __init__(self) -> None:
        self.is_started = False
        self.read_fd = -1
        self._pid = 0
        self._directory = ""
        self._said = b""

    def start(self) -> None:
        """The child runs; ``read_fd`` tells when it has something to say."""
        self.is_started = True
        self._directory = tempfile.mkdtemp(prefix="tightloop-probe-")
        self.read_fd, write_fd = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            run_probe(self._directory, write_fd)
        os.close(write_fd)

    def take(self) -> list[str] | None:
        """Reads what is there; the names once all of them are."""
        piece = os.read(self.read_fd, 1 << 16)
        self._said += piece
        return None if piece else [str(name) for name in json.loads(self._said or b"[]")]

    def pause(self) -> None:
        """It takes no time from a run."""
        if self._pid:
            os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It may go on."""
        if self._pid:
            os.kill(self._pid, signal.SIGCONT)

    def end(self) -> None:
        """Nothing of it is left."""
        os.close(self.read_fd)
        os.waitpid(self._pid, 0)
        self.read_fd, self._pid = -1, 0
        shutil.rmtree(self._directory, ignore_errors=True)


def run_probe(directory: str, write_fd: int) -> NoReturn:
    """In the child: run the tests, then say which modules are there."""
    try:
        os.dup2(write_fd, 3)  # the connection: it must end with its owner
        os.closerange(4, 4096)
        with open(os.path.join(directory, "test_probe.py"), "w") as file:
            file.write(_PROBE)
        os.chdir(directory)
        sys.argv = ["pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "."]
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    except BaseException:  # noqa: BLE001 - it ends by SystemExit; all else shows as no names
        names = [
            name
            for name, module in sys.modules.items()
            if name != "__main__" and directory not in str(getattr(module, "__file__", ""))
        ]
        with open(3, "w") as file:
            json.dump(names, file)
    finally:
        os._exit(0)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its descriptors, closed on exec."""
    size = socket.CMSG_SPACE(array.array("i", [0]).itemsize)
    data, extra, _, _ = connection.recvmsg(_MAX_MESSAGE_BYTES, size, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def is_below(path: str, directory: str) -> bool:
    """Whether a path lies in a directory; whole components, not string prefixes."""
    return path == directory or path.startswith(directory + os.sep)


def stamp(path: str) -> tuple[int, ...]:
    """Changes whenever the file does, or the names in the directory; empty when it is gone.

    Cached byte code does not count: running tests elsewhere with the same interpreter makes it.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return (hash(frozenset(os.listdir(path)) - {"__pycache__"}), status.st_ino)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def other_interpreter(program: str, is_module: bool) -> str:
    """Whether the command would start another Python, or the same in another environment."""
    python = program
    if not is_module:
        try:
            with open(program, "rb") as file:
                line = file.readline(512)
        except OSError:
            return "no pytest script"
        if not line.startswith(b"#!/") or len(line.split()) != 1:
            return "a pytest that is not a plain script"
        python = os.fsdecode(line[2:].strip())
    same_place = os.path.dirname(python) == os.path.dirname(sys.executable)
    if same_place and os.path.realpath(python) == os.path.realpath(sys.executable):
        return ""
    return f"another interpreter, {python}"


def unknown_argument(args: list[str]) -> str:
    """The first argument that is not known to be harmless; plugins and debuggers are not."""
    for index, argument in enumerate(args):
        if argument.startswith("@"):
            return argument
        if not argument.startswith("-"):
            continue
        if argument == "-p" and args[index + 1 : index + 2] != [] and args[index + 1][:3] == "no:":
            continue
        known = argument.partition("=")[0] in _OPTIONS or argument.startswith("-pno:")
        if not known and not _SHORT_OPTIONS.fullmatch(argument):
            return f"argument {argument}"
    return ""


def own_variables(environment: dict[str, str]) -> str:
    """Variables of this command only: modules may have looked at the old ones on import."""
    return next((f"variable {name}" for name in environment if name != _MARKER), "")


def unsure_config(cwd: str, workspace: str) -> str:
    """A configuration between here and the workspace's top that asks for more than plain runs."""
    directory = os.path.realpath(cwd)
    while is_below(directory, workspace):
        for name in _CONFIG_FILES:
            path = os.path.join(directory, name)
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    found = _UNSURE_CONFIG.search(file.read())
            except OSError:
                continue
            if found:
                return f"{path} says {found[0].strip()!r}"
        if directory == workspace:
            break
        directory = os.path.dirname(directory)
    return ""


def shadowing(cwd: str, names: frozenset[str]) -> str:
    """A project file that a cold run would import instead of a resident module.

    Only directories without ``__init__.py`` can get onto ``sys.path``; two levels are looked at.
    """
    waiting = [(cwd, 0)]
    num_seen = 0
    while waiting:
        directory, depth = waiting.pop()
        num_seen += 1
        if num_seen > _MAX_DIRECTORIES:
            return "too many directories to look through"
        try:
            with os.scandir(directory) as entries:
                listing = list(entries)
        except OSError:
            continue
        if depth and any(entry.name == "__init__.py" for entry in listing):
            continue
        for entry in listing:
            stem, _, extension = entry.name.partition(".")
            if stem in names and (extension in ("py", "so") or extension.endswith(".so")):
                return f"{entry.path} shadows a resident module"
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if entry.name in names and has_code(entry.path):
                return f"{entry.path} shadows a resident module"
            if depth < 2 and not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
                waiting.append((entry.path, depth + 1))
    return ""


def has_code(directory: str) -> bool:
    """Whether a directory is an importable package; without __init__.py it never shadows."""
    return os.path.exists(os.path.join(directory, "__init__.py"))


def run_child(request: dict[str, Any], output: int, wait_fd: int, workspace: str) -> NoReturn:
    """In the child: become what a cold start would be at this point, run, and exit."""
    code = 1
    try:
        os.setpgid(0, 0)
        if not os.read(wait_fd, 1):
            os._exit(0)  # the zygote died before it could report this run: it goes cold
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 4096)
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        become_cold(request, workspace)
        code = run_pytest("" if request["is_module"] else request["program"])
    except BaseException:  # noqa: BLE001 - the last frame of the process
        traceback.print_exc()
    finally:
        end_child(code)


def become_cold(request: dict[str, Any], workspace: str) -> None:
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
    sys.dont_write_bytecode = True
    for place in [place for place in sys.path_importer_cache if is_below(place, workspace)]:
        # listings of other places are known to be fresh, by their stamps
        if not is_below(place, os.path.realpath(sys.prefix)):
            del sys.path_importer_cache[place]
    ignore_cached_code(workspace)


def ignore_cached_code(workspace: str) -> None:
    """Files of the workspace are compiled from their source, always.

    Python and pytest trust cached code when size and whole seconds agree; two edits within one
    second would then run the old code.
    """
    from _pytest.assertion import rewrite

    original: Callable[..., str] = _bootstrap_external.cache_from_source
    outside = os.path.realpath(sys.prefix)

    def is_ours(path: str) -> bool:
        path = os.path.realpath(path)
        return is_below(path, workspace) and not is_below(path, outside)

    def cache_from_source(path: str, *args: Any, **kwargs: Any) -> str:
        if is_ours(os.fspath(path)):
            raise NotImplementedError  # the import system then does without a cache
        return original(path, *args, **kwargs)

    read_pyc = rewrite._read_pyc

    def read_rewritten(source: Any, *args: Any, **kwargs: Any) -> Any:
        return None if is_ours(os.fspath(source)) else read_pyc(source, *args, **kwargs)

    _bootstrap_external.cache_from_source = cache_from_source  # type: ignore[assignment]
    rewrite._read_pyc = read_rewritten


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


def main() -> None:
    """Serve on the descriptor named by the last argument."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    control = socket.socket(fileno=int(sys.argv[2]))
    control.set_inheritable(False)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Zygote(control, sys.argv[1]).serve()


if __name__ == "__main__":
    main()
