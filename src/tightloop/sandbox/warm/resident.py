# ruff: noqa: TID252 - started as a script, without the package above
"""The process that holds a project's modules: forked from the bare one, it only forks.

Built for one command from what a run of that command has imported. It imports what the test
modules import by name, checks that importing left nothing behind that a cold start would not
have at that point, and then forks a child per run as long as nothing has changed that the child
cannot make good. Everything else it hands back: ``{"state": "colder", "id", "reason"}``.
"""

import contextlib
import ctypes
import linecache
import os
import select
import signal
import socket
from typing import Any, NoReturn

from .building import Lesson, State, build
from .child import Child, run_child
from .deciding import Colder, Swaps, decide
from .recording import ChangedMeanwhile, Refusal
from .wire import receive, send

_PR_SET_PDEATHSIG = 1


class Resident:
    """Serves runs; single-threaded, ends when the other side closes the connection."""

    def __init__(self, link: socket.socket, state: State) -> None:
        self.link = link
        self.state = state
        self.poll = select.epoll()
        self.poll.register(link.fileno(), select.EPOLLIN)
        self.children: dict[int, tuple[int, int]] = {}  # pidfd -> (request id, pid)

    def serve(self) -> None:
        """Runs that are under way at the end of the connection are left to whoever adopts them."""
        while True:
            for fd, _ in self.poll.poll():
                if fd != self.link.fileno():
                    self.on_child_end(fd)
                    continue
                request, fds = receive(self.link)
                if request is None:
                    return
                if request.get("op") == "check":
                    self.check()
                    continue
                try:
                    self.on_request(request, fds)
                finally:
                    for passed in fds:
                        os.close(passed)

    def on_request(self, request: dict[str, Any], fds: list[int]) -> None:
        number = request["id"]
        try:
            swaps = decide(self.state)
            pid = self.fork(request, fds, swaps)
        except Exception as error:  # noqa: BLE001 - whatever it is, a colder level knows nothing of it
            reason = str(error) if isinstance(error, Colder) else f"{type(error).__name__}: {error}"
            send(self.link, {"state": "colder", "id": number, "reason": reason[:1000]})
            return
        level = "swap" if swaps else "l1"
        send(self.link, {"state": "forked", "id": number, "pid": pid, "level": level})

    def check(self) -> None:
        """Says whether everything here is still what a cold start would import."""
        try:
            is_stale = bool(decide(self.state))
        except Exception:  # noqa: BLE001 - as for a request
            is_stale = True
        send(self.link, {"state": "checked", "is_stale": is_stale})

    def fork(self, request: dict[str, Any], fds: list[int], swaps: Swaps) -> int:
        """A child that has swapped and waits to be announced. Raises Colder when it could not."""
        said_fd, saying_fd = os.pipe()
        pid = os.fork()
        if pid == 0:

            def prepare() -> None:
                try:
                    self.prepare(swaps)
                    os.write(saying_fd, b"s")
                except BaseException:  # noqa: BLE001 - nothing has run yet: it goes colder
                    os._exit(1)

            output, wait_fd, *report = fds
            run_child(
                Child(
                    request,
                    self.state.workspace,
                    output,
                    wait_fd,
                    report_fd=report[0] if report else -1,
                    prepare=prepare,
                )
            )
        os.close(saying_fd)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        is_prepared = os.read(said_fd, 1) == b"s"
        os.close(said_fd)
        if not is_prepared:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise Colder("swapping failed")
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (request["id"], pid)
        self.poll.register(pidfd, select.EPOLLIN)
        return pid

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
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)
        os.dup2(link.detach(), 3)
        os.closerange(4, 4096)
        link = socket.socket(fileno=3)
        link.set_inheritable(False)
        try:
            state = build(lesson, workspace)
        except BaseException as error:  # noqa: BLE001 - a project may raise anything on import
            reason = (
                str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
            )
            listing, changed = lesson.tree.changes()
            has_changed = listing or any(path.endswith(".py") for path in changed)
            again = isinstance(error, ChangedMeanwhile) or bool(has_changed)
            send(link, {"state": "refused", "reason": reason[:1000], "again": again})
        else:
            send(link, {"state": "built", "num_functions": len(state.functions)})
            Resident(link, state).serve()
    finally:
        os._exit(0)
