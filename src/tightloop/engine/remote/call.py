"""What one request to a host has said so far, and what the host says of its own time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tightloop.engine.interface import Sink
from tightloop.protocol.deltas import Delta, EngineTiming, Finished, FinishReason, Usage
from tightloop.trace.clock import Clock

MAX_HOST_TIME_S: Final = 86_400.0
"""A host's figure above this is no duration of one answer."""


_TIME_KEYS: Final = frozenset(("time_info", "usage", "x_groq"))


@dataclass(frozen=True, slots=True)
class HostTimes:
    """What the host says about its own time, in seconds.

    From ``time_info`` (Cerebras), ``usage`` (Groq) or ``tightloop:timing``.
    """

    queue_s: float = 0.0
    prompt_s: float = 0.0
    completion_s: float = 0.0


def host_times(chunk: dict[str, Any]) -> HostTimes | None:
    """The host's times in a chunk of a chat, or None when it gives none."""
    if not chunk.keys() & _TIME_KEYS:
        return None  # nearly every chunk
    places = [chunk.get("time_info"), chunk.get("usage")]
    inner = chunk.get("x_groq")
    places.append(inner.get("usage") if isinstance(inner, dict) else None)
    for place in places:
        if isinstance(place, dict) and "completion_time" in place:
            return _times(place, ("queue_time", "prompt_time", "completion_time"))
    return None


def timing_event_times(timing: dict[str, Any]) -> HostTimes:
    """The times in a ``tightloop:timing`` event."""
    return _times(timing, ("queue_s", "prefill_s", "decode_s"))


def _times(place: dict[str, Any], names: Sequence[str]) -> HostTimes:
    return HostTimes(*(_host_time_s(place.get(name)) for name in names))


def _host_time_s(value: object) -> float:
    """Seconds; 0 for what is no duration (negative, endless, not a number)."""
    if not isinstance(value, int | float) or not 0 <= value <= MAX_HOST_TIME_S:
        return 0.0
    return float(value)


class Call:
    """One request's answer on its way to the sink; ends with exactly one ``Finished``."""

    def __init__(
        self, clock: Clock, sink: Sink, who: str, *, hide: Callable[[str], str] = str
    ) -> None:
        """``hide`` takes out of an error's text what clients must not see."""
        self.times: HostTimes | None = None
        self.who = who
        """The host and model, as errors name them."""
        self._clock = clock
        self._sink = sink
        self._hide = hide
        self._submitted_ns = clock.now_ns()
        self._first_ns = 0
        self._is_ended = False

    @property
    def is_ended(self) -> bool:
        """Whether the sink had its ``Finished``."""
        return self._is_ended

    @property
    def has_output(self) -> bool:
        """Whether the sink had any delta: then nothing may be asked again."""
        return self._first_ns > 0

    def aside(self) -> "Call":
        """A call for the same host whose answer nobody reads."""
        return Call(self._clock, _unread, self.who, hide=self._hide)

    def say(self, deltas: Sequence[Delta]) -> None:
        """Hand the deltas on, the last one complete with its timing."""
        if not deltas or self._is_ended:
            return
        last = deltas[-1]
        if not isinstance(last, Finished):
            self._mark()
            self._sink(deltas)
            return
        if len(deltas) > 1:
            self._mark()
        if last.reason is FinishReason.ERROR:
            text = f"{self.who}: {last.error_message}"
            last = msgspec.structs.replace(last, error_message=text)
        self._finish([*deltas[:-1], last])

    def say_more(self, deltas: Sequence[Delta]) -> None:
        """``say`` for an answer that has begun; no ``Finished`` is among the deltas."""
        if deltas and not self._is_ended:
            self._sink(deltas)

    def fail(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        """End with an error."""
        self.end(
            Finished(FinishReason.ERROR, Usage(), None, code, message, retry_after_s=retry_after_s)
        )

    def end(self, finished: Finished) -> None:
        """End, unless it has ended."""
        if not self._is_ended:
            self._finish([finished])

    def _mark(self) -> None:
        self._first_ns = self._first_ns or self._clock.now_ns()

    def _finish(self, deltas: list[Delta]) -> None:
        self._is_ended = True
        last = deltas[-1]
        assert isinstance(last, Finished)
        text = last.error_message
        timed = msgspec.structs.replace(
            last,
            timing=self._timing(last.usage),
            error_message=self._hide(text) if text is not None else None,
        )
        self._sink([*deltas[:-1], timed])

    def _timing(self, usage: Usage) -> EngineTiming:
        """The host's own durations laid before the end; without them what was seen from here."""
        submitted, finished = self._submitted_ns, self._clock.now_ns()
        started, prefilled, decode = submitted, self._first_ns or finished, 0
        if self.times is not None:
            decode = round(self.times.completion_s * 1e9)
            prefilled = max(submitted, finished - decode)
            started = max(submitted, prefilled - round(self.times.prompt_s * 1e9))
        return EngineTiming(
            submitted_ns=submitted,
            started_ns=started,
            prefilled_ns=prefilled,
            finished_ns=finished,
            num_prefill_tokens=max(0, usage.input_tokens - usage.cached_tokens),
            num_decode_steps=usage.output_tokens,
            decode_ns=decode,
            first_delta_ns=self._first_ns,
        )


def _unread(_deltas: Sequence[Delta]) -> None:
    """A sink for nobody."""
