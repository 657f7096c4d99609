# ruff: noqa: TID252 - started as a script, without the package above
"""The process that holds a project's modules: forked from the bare one, it only forks.

Built for one command from what a run of that command has imported. It imports what the test
modules import by name, checks that importing left nothing behind that a cold start would not
have at that point, and then forks a child per run as long as nothing has changed that the child
cannot make good. Everything else it hands back: ``{"state": "colder", "id", "reason"}``.
"""

import contextlib
import linecache
import os
import select
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from .building import Lesson, State, build
from .child import Child, run_child
from .deciding import Colder, Swaps, decide
from .recording import ChangedMeanwhile, Refusal
from .spare import Spare, bind_to_parent, own_pages
from .wire import receive, send


class Resident:
    """Serves runs; single-threaded, ends when the other side closes the connection.

    ``levels`` are the names of what it offers: without and with swapped functions.
    """

    levels = ("l1", "swap")
    keeps_spare = False

    def __init__(self, link: socket.socket, state: State) -> None:
        self.link = link
        self.state = state
        self.poll = select.epoll()
        self.poll.register(link.fileno(), select.EPOLLIN)
        self.children: dict[int, tuple[int, int]] = {}  # pidfd -> (request id, pid)
        self.spare: Spare | None = None

    def serve(self) -> None:
        """Runs that are under way at the end of the connection are left to whoever adopts them.

        Returns in a child that is to go on from here, if there are such.
        """
        while True:
            wants_spare = self.keeps_spare and self.spare is None and not self.children
            events = self.poll.poll(0 if wants_spare else None)
            if not events and self.make_spare():
                return
            for fd, _ in events:
                if fd != self.link.fileno():
                    self.on_child_end(fd)
                    continue
                request, fds = receive(self.link)
                if request is None:
                    os._exit(0)
                if request.get("op") == "check":
                    self.check()
                    continue
                try:
                    if self.on_request(request, fds):
                        return
                finally:
                    for passed in fds:
                        os.close(passed)

    def on_request(self, request: dict[str, Any], fds: list[int]) -> bool:
        """Forks, or hands the run back; True in a child that goes on."""
        number = request["id"]
        spare = self.spare
        if spare is not None and spare.is_ready():
            answer = spare.ask(request, fds)
            if answer is not None and answer["state"] == "colder":
                send(self.link, {"state": "colder", "id": number, "reason": answer["reason"]})
                return False
            self.spare = None
            if answer is not None:
                spare.link.close()
                self.forked(request, spare.pid, answer["level"])
                return False
            spare.end()
        try:
            swaps = decide(self.state)
            pid = self.fork(request, fds, swaps)
        except Exception as error:  # noqa: BLE001 - whatever it is, a colder level knows nothing of it
            send(self.link, {"state": "colder", "id": number, "reason": why(error)})
            return False
        if not pid:
            fds.clear()  # its own matter now
            return True
        self.forked(request, pid, self.levels[bool(swaps)])
        return False

    def forked(self, request: dict[str, Any], pid: int, level: str) -> None:
        """The run exists and waits to be announced."""
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (request["id"], pid)
        self.poll.register(pidfd, select.EPOLLIN)
        send(self.link, {"state": "forked", "id": request["id"], "pid": pid, "level": level})

    def make_spare(self) -> bool:
        """Forks a child for the next run; True in that child once it is the run."""
        with contextlib.suppress(Exception):
            decide(self.state)  # what this finds out about files need not be found out again
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            ours.close()
            bind_to_parent(is_bound=True)
            if os.getppid() != parent:
                os._exit(0)
            self.be_spare(theirs)
            return True
        theirs.close()
        self.spare = Spare(pid, ours)
        return False

    def be_spare(self, link: socket.socket) -> None:
        """In the child: wait for a run that is for this process, be it."""
        own_pages()
        link.send(b"r")
        while True:
            request, fds = receive(link)
            if request is None:
                os._exit(0)
            try:
                swaps = decide(self.state)
            except Exception as error:  # noqa: BLE001 - as for a request to the process itself
                send(link, {"state": "colder", "reason": why(error)})
                for fd in fds:
                    os.close(fd)
                continue
            self.begin(request, fds, swaps, partial(self.say_prepared, link, swaps))
            return

    def say_prepared(self, link: socket.socket, swaps: Swaps) -> None:
        """In the child: it may be announced, and lives as long as it likes."""
        bind_to_parent(is_bound=False)
        send(link, {"state": "prepared", "level": self.levels[bool(swaps)]})
        link.close()

    def check(self) -> None:
        """Says whether runs on the files as they are now must go colder."""
        is_stale = False
        try:
            decide(self.state)
        except Exception:  # noqa: BLE001 - as for a request
            is_stale = True
        send(self.link, {"state": "checked", "is_stale": is_stale})

    def fork(self, request: dict[str, Any], fds: list[int], swaps: Swaps) -> int:
        """A child that has swapped and waits to be announced. Raises Colder when it could not."""
        said_fd, saying_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.begin(request, fds, swaps, lambda: os.write(saying_fd, b"s"))
            return 0
        os.close(saying_fd)
        is_prepared = os.read(said_fd, 1) == b"s"
        os.close(said_fd)
        if not is_prepared:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise Colder("swapping failed")
        return pid

    def begin(
        self, request: dict[str, Any], fds: list[int], swaps: Swaps, say: Callable[[], object]
    ) -> None:
        """In the child: swap, say so, be the run."""

        def prepare() -> None:
            self.prepared(swaps, say)

        output, wait_fd, *report = fds
        report_fd = report[0] if report else -1
        run_child(Child(request, self.state.workspace, output, wait_fd, report_fd, prepare=prepare))

    def prepared(self, swaps: Swaps, say: Callable[[], object]) -> None:
        """In the child: it may be announced, or goes colder without a trace."""
        try:
            self.prepare(swaps)
            say()
        except BaseException:  # noqa: BLE001 - nothing has run yet: it goes colder
            os._exit(1)

    def prepare(self, swaps: Swaps) -> None:
        """In the child: be what importing the files as they are now would have made."""
        for function, code in swaps:
            function.__code__ = code
        for path in [path for path in linecache.cache if self.state.is_project(path)]:
            del linecache.cache[path]
        self.state.random.restore()

    def on_child_end(self, pidfd: int) -> None:
        number, pid = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # before reaping: the zombie keeps the group id
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        send(self.link, {"state": "ended", "id": number, "code": code})


