# ruff: noqa: TID252 - started as a script, without the package above
"""A resident interpreter that forks one child per pytest run.

It holds pytest, its installed plugins and common standard modules, and no module of the project
(level 0). After a run of a command it has others built beside it that hold the project's modules
too (``levels.py``): later runs of that command are forked there, with changed
functions swapped in where that is sure to be the same. Whenever a run might differ from a cold
``python -m pytest``, it goes to a colder level: from swap to the plain fork here, from there to a
process of its own.

One SOCK_SEQPACKET connection, JSON. In: ``{"id", "args", "program", "is_module", "is_script",
"cwd", "environment"}`` with the output pipe and, with ``"report": true``, a second descriptor for
a JSON line per test; or ``{"op": "refresh"}``, when files have changed, so that what is stale is
imported anew before somebody waits for it; or ``{"op": "settle", "id"}``, answered once nothing is
left to do. Out: ``{"state": "ready" | "refused" | "declined" | "started" | "ended" | "settled", ...}``;
``started`` has the ``level``: ``l0``, ``l1``, ``l2``, ``swap`` or ``swap-l2``, and ``colder`` where
a reason is known why it is no warmer.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import types
from typing import Any

from . import declining
from .building import Learnt, Lesson
from .child import Child, run_child, set_dumpable
from .levels import Levels
from .probe import STANDARD_MODULES, Probe
from .recording import Refusal
from .stamps import Status, TooManyFiles, Tree, is_below, stamp
from .standing_in import Shape, shape_of
from .wire import receive, send

# Set for the whole session it holds for preload and runs alike: fewer plugins, nothing else.
_NO_PLUGINS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
_MAX_RUNS = 200  # then a new process, with another hash seed
_MAX_LEARNT_BYTES = 32 << 20


class Running:
    """One child of this process: what it was asked, and what it says of its imports."""

    __slots__ = ("learnt", "pid", "request", "shape", "tree")

    def __init__(self, request: dict[str, Any], pid: int, tree: Tree | None, shape: Shape) -> None:
        self.request = request
        self.pid = pid
        self.tree = tree
        self.shape = shape
        self.learnt = b""


class Zygote:
    """Forks a child per request, reports its end; single-threaded.

    It serves as soon as pytest and its plugins are loaded and learns the rest while nobody waits,
    so that the first run does not wait for what only later ones gain from.
    """

    def __init__(self, control: socket.socket, workspace: str) -> None:
        self.control = control
        self.workspace = os.path.realpath(workspace)
        self.poll = select.epoll()
        self.children: dict[int, Running] = {}  # by pidfd
        self.learning: dict[int, Running] = {}  # by descriptor
        self.stamps: dict[str, Status] = {}
        self.names: frozenset[str] = frozenset()
        self.counted: set[str] = set()  # modules that the stamps cover
        self.probe = Probe()
        self.to_import: list[str] | None = None  # None until the probe has told
        self.hooks: list[Any] = []
        self.levels = Levels(self)
        self.settling: list[int] = []
        self.num_runs = 0

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
        is_idle = not self.children and not self.levels.are_busy()
        has_more = self.to_import or not self.probe.is_started or self.levels.to_build
        can_learn = is_idle and has_more
        events = self.poll.poll(0 if can_learn else self.levels.limit_s())
        if not events and can_learn:
            self.learn()
        elif not events:
            return self.levels.give_up()
        for fd, _ in events:
            if fd == self.control.fileno():
                if not self.on_request():
                    return False
            elif fd == self.probe.read_fd:
                self.on_probe()
            elif fd in self.learning:
                self.on_learnt(fd)
            elif fd in self.children:
                self.on_child_end(fd)
            elif not self.levels.on_news(fd):
                return False
        self.settle()
        return True

    def settle(self) -> None:
        """Whoever waits for that is told that nothing is left to do."""
        is_learning = self.to_import != [] or self.learning
        if is_learning or self.children or self.levels.are_at_work():
            return
        while self.settling:
            self.send({"state": "settled", "id": self.settling.pop()})

    def send(self, message: dict[str, Any]) -> None:
        send(self.control, message)

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
        """One step, short enough for a request to wait: build, start the probe, or import."""
        if self.levels.to_build:
            self.levels.build_next()
            return
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
            self.levels.build_anew()
            self.send({"state": "ready", "num_modules": len(sys.modules)})

    def on_probe(self) -> None:
        names = self.probe.take()
        if names is not None:
            self.poll.unregister(self.probe.read_fd)
            self.probe.end()
            self.to_import = [*STANDARD_MODULES, *names][::-1]

    def take_stock(self) -> None:
        """What was imported since is watched from now on. Raises Refusal."""
        new = {name: module for name, module in sys.modules.items() if name not in self.counted}
        self.counted.update(new)
        files = {
            os.path.realpath(file)
            for module in new.values()
            if (file := getattr(module, "__file__", None))
        }
        not_its_own = (os.path.realpath(sys.prefix), os.path.dirname(os.path.realpath(__file__)))
        for file in files:
            is_own = not any(is_below(file, place) for place in not_its_own)
            if is_own and is_below(file, self.workspace):
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
        return self.num_runs >= _MAX_RUNS or any(
            stamp(place) != seen for place, seen in self.stamps.items()
        )

    # -- requests

    def on_request(self) -> bool:
        """Serves one request; False when there will be no more."""
        request, fds = receive(self.control)
        if request is None:
            return False
        try:
            if request.get("op") == "settle":
                self.settling.append(request["id"])
                return True
            if request.get("op") == "refresh":
                self.levels.refresh()
                return True
            if self.is_stale():
                self.decline(request, "stale")
                return bool(self.children) or self.levels.are_busy()
            reason = declining.unsure(request, self.workspace, self.names)
            if len(fds) != 1 + bool(request.get("report")):
                reason = "an input of its own"
            if reason:
                self.decline(request, reason)
            else:
                self.num_runs += 1
                self.probe.pause()
                self.levels.start(request, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def decline(self, request: dict[str, Any], reason: str) -> None:
        self.send({"state": "declined", "id": request["id"], "reason": reason})

    def fork(self, request: dict[str, Any], fds: list[int], colder: str = "") -> None:
        wait_fd, go_fd = os.pipe()
        learn_fd = learning_fd = -1
        shape = shape_of(fds[0])
        tree = self.tree_to_learn_from(request, shape)
        if tree is not None:
            learn_fd, learning_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_fd)
            report_fd = fds[1] if len(fds) > 1 else -1
            child = Child(request, self.workspace, fds[0], wait_fd, report_fd, learning_fd)
            child.codes = self.levels.codes
            run_child(child)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # both sides do it, whoever comes first
        os.close(wait_fd)
        running = Running(request, pid, tree, shape)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = running
        self.poll.register(pidfd, select.EPOLLIN)
        if tree is not None:
            os.close(learning_fd)
            self.learning[learn_fd] = running
            self.poll.register(learn_fd, select.EPOLLIN)
        self.probe.pause()
        self.announce(request["id"], pid, "l0", colder)
        os.write(go_fd, b"g")  # only now: what is not reported may not print
        os.close(go_fd)

    def announce(self, number: int, pid: int, level: str, colder: str = "") -> None:
        message = {"state": "started", "id": number, "pid": pid, "level": level}
        if colder:
            message["colder"] = colder[:1000]
        self.send(message)

    def on_child_end(self, pidfd: int) -> None:
        running = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # before reaping: the zombie keeps the group id
        _, status = os.waitpid(running.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.send({"state": "ended", "id": running.request["id"], "code": code})
        self.resume()

    def ended(self, number: int, code: int) -> None:
        """A run of a process with project modules is over."""
        self.send({"state": "ended", "id": number, "code": code})
        self.resume()

    def resume(self) -> None:
        """What had to hold still while a run was on goes on."""
        if not self.children and not self.levels.are_busy():
            self.probe.resume()
            self.levels.resume()

    # -- project modules

    def tree_to_learn_from(self, request: dict[str, Any], shape: Shape) -> Tree | None:
        """The tree before a run, if its command may get processes with the project's modules."""
        if self.levels.is_hopeless(request, shape) or not declining.collects_the_same(
            request["args"]
        ):
            return None
        try:
            return Tree(self.workspace)
        except TooManyFiles:
            return None

    def on_learnt(self, fd: int) -> None:
        """A run says what it has imported; at the end of that, the next one can have it resident."""
        running = self.learning[fd]
        piece = os.read(fd, 1 << 16)
        running.learnt += piece
        if piece and len(running.learnt) < _MAX_LEARNT_BYTES:
            return
        self.poll.unregister(fd)
        os.close(fd)
        del self.learning[fd]
        try:
            learnt = Learnt.of(json.loads(running.learnt))
        except (ValueError, KeyError, TypeError):
            return  # it collected nothing, or was killed
        assert running.tree is not None
        self.levels.learn(Lesson(running.request, learnt, running.tree, running.shape))


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


def main() -> None:
    """Serve on the descriptor named by the last argument."""
    set_dumpable(False)
    control = socket.socket(fileno=int(sys.argv[2]))
    control.set_inheritable(False)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Zygote(control, sys.argv[1]).serve()
