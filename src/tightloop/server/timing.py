"""What the server tells a client about where the time of a response went.

Three forms of the same figures: our own event, the event that Codex turns into metrics of its own,
and a ``Server-Timing`` header (W3C) where the answer is one piece.
"""

from collections.abc import Mapping
from typing import Any

from tightloop.protocol.deltas import EngineTiming, Finished

Figures = Mapping[str, float]


def figures(timing: EngineTiming, *, receive_ns: int, now_ns: int) -> dict[str, float]:
    """The timing event's figures, in seconds; see ``EngineTiming`` for the engine's part.

    Server, queue, prefill and decode are disjoint and together the time from the request's
    arrival (``receive_ns``) to ``now_ns``, so a ledger can add them up. Hand-off that overlaps
    decoding is decode.
    """
    before_ns = timing.submitted_ns - receive_ns
    after_ns = now_ns - timing.finished_ns
    return {
        "server_s": (before_ns + after_ns) / 1e9,
        "queue_s": (timing.started_ns - timing.submitted_ns) / 1e9,
        "prefill_s": (timing.prefilled_ns - timing.started_ns) / 1e9,
        "decode_s": (timing.finished_ns - timing.prefilled_ns) / 1e9,
        "engine_first_token_s": max(0, timing.first_delta_ns - timing.started_ns) / 1e9,
        "decode_steps_s": timing.decode_ns / 1e9,
        "num_decode_steps": timing.num_decode_steps,
        "num_draft_tokens": timing.num_draft_tokens,
        "num_accepted_tokens": timing.num_accepted_tokens,
    }


def codex_metrics(found: Figures) -> dict[str, Any]:
    """``timing_metrics`` of ``responsesapi.websocket_timing``, in milliseconds.

    Codex rounds them to whole milliseconds and exports them as histograms
    (``codex.responses_api_overhead.duration_ms`` and others). Its words: "engine_iapi" is inside the
    engine, "engine_service" includes its queue; "tbt" is the time between tokens.
    """
    inside_s = found["prefill_s"] + found["decode_s"]
    between_s = found["decode_steps_s"] or found["decode_s"]
    between_ms = 1e3 * between_s / max(1, found["num_decode_steps"])
    return {
        "responses_duration_excl_engine_and_client_tool_time_ms": _ms(found["server_s"]),
        "engine_service_total_ms": _ms(found["queue_s"] + inside_s),
        "engine_iapi_ttft_total_ms": _ms(found["engine_first_token_s"]),
        "engine_service_ttft_total_ms": _ms(found["queue_s"] + found["engine_first_token_s"]),
        "engine_iapi_tbt_across_engine_calls_ms": round(between_ms, 4),
        "engine_service_tbt_across_engine_calls_ms": round(between_ms, 4),
    }


def route(finished: Finished) -> dict[str, str] | None:
    """Which of several backends made the response, of which tier, and why that one."""
    if finished.backend is None:
        return None
    return {
        "backend": finished.backend,
        "service_tier": finished.service_tier or "default",
        "reason": finished.route_reason or "",
    }


def server_timing_header(found: Figures, way: Mapping[str, str] | None = None) -> str:
    """The value of a ``Server-Timing`` header, durations in milliseconds; ``way`` is a ``route``."""
    names = {
        "server": "server_s",
        "queue": "queue_s",
        "prefill": "prefill_s",
        "decode": "decode_s",
        "first-token": "engine_first_token_s",
    }
    parts = [f"{name};dur={_ms(found[key])}" for name, key in names.items()]
    parts += [f'{name};desc="{_quotable(text)}"' for name, text in (way or {}).items()]
    return ", ".join(parts)


def _quotable(text: str) -> str:
    """``text`` as a quoted string may have it (RFC 9110): printable ASCII without quotes."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)[:300]


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)