def run_resident(link: socket.socket, parent: int, lesson: Lesson, workspace: str) -> NoReturn:
    """In the forked process: build, say so, serve. It dies with its parent."""
    try:
        die_with(parent)
        os.dup2(link.detach(), 3)
        os.closerange(4, 4096)
        link = socket.socket(fileno=3)
        link.set_inheritable(False)
        try:
            state = build(lesson, workspace)
        except BaseException as error:  # noqa: BLE001 - a project may raise anything on import
            fd = compile_modules(lesson, State(workspace, lesson.tree))
            refuse(link, lesson, error, fd)
        else:
            say_built(link, lesson, state)
            Resident(link, state).serve()
    finally:
        os._exit(0)


def why(error: Exception) -> str:
    """What a colder level may tell of an error here."""
    return (str(error) if isinstance(error, Colder) else f"{type(error).__name__}: {error}")[:1000]


def die_with(parent: int) -> None:
    """This process ends when the one does that it was forked from."""
    bind_to_parent(is_bound=True)
    if os.getppid() != parent:
        os._exit(0)


def say_built(link: socket.socket, lesson: Lesson, state: State) -> None:
    """It may be asked; what it has compiled is passed on for others to use."""
    lesson.codes.is_keeping = False
    fd = lesson.codes.take_fresh()
    fds = [fd] if fd >= 0 else []
    send(link, {"state": "built", "num_functions": len(state.functions)}, fds)
    for passed in fds:
        os.close(passed)


def compile_modules(lesson: Lesson, state: State) -> int:
    """Runs at level 0 import the project anew: a descriptor with its code for them, or -1."""
    modules = lesson.learnt.modules.values()
    ours = [file for file in modules if file.endswith(".py") and state.is_project(file)]
    lesson.codes.keep_modules(ours)
    return lesson.codes.take_fresh()


def refuse(
    link: socket.socket, lesson: Lesson, error: BaseException, codes_fd: int = -1
) -> NoReturn:
    """Says why there will be no such process; ``again`` when files just did not hold still."""
    try:
        reason = str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
        listing, changed = lesson.tree.changes()
        has_changed = listing or any(path.endswith(".py") for path in changed)
        again = isinstance(error, ChangedMeanwhile) or bool(has_changed)
        fds = [codes_fd] if codes_fd >= 0 else []
        send(link, {"state": "refused", "reason": reason[:1000], "again": again}, fds)
    finally:
        os._exit(0)
