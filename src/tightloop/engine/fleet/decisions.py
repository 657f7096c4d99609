"""The log of decisions: where each response went, why, and how it went there. JSON lines.

Two lines a response: ``route.decided`` after its first delta was handed on, ``route.ended`` after
its last. Both are written in a later step of the event loop, so that no delta waits for the disk.
"""

import asyncio
import contextlib
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

from tightloop.engine.fleet.route import Route
from tightloop.protocol.deltas import Finished
from tightloop.trace.clock import Clock
from tightloop.trace.log import RunLog

_log = logging.getLogger(__name__)


class DecisionLog:
    """Appends to one file. A disk that fails ends the log, not the serving."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        """Open the file, with its first line. Raises OSError."""
        self._file: RunLog | None = RunLog(path, clock=clock, verb="serve")
        self.path = path

    def decided(self, route: Route) -> None:
        """The response has a backend that answers."""
        if not route.is_logged:
            route.is_logged = True
            asyncio.get_running_loop().call_soon(self._write, "route.decided", decision(route))

    def ended(self, route: Route, finished: Finished) -> None:
        """The response is over."""
        self.decided(route)
        asyncio.get_running_loop().call_soon(self._write, "route.ended", outcome(route, finished))

    def close(self) -> None:
        """Nothing is written from now on. May be called twice."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # the last line is for readers' comfort only
                file.close()

    def _write(self, kind: str, fields: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(kind, **fields)
        except OSError as error:
            _log.error("cannot write the decision log %s: %s; it ends here", self.path, error)
            self.close()


def decision(route: Route) -> dict[str, Any]:
    """What ``route.decided`` says. Durations in seconds."""
    decided, request, member = route.decision, route.request, route.member
    return {
        "response_id": request.response_id,
        "parent_id": request.parent.id if request.parent is not None else None,
        "session": route.session.key,
        "model": request.model,
        "policy": decided.policy,
        "backend": member.name if member is not None else None,
        "tier": member.spec.tier if member is not None else None,
        "reason": route.story,
        "ranked": decided.ranked,
        "failures": route.failures,
        "asked_tier": request.service_tier,
        "is_background": request.is_background,
        "expected_output": decided.expected_output,
    }


def outcome(route: Route, finished: Finished) -> dict[str, Any]:
    """What ``route.ended`` says; times are from when the response was asked for."""
    usage, member = finished.usage, route.member
    now_ns = route.context.clock.now_ns()
    first_ns = route.first_delta_ns
    cost = Decimal(0)
    if member is not None:
        fresh = max(0, usage.input_tokens - usage.cached_tokens)
        cost = member.spec.price.of(fresh, usage.cached_tokens, usage.output_tokens)
    return {
        "response_id": route.request.response_id,
        "backend": member.name if member is not None else None,
        "outcome": finished.reason.value,
        "code": finished.error_code,
        "first_delta_s": (first_ns - route.submitted_ns) / 1e9 if first_ns else None,
        "total_s": (now_ns - route.submitted_ns) / 1e9,
        "usage": usage,
        "cost_usd": str(cost),
    }
