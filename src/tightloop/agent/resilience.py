"""What went wrong with a request, and how long to wait before it is asked for again.

=========================================== ==============================================
what happened                               what is done
=========================================== ==============================================
connection refused, lost or silent          ask again, longer pauses each time
429, "try again in 2.5s", ``Retry-After``   ask again when the server says, else longer pauses
408, 409, 425, 5xx, overload                ask again, longer pauses each time
the context is too long                     make it shorter, then ask again
all else: a wrong key, model, request,      the turn fails
a used-up quota, a content filter
=========================================== ==============================================

Pauses are half certain and half random, so that many agents that lost one server do not come back at one
moment. A response that ended counts as progress: the next trouble begins at the first pause.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tightloop.client.transport import TransportError
from tightloop.protocol.accumulator import Accumulator
from tightloop.protocol.errors import ApiError, RemoteProtocolError

Failure = ApiError | TransportError | RemoteProtocolError


class Stalled(TransportError):
    """No event came for too long; the text names the deadline."""


class Remedy(Enum):
    """What helps."""

    WAIT = "wait"
    SHORTEN = "shorten"
    NOTHING = "nothing"


_MAY_PASS: Final = frozenset({408, 409, 425, 429})
_NEVER: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "content_filter",
        "invalid_api_key",
        "model_not_found",
        "compaction_failed",
    }
)
_TOO_LONG: Final = re.compile(
    r"context[ _](?:window|length|size)[^.]{0,60}(?:exceed|too|at most|is \d|does not fit|do not fit)"
    r"|maximum context length|exceeds? the (?:available )?context|prompt is too long"
    r"|input is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)
_AGAIN_IN: Final = re.compile(r"try again in\s+(\d+(?:\.\d+)?)\s*(ms|s|m)\b", re.IGNORECASE)
_UNITS_S: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure as it is handled. ``reason`` is a short line for a person; ``retry_after_s`` is what
    the server asked for."""

    remedy: Remedy
    reason: str
    retry_after_s: float | None = None


def trouble_of(failure: Failure) -> Trouble:
    """How ``failure`` is handled."""
    if isinstance(failure, Stalled):
        return Trouble(Remedy.WAIT, str(failure))
    if isinstance(failure, TransportError):
        return Trouble(Remedy.WAIT, f"connection lost: {failure}")
    if isinstance(failure, RemoteProtocolError):
        return Trouble(Remedy.WAIT, f"the server broke the protocol: {failure}")
    if failure.code == "context_length_exceeded" or _is_too_long(failure):
        return Trouble(Remedy.SHORTEN, failure.message)
    if failure.code in _NEVER or failure.error_type == "insufficient_quota" or _is_wrong(failure):
        return Trouble(Remedy.NOTHING, failure.message)
    if failure.code == "rate_limit_exceeded" or failure.status == 429:
        return Trouble(Remedy.WAIT, f"rate limit: {failure.message}", _retry_after_s(failure))
    if failure.status in _MAY_PASS or failure.status >= 500:
        what = "server overloaded" if failure.code == "server_is_overloaded" else "server error"
        return Trouble(
            Remedy.WAIT, f"{what} ({failure.status}): {failure.message}", _retry_after_s(failure)
        )
    return Trouble(Remedy.NOTHING, failure.message)


def failure_of(response: Accumulator | None) -> ApiError | None:
    """The failure in which a response ended, None if it ended otherwise."""
    if response is None or response.status != "failed":
        return None
    return response.error or ApiError("the response failed without a reason", status=500)


def _is_wrong(failure: ApiError) -> bool:
    """The request itself is at fault, whatever status a response that had begun ends with."""
    return str(failure.code).startswith(("invalid_", "unsupported_"))


def _is_too_long(failure: ApiError) -> bool:
    return failure.status in (400, 413, 422) and _TOO_LONG.search(failure.message) is not None


def _retry_after_s(failure: ApiError) -> float | None:
    if failure.retry_after_s is not None:
        return max(0.0, failure.retry_after_s)
    found = _AGAIN_IN.search(failure.message)
    return float(found[1]) * _UNITS_S[found[2].lower()] if found else None


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to wait; all lengths in seconds.

    ``max_tries`` requests are made again without a response in between, after pauses of ``first_s``,
    twice that, and so on up to ``longest_s``; by default for about a minute and a half in all. A
    server that asks for more than ``max_retry_after_s`` is not waited for. ``chance`` gives numbers
    from 0 to 1, ``sleep`` waits.
    """

    max_tries: int = 8
    first_s: float = 0.5
    longest_s: float = 30.0
    max_retry_after_s: float = 600.0
    chance: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    def pause_s(self, attempt: int, trouble: Trouble) -> float | None:
        """How long to wait before try number ``attempt``, counted from 1; None to give up.

        Never less than the server asked for.
        """
        if trouble.remedy is not Remedy.WAIT or attempt > self.max_tries:
            return None
        asked_s = trouble.retry_after_s
        if asked_s is not None:
            if asked_s > self.max_retry_after_s:
                return None
            return asked_s + self.chance() * min(1.0, asked_s / 10)
        whole_s = min(self.longest_s, self.first_s * 2.0 ** (attempt - 1))
        return whole_s * (1 + self.chance()) / 2

    def gave_up(self, num_tries: int, trouble: Trouble) -> str:
        """Why nothing more is tried, for the user; empty when nothing was."""
        if trouble.remedy is not Remedy.WAIT:
            return ""
        asked_s = trouble.retry_after_s
        if asked_s is not None and asked_s > self.max_retry_after_s:
            return f"the server asks to wait {asked_s:.0f} s, at most {self.max_retry_after_s:.0f} s are waited"
        return f"given up after {num_tries} tries" if num_tries else ""
