# ruff: noqa: TID252 - started as a script, without the package above
"""A resident interpreter that forks one child per pytest run.

It holds pytest, its installed plugins and common standard modules, and no module of the project
(level 0). After a run of a command it has a second process built beside it that holds the
project's modules too (``resident.py``): later runs of that command are forked there, with changed
functions swapped in where that is sure to be the same. Whenever a run might differ from a cold
``python -m pytest``, it goes to a colder level: from swap to the plain fork here, from there to a
process of its own.

One SOCK_SEQPACKET connection, JSON. In: ``{"id", "args", "program", "is_module", "is_script",
"cwd", "environment"}`` with the output pipe and, with ``"report": true``, a second descriptor for
a JSON line per test; or ``{"op": "refresh"}``, when files have changed, so that what is stale is
imported anew before somebody waits for it; or ``{"op": "settle", "id"}``, answered once nothing is
left to do. Out: ``{"state": "ready" | "refused" | "declined" | "started" | "ended" | "settled", ...}``;
``started`` has the ``level``: ``l0``, ``l1`` or ``swap``, and ``colder`` where a reason is known.
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
from .probe import STANDARD_MODULES, Probe
from .recording import Refusal
from .resident import run_resident
from .stamps import Status, TooManyFiles, Tree, is_below, stamp
from .uppers import Key, Upper, Uppers, key_of
from .wire import receive, send

# Set for the whole session it holds for preload and runs alike: fewer plugins, nothing else.
_NO_PLUGINS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
_MAX_RUNS = 200  # then a new process, with another hash seed
_BUILD_LIMIT_S = 20.0
_MAX_REFUSALS = 3  # of project modules for one command; then its runs stay at level 0
_MAX_LEARNT_BYTES = 32 << 20


class Running:
    """One child of this process: what it was asked, and what it says of its imports."""

    __slots__ = ("learnt", "pid", "request", "tree")

    def __init__(self, request: dict[str, Any], pid: int, tree: Tree | None) -> None:
        self.request = request
        self.pid = pid
        self.tree = tree
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
        self.uppers = Uppers()
        self.to_build: dict[Key, Lesson] = {}
        self.refusals: dict[Key, int] = {}  # in a row
        self.reasons: dict[Key, str] = {}  # of the last one
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
        is_idle = not self.children and not self.uppers.are_busy()
        can_learn = is_idle and (self.to_import or not self.probe.is_started or self.to_build)
        limit_s = _BUILD_LIMIT_S if self.uppers.are_waited_for() else None
        events = self.poll.poll(0 if can_learn else limit_s)
        if not events and can_learn:
            self.learn()
        elif not events:
            return self.give_up_waiting()
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
            elif not self.on_upper(fd):
                return False
        self.settle()
        return True

    def settle(self) -> None:
        """Whoever waits for that is told that nothing is left to do."""
        is_learning = self.to_import != [] or self.to_build or self.learning
        if is_learning or self.children or self.uppers.are_busy() or self.uppers.are_building():
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
        if self.to_build:
            key = next(iter(self.to_build))
            self.build(key, self.to_build.pop(key))
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
                self.refresh()
                return True
            if self.is_stale():
                self.decline(request, "stale")
                return bool(self.children) or self.uppers.are_busy()
            reason = declining.unsure(request, self.workspace, self.names)
            if len(fds) != 1 + bool(request.get("report")):
                reason = "an input of its own"
            if reason:
                self.decline(request, reason)
            else:
                self.num_runs += 1
                self.start(request, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def decline(self, request: dict[str, Any], reason: str) -> None:
        self.send({"state": "declined", "id": request["id"], "reason": reason})

    def start(self, request: dict[str, Any], fds: list[int]) -> None:
        """By the process that holds the project's modules if there is one, else from here."""
        upper = self.uppers.of(request)
        if upper is None or not upper.ask(request, fds):
            self.fork(request, fds, self.reasons.get(key_of(request), ""))
        else:
            self.probe.pause()

    def fork(self, request: dict[str, Any], fds: list[int], colder: str = "") -> None:
        wait_fd, go_fd = os.pipe()
        learn_fd = learning_fd = -1
        tree = self.tree_to_learn_from(request)
        if tree is not None:
            learn_fd, learning_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_fd)
            report_fd = fds[1] if len(fds) > 1 else -1
            run_child(Child(request, self.workspace, fds[0], wait_fd, report_fd, learning_fd))
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # both sides do it, whoever comes first
        os.close(wait_fd)
        running = Running(request, pid, tree)
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

    def resume(self) -> None:
        """What had to hold still while a run was on goes on."""
        if not self.children and not self.uppers.are_busy():
            self.probe.resume()

    # -- project modules

    def tree_to_learn_from(self, request: dict[str, Any]) -> Tree | None:
        """The tree before a run, if its command may get a process with the project's modules."""
        is_hopeless = self.refusals.get(key_of(request), 0) >= _MAX_REFUSALS
        if is_hopeless or not declining.collects_the_same(request["args"]):
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
        key = key_of(running.request)
        self.to_build[key] = Lesson(running.request, learnt, running.tree)

    def refresh(self) -> None:
        """Files have changed and nobody asks for a run yet: the time to import them anew."""
        for upper in self.uppers.all():
            if upper.is_built:
                upper.check()

    def build(self, key: Key, lesson: Lesson) -> None:
        """In the background: a process with the project's modules for runs like this one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            run_resident(theirs, parent, lesson, self.workspace)
        theirs.close()
        for upper in self.uppers.add(key, Upper(ours, pid, lesson)):
            self.drop(upper)
        self.poll.register(ours.fileno(), select.EPOLLIN)

    def on_upper(self, fd: int) -> bool:
        """News of a process with project modules; False when runs of it are left to others."""
        upper = self.uppers.by_fd(fd)
        if upper is None:
            return True  # it went while its news was under way
        try:
            message, _ = receive(upper.link)
        except OSError:
            message = None
        state = message["state"] if message else "gone"
        if message is None or state == "refused":
            reason = str(message["reason"]) if message else "it died"
            key = self.uppers.key(upper)
            self.reasons[key] = reason
            if not (message and message["again"]):
                self.refusals[key] = self.refusals.get(key, 0) + 1
            return self.lose(upper, reason)
        if state == "built":
            upper.is_built = True
            self.refusals.pop(self.uppers.key(upper), None)
            self.reasons.pop(self.uppers.key(upper), None)
        elif state == "checked":
            upper.is_checking = False
            if message["is_stale"]:
                self.to_build.setdefault(self.uppers.key(upper), upper.lesson)
        elif state == "forked":
            upper.announced(message["id"], lambda: self.announce_upper(message))
        elif state == "colder":
            self.lower(upper, message)
        elif state == "ended":
            upper.running.discard(message["id"])
            self.send({"state": "ended", "id": message["id"], "code": message["code"]})
            self.resume()
        return True

    def announce_upper(self, message: dict[str, Any]) -> None:
        self.announce(message["id"], message["pid"], message["level"])

    def lower(self, upper: Upper, message: dict[str, Any]) -> None:
        """It cannot serve this run, nor others on this tree: the run is forked from here."""
        request, fds = upper.take(message["id"])
        try:
            self.fork(request, fds, str(message["reason"]))
        finally:
            for fd in fds:
                os.close(fd)

    def lose(self, upper: Upper, reason: str) -> bool:
        """Runs that wait for it start from here; False when others had begun, for their sake."""
        had_begun = bool(upper.running)
        self.drop(upper)
        if had_begun:
            return False  # their parent is dead: whoever started this process gets them
        for request, fds in upper.take_all():
            try:
                self.fork(request, fds, f"no process with the project's modules: {reason}")
            finally:
                for fd in fds:
                    os.close(fd)
        return True

    def drop(self, upper: Upper) -> None:
        """It is no more."""
        self.uppers.remove(upper)
        self.poll.unregister(upper.link.fileno())
        upper.end()

    def give_up_waiting(self) -> bool:
        """A build takes too long for those who wait for it."""
        lost = [self.lose(upper, "it takes too long") for upper in self.uppers.waited_for()]
        return all(lost)


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
