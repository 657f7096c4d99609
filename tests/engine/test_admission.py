"""Who goes on next: interactive before background, and every session in its turn."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.collecting import request
from tightloop.engine.admission import MAX_OVERTAKES, Admission, session_of
from tightloop.engine.interface import GenerationRequest, Node
from tightloop.engine.run import Run
from tightloop.protocol.deltas import Delta
from tightloop.trace.clock import Clock, MonotonicClock


class Nowhere:
    """A hub that nothing is sent to."""

    clock: Clock = MonotonicClock()

    def cancel(self, run: Run) -> None:
        run.is_cancelled = True

    def put(self, run: Run, delta: Delta, *, is_urgent: bool) -> None:
        raise AssertionError("nothing is generated here")


def made(name: str, *, session: str | None = None, is_background: bool = False) -> Run:
    asked = GenerationRequest(name, "m", None, (), cache_key=session, is_background=is_background)
    return Run(Nowhere(), asked, lambda _: None)


def names(runs: list[Run]) -> list[str]:
    return [run.request.response_id for run in runs]


def test_a_session_is_its_key_or_the_root_of_its_conversation() -> None:
    root = Node("r1", None, ())
    child = Node("r2", root, ())
    asked = [request(name="r1"), request(name="r3", parent=root), request(name="r4", parent=child)]
    assert {session_of(one) for one in asked} == {"r1"}
    assert session_of(request(name="other")) == "other"
    assert session_of(made("r9", session="mine").request) == "mine"


def test_places_are_filled_in_order_of_arrival() -> None:
    admission = Admission(2)
    admission.waiting += [made(name) for name in "abc"]
    running = admission.admit([])
    assert names(running) == ["a", "b"]
    assert admission.admit(running) == []
    assert names(admission.admit(running[1:])) == ["c"]


def test_many_forks_of_one_session_do_not_starve_another() -> None:
    """With one place too: sessions alternate however many each has waiting."""
    admission = Admission(1)
    admission.waiting += [made(f"a{n}", session="a") for n in range(3)]
    admission.waiting += [made(f"b{n}", session="b") for n in range(2)]
    order = []
    for _ in range(5):
        order += names(admission.admit([]))
    assert order == ["a0", "b0", "a1", "b1", "a2"]


def test_the_session_with_the_fewest_running_goes_first() -> None:
    admission = Admission(3)
    running = [made("a0", session="a"), made("a1", session="a")]
    admission.waiting += [made("a2", session="a"), made("b0", session="b")]
    assert names(admission.admit(running)) == ["b0"]


def test_interactive_goes_before_background() -> None:
    admission = Admission(1)
    admission.waiting += [made("batch", is_background=True), made("a"), made("b")]
    order = [names(admission.admit([])) for _ in range(3)]
    assert order == [["a"], ["b"], ["batch"]]


@pytest.mark.parametrize("places", [1, 2, 4])
def test_background_is_never_kept_waiting_for_ever(places: int) -> None:
    """Interactive ones that never end coming overtake it a bounded number of times, again and again."""
    admission = Admission(places)
    admission.waiting += [made(f"batch{n}", is_background=True) for n in range(3)]
    running: list[Run] = []
    num_admitted = 0
    overtaken: list[int] = []
    while len(overtaken) < 3:
        while len(admission.waiting) < 20:
            admission.waiting.append(made(f"i{num_admitted}.{len(admission.waiting)}"))
        for run in admission.admit(running):
            running.append(run)
            num_admitted += 1
            if run.request.is_background:
                overtaken.append(num_admitted)
                num_admitted = 0
        running = running[1:]
    assert overtaken == [MAX_OVERTAKES + 1] * 3


def test_only_what_waits_behind_is_counted() -> None:
    """A background response that comes late has not been overtaken by those before it."""
    admission = Admission(1)
    for n in range(2 * MAX_OVERTAKES):
        admission.waiting.append(made(f"i{n}"))
        admission.admit([])
    admission.waiting += [made("batch", is_background=True), made("i")]
    assert names(admission.admit([])) == ["i"]


def test_background_leaves_a_place_free() -> None:
    """So that an interactive response need not wait for a long one to end."""
    admission = Admission(3)
    admission.waiting += [made(f"batch{n}", is_background=True) for n in range(3)]
    running = admission.admit([])
    assert names(running) == ["batch0", "batch1"]
    admission.waiting.append(made("a"))
    assert names(admission.admit(running)) == ["a"]


def test_what_goes_on_from_an_unfinished_response_waits_for_it() -> None:
    """A prewarm is answered before the engine has read it, so its continuation may come early."""
    asked = GenerationRequest("answer", "m", Node("prewarm", None, ()), ())
    admission = Admission(4)
    admission.waiting += [Run(Nowhere(), asked, lambda _: None), made("prewarm"), made("other")]
    running = admission.admit([])
    assert names(running) == ["prewarm", "other"]
    assert admission.admit(running) == []
    assert names(admission.admit(running[1:])) == ["answer"]


def test_the_cancelled_wait_no_more() -> None:
    admission = Admission(1)
    admission.waiting += [made("a"), made("b")]
    admission.waiting[0].cancel()
    assert names(admission.take_cancelled()) == ["a"]
    assert names(admission.waiting) == ["b"]


@settings(max_examples=60)
@given(
    arrivals=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=25),
    places=st.integers(1, 4),
)
def test_everybody_comes_on_once_and_no_session_twice_before_another_once(
    arrivals: list[tuple[str, bool]], places: int
) -> None:
    """Whatever arrives: places are never overfilled, and nobody is forgotten."""
    admission = Admission(places)
    everyone = [
        made(f"{n}", session=session, is_background=is_background)
        for n, (session, is_background) in enumerate(arrivals)
    ]
    admission.waiting += everyone
    running: list[Run] = []
    seen: list[Run] = []
    while admission.waiting:
        new = admission.admit(running)
        assert new or running
        seen += new
        running += new
        assert len(running) <= places
        running = running[1:]
    assert sorted(names(seen)) == sorted(names(everyone))


def test_an_open_request_leaves_a_place_too() -> None:
    """What is read early must never keep an answer waiting."""
    asked = GenerationRequest("open", "m", None, (), generate=False, is_open=True)
    admission = Admission(2)
    admission.waiting += [Run(Nowhere(), asked, lambda _: None) for _ in range(3)]
    running = admission.admit([])
    assert names(running) == ["open"]
    admission.waiting.append(made("answer"))
    assert names(admission.admit(running)) == ["answer"]
