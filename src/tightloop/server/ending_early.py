"""What is told a client that wants to end a response which there is not: ``response.cancel``, ``.interrupt``.

A response that is named and has ended is no error: the wish crossed with its terminal event on the way.
"""

from tightloop.protocol.errors import ApiError


def unknown_here(response_id: str, *, is_elsewhere: bool) -> ApiError:
    """The error for an id that is none of this connection's; ``is_elsewhere``: it is another one's."""
    name = repr(response_id[:200])
    if is_elsewhere:
        text = f"{name} was asked for on another connection"
    else:
        text = f"this connection has no response {name}"
    return ApiError(text, code="response_not_found", param="response_id")


def nothing_to_end(stream_id: str | None) -> ApiError:
    """The error for a lane, the default one or a named one, in which nothing runs or waits."""
    lane = "on the default lane" if stream_id is None else f"on the lane {stream_id[:200]!r}"
    return ApiError(
        f"no response is running {lane}; give response_id if it may have ended meanwhile",
        code="response_not_active",
        param="stream_id" if stream_id is not None else None,
    )
