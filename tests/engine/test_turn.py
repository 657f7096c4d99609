"""A cancel stops the evaluation of the run it is meant for, and no other."""

from tests.engine.test_admission import made
from tightloop.engine.turn import Turn


def test_only_the_run_whose_turn_it_is_is_stopped() -> None:
    turn = Turn()
    stopped: list[str] = []
    turn.stop = lambda: stopped.append("stop")
    mine, other = made("mine"), made("other")
    turn.take(mine)
    turn.cancel(other)
    assert (other.is_cancelled, turn.is_cancelled, stopped) == (True, False, [])
    turn.cancel(mine)
    assert (mine.is_cancelled, turn.is_cancelled, stopped) == (True, True, ["stop"])
    turn.pass_on()
    turn.cancel(mine)
    assert (turn.is_cancelled, stopped) == (False, ["stop"])


def test_closing_cancels_whoever_has_the_turn() -> None:
    turn = Turn()
    stopped: list[str] = []
    turn.stop = lambda: stopped.append("stop")
    turn.cancel_any()
    assert stopped == []
    run = made("a")
    turn.take(run)
    turn.cancel_any()
    assert (run.is_cancelled, stopped) == (True, ["stop"])


def test_after_the_end_nothing_is_stopped() -> None:
    turn = Turn()
    stopped: list[str] = []
    turn.stop = lambda: stopped.append("stop")
    run = made("a")
    turn.take(run)
    turn.end()
    turn.cancel(run)
    turn.cancel_any()
    assert (run.is_cancelled, stopped) == (True, [])
