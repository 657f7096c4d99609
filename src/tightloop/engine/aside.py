"""Long work off the owner thread, so that other sessions take their turns meanwhile.

For what releases the interpreter lock: compiling a grammar, tokenising a long prompt.
"""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_S: Final = 0.0005
"""What one look at unfinished work may take from the sessions that are being decoded."""

_stack_size = threading.Lock()


def until_done(future: "Future[T]") -> Generator[None, None, T]:
    """The future's result; yields while there is none yet."""
    while not future.done():
        wait((future,), PATIENCE_S)
        if not future.done():
            yield
    return future.result()


class Aside:
    """At most ``num_threads`` threads with ``stack_bytes`` of stack each, started when needed."""

    def __init__(self, num_threads: int, *, stack_bytes: int) -> None:
        self._free = threading.Semaphore(num_threads)
        self._stack_bytes = stack_bytes

    def do(self, work: Callable[[], T]) -> Generator[None, None, T]:
        """What ``work`` returns or raises, done on one of the threads; yields meanwhile.

        A caller that is closed leaves the thread behind, busy until its work is done: ``work``
        must not need a backend.
        """
        while not self._free.acquire(timeout=PATIENCE_S):
            yield
        future: Future[T] = Future()
        thread = threading.Thread(target=self._settle, args=(future, work), name="aside")
        thread.daemon = True
        with _stack_size:  # set for the process, and read when a thread starts
            before = threading.stack_size(self._stack_bytes)
            try:
                thread.start()
            except RuntimeError:
                self._free.release()
                raise
            finally:
                threading.stack_size(before)
        return (yield from until_done(future))

    def _settle(self, future: "Future[T]", work: Callable[[], T]) -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - told to the caller, also a native panic
            future.set_exception(error)
        finally:
            self._free.release()
