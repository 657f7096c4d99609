"""A tool that prints its output bit by bit, as a session with streamed prefill passes it on."""

import asyncio

from tightloop.client.session import Session
from tightloop.trace.clock import now_ns

PIECES_PER_S = 20


async def print_slowly(session: Session, call_id: str, text: str, tool_s: float) -> None:
    """Hand the text on as a tool does that prints it evenly."""
    num_pieces = max(1, round(tool_s * PIECES_PER_S))
    start_ns, told = now_ns(), 0
    for number in range(1, num_pieces + 1):
        due_s = tool_s * number / num_pieces
        await asyncio.sleep(max(0.0, due_s - (now_ns() - start_ns) / 1e9))
        end = len(text) * number // num_pieces
        session.prefill(call_id, text[told:end])
        told = end
