"""Long work off the owner thread."""

import threading
from concurrent.futures import Future

import pytest

from tests.engine.stepping import result_of
from tightloop.engine.aside import aside, until_done

STACK_BYTES = 1 << 20


def test_others_may_go_on_while_the_work_is_done_on_a_thread_of_its_own() -> None:
    may_end = threading.Event()

    def work() -> str:
        may_end.wait()
        return threading.current_thread().name

    steps = aside(work, stack_bytes=STACK_BYTES)
    next(steps)
    next(steps)
    may_end.set()
    assert result_of(steps) == "aside"


def test_what_is_done_already_is_not_waited_for() -> None:
    done: Future[int] = Future()
    done.set_result(3)
    with pytest.raises(StopIteration) as end:
        next(until_done(done))
    assert end.value.value == 3


def test_threads_that_are_started_later_have_the_usual_stack() -> None:
    before = threading.stack_size()
    assert result_of(aside(lambda: 5, stack_bytes=STACK_BYTES)) == 5
    assert threading.stack_size() == before


class Panic(BaseException):
    """As a native library raises it."""


@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("late"), Panic("native")])
def test_errors_come_back(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        result_of(aside(work, stack_bytes=STACK_BYTES))


def test_a_caller_that_leaves_leaves_the_work_behind() -> None:
    may_end, is_over = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait()
        is_over.set()

    steps = aside(work, stack_bytes=STACK_BYTES)
    next(steps)
    steps.close()
    may_end.set()
    is_over.wait()
