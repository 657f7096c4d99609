# ruff: noqa: TID252 - started as a script, without the package above
"""Which process serves a run: that in which pytest has started for its command (level 2), that
which holds the project's modules (level 1), or the bare one; and when they are built anew."""

import os
import select
import socket
from dataclasses import replace
from typing import Any, Protocol

from .building import Lesson
from .collected import run_collected
from .compiled import Codes
from .resident import run_resident
from .standing_in import Shape, shape_of
from .uppers import Key, Upper, Uppers, with_modules, with_tests
from .wire import receive

_BUILD_LIMIT_S = 20.0
_SILENCE_LIMIT_S = 120.0  # when nobody waits
_MAX_REFUSALS = 3  # for one command and kind; then it has none


class Bare(Protocol):
    """The process at level 0."""

    poll: select.epoll
    workspace: str

    def fork(self, request: dict[str, Any], fds: list[int], colder: str) -> None:
        """The run takes place at level 0."""

    def announce(self, number: int, pid: int, level: str, colder: str) -> None:
        """The run exists and may begin."""

    def ended(self, number: int, code: int) -> None:
        """The run is over."""


class Levels:
    """The processes above the bare one."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.codes = Codes()
        self.uppers = Uppers()
        self.to_build: dict[Key, Lesson] = {}
        self.refusals: dict[Key, int] = {}  # in a row
        self.reasons: dict[Key, str] = {}  # of the last one

    # -- runs

    def start(self, request: dict[str, Any], fds: list[int]) -> None:
        """By the warmest process that there is for the command."""
        for upper in self.uppers.all():
            upper.pause()
        shape = shape_of(fds[0])
        collected, resident = with_tests(request, shape), with_modules(request)
        other = self.uppers.of(resident)
        if other is not None and self.uppers.of(collected) is None:
            self.want(collected, replace(other.lesson, shape=shape))
        self.hand_over(request, fds, [collected, resident])

    def hand_over(
        self, request: dict[str, Any], fds: list[int], keys: list[Key], colder: str = ""
    ) -> None:
        """By the first of these processes that exists, else from the bare one."""
        for index, key in enumerate(keys):
            upper = self.uppers.of(key)
            # what still imports is worth waiting for only where the alternative imports too
            is_there = upper is not None and (upper.is_built or index == len(keys) - 1)
            if upper is not None and is_there and upper.ask(request, fds, colder):
                upper.resume()
                return
            colder = "; ".join(filter(None, (colder, self.reasons.get(key, ""))))
        self.bare.fork(request, fds, colder)

    def lower(self, upper: Upper, message: dict[str, Any]) -> None:
        """It cannot serve this run, nor others on this tree."""
        request, fds = upper.take(message["id"])
        key, keys = self.uppers.key(upper), []
        if key[0] == "l2":
            self.want(key, upper.lesson)
            keys = [with_modules(request)]
        try:
            self.hand_over(request, fds, keys, str(message["reason"]))
        finally:
            for fd in fds:
                os.close(fd)

    def lose(self, upper: Upper, reason: str) -> bool:
        """Runs that wait for it start from elsewhere; False when others had begun, for their sake."""
        had_begun = bool(upper.running)
        self.drop(upper)
        if had_begun:
            return False  # their parent is dead: whoever started this process gets them
        for request, fds in upper.take_all():
            try:
                why = f"no process with the project's modules: {reason}"
                self.bare.fork(request, fds, why)
            finally:
                for fd in fds:
                    os.close(fd)
        return True

    def on_news(self, fd: int) -> bool:
        """News of one of them; False when runs of it are left to others."""
        upper = self.uppers.by_fd(fd)
        if upper is None:
            return True  # it went while its news was under way
        try:
            message, fds = receive(upper.link)
        except OSError:
            message, fds = None, []
        for passed in fds:
            self.codes.add(passed)
            os.close(passed)
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
                self.want(self.uppers.key(upper), upper.lesson)
        elif state == "forked":
            pid, level = message["pid"], message["level"]
            upper.announced(
                message["id"],
                lambda colder: self.bare.announce(message["id"], pid, level, colder),
            )
        elif state == "colder":
            self.lower(upper, message)
        elif state == "ended":
            upper.running.discard(message["id"])
            self.bare.ended(message["id"], message["code"])
        return True

    # -- processes

    def is_hopeless(self, request: dict[str, Any], shape: Shape) -> bool:
        """Whether no process will be built for this command."""
        keys = (with_tests(request, shape), with_modules(request))
        return all(self.refusals.get(key, 0) >= _MAX_REFUSALS for key in keys)

    def learn(self, lesson: Lesson) -> None:
        """What a run has told: both processes for its command come about when there is time."""
        lesson.codes = self.codes
        self.want(with_tests(lesson.request, lesson.shape), lesson)
        self.want(with_modules(lesson.request), lesson)

    def want(self, key: Key, lesson: Lesson) -> None:
        """One to be built when there is time, unless that has failed too often."""
        if self.refusals.get(key, 0) < _MAX_REFUSALS:
            self.to_build[key] = lesson

    def refresh(self) -> None:
        """Files have changed and nobody asks for a run yet: the time to import them anew."""
        for upper in self.uppers.all():
            if upper.is_built:
                upper.check()

    def build_anew(self) -> None:
        """The bare process holds more than when these were forked from it: what plugins import
        only at the end of a run would be imported by each of their children."""
        for upper in reversed(self.uppers.all()):
            self.want(self.uppers.key(upper), upper.lesson)

    def build_next(self) -> None:
        """In the background, the one that was asked for first."""
        key = next(iter(self.to_build))
        lesson = self.to_build.pop(key)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            run = run_collected if key[0] == "l2" else run_resident
            run(theirs, parent, lesson, self.bare.workspace)
        theirs.close()
        for upper in self.uppers.add(key, Upper(ours, pid, lesson)):
            self.drop(upper)
        self.bare.poll.register(ours.fileno(), select.EPOLLIN)

    def drop(self, upper: Upper) -> None:
        """It is no more."""
        self.uppers.remove(upper)
        self.bare.poll.unregister(upper.link.fileno())
        upper.end()

    def are_busy(self) -> bool:
        """Whether a run is under way or waits."""
        return self.uppers.are_busy()

    def are_at_work(self) -> bool:
        """Whether anything is under way or to be done."""
        return bool(self.to_build) or self.uppers.are_busy() or self.uppers.are_building()

    def resume(self) -> None:
        """No run is under way: what was paused goes on."""
        for upper in self.uppers.all():
            upper.resume()

    def limit_s(self) -> float | None:
        """How long nothing may be heard."""
        if self.uppers.waited_for():
            return _BUILD_LIMIT_S
        return _SILENCE_LIMIT_S if self.uppers.are_building() and not self.are_busy() else None

    def give_up(self) -> bool:
        """What takes too long is given up; False as for ``on_news``."""
        late = self.uppers.waited_for() or self.uppers.unbuilt()
        for upper in late:
            self.refusals[self.uppers.key(upper)] = _MAX_REFUSALS
        lost = [self.lose(upper, "it takes too long") for upper in late]
        return all(lost)
