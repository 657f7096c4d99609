# ruff: noqa: TID252 - started as a script, without the package above
"""The bare process's view of those that hold project modules: a few per kind."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

from .building import Lesson
from .wire import send

Key = tuple[Any, ...]
_MAX_UPPERS = 3  # of each kind


def key_of(request: dict[str, Any]) -> Key:
    """What must be equal for the same modules to be imported: the command, word for word."""
    return (request["program"], request["is_module"], request["is_script"], *request["args"])


def with_modules(request: dict[str, Any]) -> Key:
    """The process for a command that holds the project's modules."""
    return ("l1", *key_of(request))


def with_tests(request: dict[str, Any], shape: tuple[int, ...]) -> Key:
    """The process for a command and a kind of output in which pytest has started."""
    return ("l2", shape, *key_of(request))


class Upper:
    """One process with project modules: requests that it has not answered, and runs under way."""

    def __init__(self, link: socket.socket, pid: int, lesson: Lesson) -> None:
        self.link = link
        self.lesson = lesson
        self.pid = pid
        self.is_built = False
        self.is_checking = False
        self.running: set[int] = set()
        self._asked: dict[int, tuple[dict[str, Any], list[int], int, str]] = {}

    def ask(self, request: dict[str, Any], fds: list[int], colder: str) -> bool:
        """Hand a run over; it may begin once ``announced``. False when nobody is there.

        ``colder`` is why no warmer process serves it.

        While the process still imports, the request waits in the socket: importing the rest takes
        less than importing everything again.
        """
        wait_fd, go_fd = os.pipe()
        try:
            send(self.link, request, [fds[0], wait_fd, *fds[1:2]])
        except OSError:
            os.close(go_fd)
            return False
        finally:
            os.close(wait_fd)
        self._asked[request["id"]] = (request, [os.dup(fd) for fd in fds], go_fd, colder)
        return True

    def check(self) -> None:
        """Asks whether what it holds is stale."""
        try:
            send(self.link, {"op": "check"})
        except OSError:
            return  # its end is being told anyway
        self.is_checking = True

    @property
    def is_waited_for(self) -> bool:
        """Whether a request has no answer yet."""
        return bool(self._asked)

    def announced(self, number: int, announce: Callable[[str], None]) -> None:
        """The child exists: it is announced, with why it is no warmer, then it may begin."""
        _, fds, go_fd, colder = self._asked.pop(number)
        self.running.add(number)
        announce(colder)
        os.write(go_fd, b"g")  # only now: what is not reported may not print
        for fd in (go_fd, *fds):
            os.close(fd)

    def take(self, number: int) -> tuple[dict[str, Any], list[int]]:
        """A request back, with its descriptors."""
        request, fds, go_fd, _ = self._asked.pop(number)
        os.close(go_fd)
        return request, fds

    def take_all(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Every unanswered request back."""
        for number in list(self._asked):
            yield self.take(number)

    def pause(self) -> None:
        """What nobody waits for takes no time from a run."""
        if not self.is_built and not self._asked:
            os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It may go on."""
        if not self.is_built:
            os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """The process is gone and reaped. Its children are left to whoever adopts them."""
        self.link.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        os.waitpid(self.pid, 0)


class Uppers:
    """All of them, the one used last at the end."""

    def __init__(self) -> None:
        self._all: dict[Key, Upper] = {}

    def of(self, key: Key) -> Upper | None:
        """The one for this."""
        upper = self._all.pop(key, None)
        if upper is not None:
            self._all[key] = upper
        return upper

    def by_fd(self, fd: int) -> Upper | None:
        """The one that this connection leads to."""
        return next((upper for upper in self._all.values() if upper.link.fileno() == fd), None)

    def key(self, upper: Upper) -> Key:
        """The command that it is for."""
        return next(key for key, one in self._all.items() if one is upper)

    def add(self, key: Key, upper: Upper) -> list[Upper]:
        """Takes it in; returns those that must go: one for the same, the oldest of the kind.

        Called when no run is under way.
        """
        gone = [self._all.pop(key)] if key in self._all else []
        self._all[key] = upper
        same = [upper for other, upper in self._all.items() if other[0] == key[0]]
        return gone + same[:-_MAX_UPPERS]

    def remove(self, upper: Upper) -> None:
        """It serves no more runs."""
        self._all = {key: one for key, one in self._all.items() if one is not upper}

    def are_busy(self) -> bool:
        """Whether a run of any is under way or waited for."""
        return any(upper.running or upper.is_waited_for for upper in self._all.values())

    def are_building(self) -> bool:
        """Whether any still imports, or looks whether it should."""
        return any(not upper.is_built or upper.is_checking for upper in self._all.values())

    def all(self) -> list[Upper]:
        """Every one."""
        return list(self._all.values())

    def unbuilt(self) -> list[Upper]:
        """Those that still import."""
        return [upper for upper in self._all.values() if not upper.is_built]

    def waited_for(self) -> list[Upper]:
        """Those that have not answered a request."""
        return [upper for upper in self._all.values() if upper.is_waited_for]
