"""One timer that looks when something last moved, on a loop whose clock is turned by hand."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tightloop.client.quiet import Quiet


class Clock:
    """Of a loop: its time, and what is due when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[[], Any]]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now_s)
        monkeypatch.setattr(loop, "call_later", self._call_later)

    def _call_later(self, delay_s: float, call: Callable[[], Any]) -> "Timer":
        due = (self.now_s + delay_s, call)
        self.timers.append(due)
        return Timer(self, due)

    def turn_to(self, now_s: float) -> None:
        self.now_s = now_s
        due = [timer for timer in self.timers if timer[0] <= now_s]
        for timer in due:
            self.timers.remove(timer)
            timer[1]()


class Timer:
    """What ``call_later`` gives back."""

    def __init__(self, clock: Clock, due: tuple[float, Callable[[], Any]]) -> None:
        self._clock = clock
        self._due = due

    def cancel(self) -> None:
        if self._due in self._clock.timers:
            self._clock.timers.remove(self._due)


async def test_it_calls_once_after_the_last_move(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        clock, calls = Clock(patch), list[float]()
        quiet = Quiet(10.0, lambda: calls.append(clock.now_s))
        clock.turn_to(107.0)
        quiet.moved()
        assert len(clock.timers) == 1
        clock.turn_to(110.0)
        assert calls == []
        clock.turn_to(117.0)
        clock.turn_to(200.0)
        assert calls == [117.0]
        assert clock.timers == []


async def test_stopped_it_never_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        clock, calls = Clock(patch), list[float]()
        quiet = Quiet(10.0, lambda: calls.append(clock.now_s))
        quiet.stop()
        quiet.stop()
        clock.turn_to(200.0)
        assert calls == []
