"""Tool output on its way to the server while the tool still runs: how much of it, and when.

A hint is never answered, so nothing here waits. A piece goes out at once when nothing was sent for
a while, and otherwise once it is long enough: an eighth of what went before it, so that a command
which prints ten thousand lines a second makes a few dozen frames and not ten thousand.
"""

from typing import Any, Final

from tightloop.client.transport import HintingTransport
from tightloop.protocol.prefill import MAX_PREFILL_BYTES, PREFILL, Prefill, prefill_event
from tightloop.trace.clock import Clock

QUIET_S: Final = 0.05
"""After so long without a hint about a call even a short piece goes out."""

MIN_PIECE_CHARS: Final = 512
GROWTH: Final = 8


class _Output:
    """The text of one call: what was sent, and what waits."""

    def __init__(self) -> None:
        self.sent = ""
        self.num_sent_bytes = 0
        self.waiting: list[str] = []
        self.num_waiting = 0
        self.last_ns: int | None = None
        self.is_full = False

    def add(self, piece: str) -> None:
        if piece:
            self.waiting.append(piece)
            self.num_waiting += len(piece)

    def cut(self, keep: int) -> None:
        """Only the first ``keep`` characters still stand."""
        rest = "".join(self.waiting)[: max(0, keep - len(self.sent))]
        if keep < len(self.sent):
            self.sent = self.sent[:keep]
            self.num_sent_bytes = len(_utf8(self.sent))
        self.waiting, self.num_waiting = [], 0
        self.add(rest)

    def is_due(self, now_ns: int) -> bool:
        if self.num_waiting >= max(MIN_PIECE_CHARS, len(self.sent) // GROWTH):
            return True
        return self.last_ns is None or (now_ns - self.last_ns) / 1e9 >= QUIET_S


class Hints:
    """The outputs of one response's calls. Does nothing where the server has no use for them."""

    def __init__(self, transport: Any, clock: Clock, stream_id: str | None = None) -> None:
        self._transport = transport if isinstance(transport, HintingTransport) else None
        self._clock = clock
        self._stream_id = stream_id
        self._parent_id: str | None = None
        self._outputs: dict[str, _Output] = {}

    def add(self, parent_id: str, call_id: str, piece: str, keep: int | None = None) -> None:
        """The output goes on with ``piece``, after its first ``keep`` characters if they changed."""
        output = self._output(parent_id, call_id)
        if output is None:
            return
        if keep is not None:
            output.cut(keep)
        output.add(piece)
        if output.num_waiting and output.is_due(self._clock.now_ns()):
            self._send(call_id, output, is_done=False)

    def end(self, parent_id: str, call_id: str, text: str) -> None:
        """The whole output is ``text``; of use only while other calls still run."""
        output = self._output(parent_id, call_id)
        if output is not None:
            if not text.startswith(output.sent):
                output.cut(0)
            output.waiting, output.num_waiting = [], 0
            output.add(text[len(output.sent) :])
            self._send(call_id, output, is_done=True)

    def forget(self) -> None:
        """The create has gone out, or will not."""
        self._parent_id = None
        self._outputs.clear()

    def _output(self, parent_id: str, call_id: str) -> _Output | None:
        if self._transport is None or PREFILL not in self._transport.capabilities:
            return None
        if parent_id != self._parent_id:
            self.forget()
            self._parent_id = parent_id
        output = self._outputs.setdefault(call_id, _Output())
        return None if output.is_full else output

    def _send(self, call_id: str, output: _Output, *, is_done: bool) -> None:
        assert self._transport is not None
        assert self._parent_id is not None
        piece = "".join(output.waiting)
        num_bytes = len(_utf8(piece))
        if output.num_sent_bytes + num_bytes > MAX_PREFILL_BYTES:
            output.is_full = True
            output.waiting, output.sent = [], ""
            return
        offset = output.num_sent_bytes
        hint = Prefill(self._parent_id, call_id, piece, offset, is_done, self._stream_id)
        if not self._transport.hint(prefill_event(hint)):
            return  # it goes with the next piece
        output.sent += piece
        output.num_sent_bytes += num_bytes
        output.waiting, output.num_waiting = [], 0
        output.last_ns = self._clock.now_ns()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
