"""One open request of vLLM's, which a session goes on in: its *anchor*.

Two threads meet here. The owner of the backend pushes chunks and waits for samples; the loop reads what
the host gives. A chunk is pushed only while the request rests, so all samples kept here belong to the
last chunk.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from tightloop.engine.interface import Cancelled
from tightloop.engine.vllm.host import Chunk, Host, Sampled
from tightloop.engine.vllm.loop_thread import LoopThread


class Anchor:
    """Opened by its first ``push``. ``num_prompt`` tokens were its prompt when the last chunk came."""

    def __init__(self, loop: LoopThread, host: Host, request_id: str) -> None:
        self.num_prompt = 0
        self.sampled: list[Sampled] = []
        """After the last chunk, in order. Grows until it ends with one that ``is_last``."""
        self._loop = loop
        self._host = host
        self._request_id = request_id
        self._chunks: asyncio.Queue[Chunk] = asyncio.Queue()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_open = False
        self._is_closed = False

    @property
    def is_resting(self) -> bool:
        """Whether nothing comes before the next chunk."""
        with self._changed:
            return not self._is_open or bool(self.sampled and self.sampled[-1].is_last)

    def push(self, chunk: Chunk, num_prompt: int) -> None:
        """Go on with a chunk that makes the prompt ``num_prompt`` tokens long. Only while resting."""
        with self._changed:
            self.sampled = []
        self.num_prompt = num_prompt
        if not self._is_open:
            self._is_open = True
            self._loop.soon(self._open)
        self._loop.soon(self._chunks.put_nowait, chunk)

    def sample(self, index: int, is_cancelled: Callable[[], bool]) -> Sampled | None:
        """The sample with this index, waited for; None when the request rests before it.

        Raises ``Cancelled`` when ``is_cancelled`` says so, also when it is woken, and what the host raised.
        """
        with self._changed:
            while True:
                if is_cancelled():  # first: an answer that is quick is cancelled as well
                    raise Cancelled
                if index < len(self.sampled):
                    return self.sampled[index]
                if self.sampled and self.sampled[-1].is_last:
                    return None
                if self._error is not None:
                    raise self._error
                self._changed.wait()

    def wake(self) -> None:
        """Let a waiter look again at whether it was cancelled. Any thread may call."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """The request ends, also in the middle of a run. May be called twice."""
        if self._is_open and not self._is_closed:
            self._loop.soon(self._cancel)
        self._is_closed = True

    # ------------------------------------------------------------------ on the loop

    def _open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._read())

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        error: BaseException = RuntimeError("the request ended")
        try:
            async for sampled in self._host.generate(self._request_id, self._given()):
                with self._changed:
                    self.sampled.append(sampled)
                    self._changed.notify_all()
        except Exception as problem:  # noqa: BLE001 - told to the waiter
            error = problem
        finally:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    async def _given(self) -> AsyncIterator[Chunk]:
        while True:
            yield await self._chunks.get()
