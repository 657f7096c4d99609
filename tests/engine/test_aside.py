"""Long work off the owner thread."""

import threading
from concurrent.futures import Future

import pytest

from tests.engine.stepping import result_of
from tightloop.engine.aside import Aside, until_done

ASIDE = Aside(2, stack_bytes=1 << 20)


def test_others_may_go_on_while_the_work_is_done_on_a_thread_of_its_own() -> None:
    may_end = threading.Event()

    def work() -> str:
        may_end.wait()
        return threading.current_thread().name

    steps = ASIDE.do(work)
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
    assert result_of(ASIDE.do(lambda: 5)) == 5
    assert threading.stack_size() == before


class Panic(BaseException):
    """As a native library raises it."""


@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("late"), Panic("native")])
def test_errors_come_back(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        result_of(ASIDE.do(work))


def test_a_caller_that_leaves_leaves_the_work_behind() -> None:
    may_end, is_over = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait()
        is_over.set()

    steps = ASIDE.do(work)
    next(steps)
    steps.close()
    may_end.set()
    is_over.wait()


def test_there_are_no_more_threads_than_allowed() -> None:
    """One whose caller has left counts until its work is done."""
    one = Aside(1, stack_bytes=1 << 20)
    may_end = threading.Event()
    first, second = one.do(may_end.wait), one.do(lambda: "second")
    next(first)
    first.close()
    next(second)
    next(second)
    may_end.set()
    assert result_of(second) == "second"
