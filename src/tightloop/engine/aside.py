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


def aside(work: Callable[[], T], *, stack_bytes: int) -> Generator[None, None, T]:
    """What ``work`` returns or raises, done on a thread of its own with ``stack_bytes`` of stack.

    A caller that is closed meanwhile leaves the thread behind: ``work`` must not need a backend.
    """
    future: Future[T] = Future()
    thread = threading.Thread(target=_settle, args=(future, work), name="aside", daemon=True)
    with _stack_size:  # set for the process, and read when a thread starts
        before = threading.stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return (yield from until_done(future))


def _settle(future: "Future[T]", work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the owner thread is told, also of a native panic
        future.set_exception(error)
