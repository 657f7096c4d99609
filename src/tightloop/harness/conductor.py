"""Several turns of one conversation in a process, led from outside line by line.

Messages are worked off one turn each, in order. A steer that the running turn no longer took in goes
out with the next message; when there is none, it becomes one. After an interrupted turn nothing
begins by itself but what was queued.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from tightloop.agent import events as said
from tightloop.agent.steering import DEFERRED, WITHDRAWN, Steer
from tightloop.agent.turn import Status, TurnResult
from tightloop.harness.inputs import (
    BadLine,
    Interrupt,
    Op,
    Queue,
    SteerTurn,
    Withdraw,
    decode,
    name_of,
)
from tightloop.harness.thread import Thread

MAX_QUEUED = 1000


class Conductor:
    """Of one thread. ``tell`` gets the receipts; ``options`` are those of every turn."""

    def __init__(self, thread: Thread, tell: said.Listener, **options: Any) -> None:
        self._thread = thread
        self._tell = tell
        self._options = options
        self._queue: deque[Queue] = deque()
        self._steers: list[Steer] = []
        self._turn: asyncio.Task[TurnResult] | None = None
        self._is_ended = False
        self._news = asyncio.Event()

    def take(self, line: bytes) -> None:
        """A line has come. Never raises: what cannot be done is answered so."""
        if not line.strip():
            return
        receipt: said.Event
        try:
            receipt = self._do(decode(line))
        except BadLine as error:
            receipt = said.InputRefused(error.op, str(error), error.line_id)
        self._tell(receipt)
        self._news.set()

    def queue(self, text: str) -> None:
        """A message for a turn of its own, which came by another way."""
        self._queue.append(Queue(text=text))
        self._news.set()

    def end(self) -> None:
        """No more lines will come."""
        self._is_ended = True
        self._news.set()

    async def run(self, on_end: Callable[[TurnResult], None]) -> TurnResult | None:
        """Work until the end was said and nothing waits; the last turn's result, None without one.

        ``on_end`` is called with each. A cancellation ends the running turn.
        """
        last = None
        while True:
            while not self._queue:
                if self._is_ended:
                    self._forget()
                    return last
                self._news.clear()
                await self._news.wait()
            last = await self._work(self._queue.popleft().text, on_end)
            self._requeue(last)

    async def _work(self, text: str, on_end: Callable[[TurnResult], None]) -> TurnResult:
        turn = asyncio.create_task(self._thread.run_turn(text, **self._options))
        self._turn = turn
        try:
            await asyncio.wait([turn])
        except asyncio.CancelledError:
            turn.cancel()
            await asyncio.wait([turn])
            on_end(self._result_of(turn))
            raise
        finally:
            self._turn = None
        result = self._result_of(turn)
        on_end(result)
        return result

    def _result_of(self, turn: "asyncio.Task[TurnResult]") -> TurnResult:
        if not turn.cancelled():
            return turn.result()
        result = self._thread.agent.last_result
        assert result is not None, "a turn that was interrupted had begun"
        return result

    def _requeue(self, ended: TurnResult) -> None:
        """The last of the steers that came too late is a message now; those before go out with it."""
        late = [steer for steer in self._steers if steer.state == DEFERRED]
        self._steers = late
        if not late or self._queue or ended.status is Status.CANCELLED:
            return
        if self._thread.agent.withdraw(late[-1]):
            self._steers = []
            self._queue.append(Queue(text=late[-1].text, id=late[-1].id))

    def _forget(self) -> None:
        for steer in self._steers:
            if self._thread.agent.withdraw(steer):
                self._tell(said.Steered(steer.id, WITHDRAWN, steer.text))
        self._steers = []

    def _do(self, op: Op) -> said.InputAccepted:
        if isinstance(op, Queue):
            if len(self._queue) >= MAX_QUEUED:
                raise BadLine(f"{MAX_QUEUED} messages wait already", "queue", op.id)
            self._queue.append(op)
            return said.InputAccepted("queue", op.id, position=len(self._queue) - 1)
        if isinstance(op, SteerTurn):
            turn_id = self._running(op, op.expected_turn)
            steer = self._thread.agent.steer(op.text, now=op.now)
            self._steers = [one for one in self._steers if one.step is None] + [steer]
            return said.InputAccepted("steer", op.id, turn_id, steer.id)
        if isinstance(op, Interrupt):
            turn_id = self._running(op, op.expected_turn)
            if op.drop:
                self._queue.clear()
                self._forget()
            assert self._turn is not None, "a turn is running"
            self._turn.cancel()
            return said.InputAccepted("interrupt", op.id, turn_id)
        if isinstance(op, Withdraw):
            self._withdraw(op)
            return said.InputAccepted("withdraw", op.id)
        self._is_ended = True
        return said.InputAccepted("end", op.id)

    def _running(self, op: Op, expected: str | None) -> str:
        """The turn that runs. Raises BadLine when there is none, or not the one that was meant."""
        turn_id = self._thread.turn_id
        if self._turn is None or turn_id is None:
            raise BadLine("no turn is running: send the text with queue", name_of(op), op.id)
        if expected is not None and expected != turn_id:
            raise BadLine(f"{turn_id} is running, not {expected}", name_of(op), op.id)
        return turn_id

    def _withdraw(self, op: Withdraw) -> None:
        for steer in self._steers:
            if steer.id == op.message and self._thread.agent.withdraw(steer):
                self._steers.remove(steer)
                self._tell(said.Steered(steer.id, WITHDRAWN, steer.text))
                return
        for queued in self._queue:
            if queued.id == op.message:
                self._queue.remove(queued)
                return
        raise BadLine(f"nothing waits under {op.message!r}: it has gone out", "withdraw", op.id)
