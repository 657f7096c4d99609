"""The circuit breaker: every transition, and what holds whatever happens."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.fleet.breaker import (
    TRANSITIONS,
    BreakerSettings,
    CircuitBreaker,
    Signal,
    State,
)

S = 1_000_000_000
RULES = BreakerSettings(
    max_consecutive=3, max_error_rate=0.5, min_requests=6, window_s=10, pause_s=2, max_pause_s=9
)


def failing(breaker: CircuitBreaker, times: int, now_ns: int = 0) -> None:
    """That many failures in a row."""
    for _ in range(times):
        ticket = breaker.admit(now_ns)
        assert ticket is not None
        breaker.fail(ticket, now_ns)


def opened(now_ns: int = 0) -> CircuitBreaker:
    breaker = CircuitBreaker(RULES)
    failing(breaker, 3, now_ns)
    return breaker


def test_the_table_is_complete() -> None:
    """Each state has an answer to each signal, but for a pause where there is none."""
    pairs = set(itertools.product(State, Signal))
    without = {(State.CLOSED, Signal.PAUSE_OVER), (State.HALF_OPEN, Signal.PAUSE_OVER)}
    assert pairs - without == set(TRANSITIONS)


def test_failures_in_a_row_open_it() -> None:
    """One less does not, and a success in between starts the count anew."""
    breaker = CircuitBreaker(RULES)
    failing(breaker, 2)
    ticket = breaker.admit(0)
    assert ticket is not None
    breaker.succeed(ticket, 0)
    failing(breaker, 2)
    assert breaker.state(0) is State.CLOSED
    failing(breaker, 1)
    assert breaker.state(0) is State.OPEN
    assert breaker.admit(0) is None


def test_half_of_many_open_it_too() -> None:
    """Failures and successes in turn never make three in a row."""
    breaker = CircuitBreaker(RULES)
    for _ in range(2):
        failing(breaker, 1)
        breaker.succeed(breaker.force(0), 0)
    failing(breaker, 1)
    assert breaker.state(0) is State.CLOSED  # five requests are too few to judge by
    failing(breaker, 1)
    assert breaker.state(0) is State.OPEN


def test_old_failures_are_forgotten() -> None:
    """What lies outside the window is no part of the share."""
    breaker = CircuitBreaker(RULES)
    for second in range(0, 60, 4):  # every other one fails, three at most in a window
        failing(breaker, 1, second * S)
        breaker.succeed(breaker.force(second * S), second * S)
    assert breaker.state(60 * S) is State.CLOSED


def test_one_probe_after_the_pause() -> None:
    """It decides: a success closes the breaker, a failure doubles the pause."""
    breaker = opened()
    assert breaker.pause_left_s(0) == 2
    assert not breaker.is_admitting(2 * S - 1)
    probe = breaker.admit(2 * S)
    assert probe is not None
    assert breaker.state(2 * S) is State.HALF_OPEN
    assert breaker.admit(2 * S) is None
    breaker.fail(probe, 3 * S)
    assert breaker.pause_left_s(3 * S) == 4
    second = breaker.admit(7 * S)
    assert second is not None
    breaker.succeed(second, 7 * S)
    assert breaker.state(7 * S) is State.CLOSED
    failing(breaker, 3, 8 * S)
    assert breaker.pause_left_s(8 * S) == 2  # the count of pauses began anew


def test_pauses_end_somewhere() -> None:
    """Doubling stops at the longest pause."""
    breaker, now_ns = opened(), 0
    for _ in range(5):
        now_ns += 20 * S
        failing(breaker, 1, now_ns)
    assert breaker.pause_left_s(now_ns) == 9


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    """As when its client went away."""
    breaker = opened()
    probe = breaker.admit(2 * S)
    assert probe is not None
    breaker.release(probe)
    assert breaker.admit(2 * S) == probe


def test_a_host_that_asks_for_a_pause_gets_it_at_once() -> None:
    """However many failures there were, and longer than the longest pause of our own."""
    breaker = CircuitBreaker(RULES)
    breaker.fail(breaker.force(0), 0, retry_after_s=30)
    assert breaker.is_asked_to_wait(0)
    assert breaker.pause_left_s(0) == 30
    assert not breaker.is_asked_to_wait(30 * S)


def test_late_news_of_an_earlier_state_change_nothing() -> None:
    """A stream that began before the breaker opened and ends well is no sign of recovery."""
    breaker = CircuitBreaker(RULES)
    early = breaker.admit(0)
    assert early is not None
    failing(breaker, 3)
    breaker.succeed(early, 1)
    assert breaker.state(1) is State.OPEN


def test_a_forced_request_can_close_it() -> None:
    """It is a probe that did not wait for the pause; its failure does not make the pause longer."""
    breaker = opened()
    breaker.fail(breaker.force(S), S)
    assert breaker.pause_left_s(S) == 1
    breaker.succeed(breaker.force(S), S)
    assert breaker.state(S) is State.CLOSED


@pytest.mark.parametrize("report", ["succeed", "fail"])
def test_a_ticket_ends_with_its_epoch(report: str) -> None:
    """Unless ``succeed`` has given a new one."""
    breaker = opened()
    probe = breaker.admit(2 * S)
    assert probe is not None
    current = breaker.succeed(probe, 2 * S)
    assert current != probe
    for _ in range(3):
        getattr(breaker, report)(probe, 3 * S)
    assert breaker.state(3 * S) is State.CLOSED
    for _ in range(3):
        breaker.fail(current, 3 * S)
    assert breaker.state(3 * S) is State.OPEN


steps = st.lists(
    st.tuples(
        st.sampled_from(["admit", "force", "succeed", "fail", "later", "release", "wait"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_happens(taken: list[tuple[str, int]]) -> None:
    """An open breaker admits nobody and opens in time; half open it has one probe at most."""
    breaker, now_ns, tickets = CircuitBreaker(RULES), 0, [0]
    probes: set[int] = set()
    for step, number in taken:
        ticket = tickets[-1 - number % len(tickets)]
        before = breaker.state(now_ns)
        if step == "wait":
            now_ns += number * S
        elif step == "admit":
            given_ticket = breaker.admit(now_ns)
            assert (given_ticket is None) == (
                before is State.OPEN or (before is State.HALF_OPEN and bool(probes))
            )
            if given_ticket is not None:
                tickets.append(given_ticket)
                if before is State.HALF_OPEN:
                    probes.add(given_ticket)
        elif step == "force":
            tickets.append(breaker.force(now_ns))
        elif step == "succeed":
            breaker.succeed(ticket, now_ns)
        elif step == "release":
            breaker.release(ticket)
            probes.discard(ticket)
        else:
            retry_after_s = float(number) if step == "later" else None
            breaker.fail(ticket, now_ns, retry_after_s=retry_after_s)
        after = breaker.state(now_ns)
        if after is not before:
            probes.clear()
        assert (breaker.pause_left_s(now_ns) > 0) == (after is State.OPEN)
        assert after is State.OPEN or not breaker.is_asked_to_wait(now_ns)
    now_ns += 60 * S
    assert breaker.state(now_ns) is not State.OPEN
