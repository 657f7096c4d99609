"""The table of legal orders, checked as data."""

from tightloop.protocol.open_item import OpenCall, OpenItem, OpenMessage, OpenReasoning
from tightloop.protocol.response_states import SIGNAL_OF, TRANSITIONS, Fate, Signal, State

ITEM_STATES = {State.REASONING, State.MESSAGE, State.CALL}
OPENED_BY = {
    Signal.REASONING: State.REASONING,
    Signal.TEXT: State.MESSAGE,
    Signal.CALL_STARTED: State.CALL,
}
ENDS = {Signal.END, Signal.CUT, Signal.CANCEL, Signal.INTERRUPT, Signal.FAIL}


def test_every_state_has_a_row_and_the_end_has_no_way_out() -> None:
    assert set(State) == set(TRANSITIONS)
    assert TRANSITIONS[State.ENDED] == {}


def test_a_fate_is_given_exactly_where_an_item_can_be_open() -> None:
    for state, rows in TRANSITIONS.items():
        for step in rows.values():
            can_be_open = state in ITEM_STATES or state is State.BROKEN
            assert can_be_open == (step.fate is not Fate.NONE), (state, step)


def test_incomplete_items_end_incomplete_responses_only() -> None:
    found = {
        signal
        for rows in TRANSITIONS.values()
        for signal, step in rows.items()
        if step.fate is Fate.INCOMPLETE
    }
    assert {Signal.CUT, Signal.CANCEL} == found


def test_a_call_is_never_completed_but_by_its_own_end() -> None:
    rows = TRANSITIONS[State.CALL]
    assert [s for s, step in rows.items() if step.fate is Fate.COMPLETE] == [Signal.CALL_DONE]
    assert Fate.DROP is rows[Signal.CANCEL].fate


def test_ends_lead_to_the_end_and_nothing_else_does() -> None:
    for state, rows in TRANSITIONS.items():
        for signal, step in rows.items():
            assert (signal in ENDS) == (step.state is State.ENDED), (state, signal)


def test_every_begun_response_can_fail() -> None:
    for state in set(State) - {State.NEW, State.ENDED}:
        assert Signal.FAIL in TRANSITIONS[state]


def test_items_open_only_by_their_own_signal() -> None:
    for state, rows in TRANSITIONS.items():
        for signal, step in rows.items():
            if step.state in ITEM_STATES and step.state is not state:
                assert OPENED_BY[signal] is step.state


def test_the_hot_path_is_the_rows_that_keep_the_item() -> None:
    """``ResponseStream.feed`` skips the table for an item's own delta type."""
    kinds: dict[State, type[OpenItem]] = {
        State.REASONING: OpenReasoning,
        State.MESSAGE: OpenMessage,
        State.CALL: OpenCall,
    }
    for state, kind in kinds.items():
        kept = {s for s, step in TRANSITIONS[state].items() if step.fate is Fate.KEEP}
        assert {SIGNAL_OF[kind.delta_type], Signal.HEARTBEAT} == kept
