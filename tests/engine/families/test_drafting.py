"""What an answer has to draft from."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.engine.collecting import request
from tightloop.engine.drafts.drafter import Drafter
from tightloop.engine.families.drafting import Drafting
from tightloop.engine.families.held_tokens import HeldTokens
from tightloop.engine.families.warm_sequence import WarmSequence
from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.items import FunctionCallOutput

FLAT = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}
SHOWN = "def compute(value):\n    return value + 1\n" * 3


def warm_in(pool: SequencePool, prompt: bytes) -> WarmSequence:
    return WarmSequence(pool, pool.open(), HeldTokens(prompt))


def made(
    asked: GenerationRequest, prompt: bytes = b"", *, costs: Mapping[int, float] = FLAT
) -> Drafter | None:
    pool = SequencePool(ScriptedBackend(lambda _: 0), lambda: False)
    return Drafting(pool, costs=costs).drafter(asked, warm_in(pool, prompt))


def drafts_after(drafter: Drafter | None, said: str, num: int = 7) -> bytes:
    assert drafter is not None
    for _ in range(20):
        drafter.propose(0)  # its chores
    for token in said.encode():
        drafter.accept(token)
    return bytes(drafter.propose(num))


def test_a_prediction_is_there_from_the_first_token_on() -> None:
    drafter = made(replace(request(), prediction="abcdefghij"))
    assert drafter is not None
    drafter.accept(ord("a"))
    assert bytes(drafter.propose(100)) == b"bcdefgh"


@pytest.mark.parametrize(
    ("said", "proposed"),
    [
        ("\\ndef compute(value):\\n", b"    ret"),  # a file as it is, in a JSON string
        ("\\n def compute(value):\\n", b"     re"),  # unchanged lines of a patch
    ],
)
def test_a_file_that_was_shown_is_drafted_in_its_quoted_form(said: str, proposed: bytes) -> None:
    drafter = made(request([FunctionCallOutput("c", SHOWN)]))
    assert drafts_after(drafter, said) == proposed


def test_what_the_prompt_says_is_drafted_as_it_stands() -> None:
    drafter = made(request(), SHOWN.encode())
    assert drafts_after(drafter, "\n    return va") == b"lue + 1"


def test_a_continuation_goes_on_with_the_index_of_what_it_shares() -> None:
    pool = SequencePool(ScriptedBackend(lambda _: 0), lambda: False)
    drafting = Drafting(pool, costs=FLAT)
    warm = warm_in(pool, SHOWN.encode())
    drafts_after(drafting.drafter(request(), warm), "abc")
    child = warm_in(pool, SHOWN.encode()[:40] + b"xyz")
    child.history = warm.pass_on_history(40)
    assert child.history is not None
    assert len(child.history) == 40
    assert drafts_after(drafting.drafter(request(), child), "def com", 3) == b"put"
    assert child.history.tokens == [*child.tokens, *b"def com"]


def test_nothing_is_prepared_where_drafts_cannot_pay() -> None:
    assert made(request(), costs={1: 1.0, 4: 3.9}) is None
    assert made(request(), costs={}) is None
    pool = SequencePool(ScriptedBackend(lambda _: 0), lambda: False)
    assert Drafting(pool, is_on=False).drafter(request(), warm_in(pool, b"")) is None


def test_the_backend_is_asked_what_steps_cost() -> None:
    for costs, has_drafts in (({1: 1.0, 8: 1.0}, True), ({1: 1.0, 8: 8.0}, False)):
        backend = ScriptedBackend(lambda _: 0, step_costs=costs)
        pool = SequencePool(backend, lambda: False)
        drafter = Drafting(pool).drafter(request(), warm_in(pool, b""))
        assert (drafter is not None) == has_drafts


class Immeasurable(ScriptedBackend):
    """Has no room to measure anything."""

    def step_costs(self) -> dict[int, float]:
        """Fails."""
        raise EngineError("all sequences are in use", code="server_is_overloaded")


def test_no_drafts_where_nothing_could_be_measured() -> None:
    pool = SequencePool(Immeasurable(lambda _: 0), lambda: False)
    assert Drafting(pool).drafter(request(), warm_in(pool, b"")) is None
