"""A generation that needs something done before the engine can begin: a summary, a shorter context."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tightloop.engine.interface import Engine, EngineError, Generation, GenerationRequest, Sink
from tightloop.protocol.deltas import Finished, FinishReason, Usage

Prepare = Callable[[GenerationRequest], Awaitable[GenerationRequest | None]]
"""Gives the request to submit, or None when the sink has had its ``Finished`` already."""

_log = logging.getLogger(__name__)


class PreparedGeneration:
    """Runs ``prepare``, then the engine. The sink gets exactly one ``Finished`` in any case."""

    def __init__(
        self, engine: Engine, request: GenerationRequest, sink: Sink, prepare: Prepare
    ) -> None:
        self._engine = engine
        self._sink = sink
        self._running: Generation | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(request, prepare))
        self._task.add_done_callback(self._prepared)

    def cancel(self) -> None:
        """End early; the sink still gets its ``Finished``."""
        if self._running is not None:
            self._running.cancel()
        else:
            self._task.cancel()

    async def _run(self, request: GenerationRequest, prepare: Prepare) -> None:
        ready = await prepare(request)
        if ready is not None:
            self._running = self._engine.submit(ready, self._sink)

    def _prepared(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            self._sink([Finished(FinishReason.CANCELLED, Usage())])
            return
        error = task.exception()
        if error is None:
            return
        code, text = "server_error", f"{type(error).__name__} before the engine could begin"
        if isinstance(error, EngineError):
            code, text = error.code, str(error)
        else:
            _log.error("a response could not be prepared", exc_info=error)
        self._sink([Finished(FinishReason.ERROR, Usage(), None, code, text)])
