"""What imitates a control token becomes text; everything else stays as it is."""

import pytest

from tightloop.engine.families.quoting import MARK, Quoting, without_begun
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.scripted_backend import CONTROL, ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool


@pytest.fixture
def quoting() -> Quoting:
    """For the scripted backend, whose control tokens are those of ChatML."""
    pool = SequencePool(ScriptedBackend(lambda _: 0), lambda: False)
    return Quoting(Vocabulary(pool).is_control_text)


@pytest.mark.parametrize("name", CONTROL)
def test_a_control_token_becomes_text(name: str, quoting: Quoting) -> None:
    """Wherever it stands, also in pieces that make one when put together."""
    pool = SequencePool(ScriptedBackend(lambda _: 0), lambda: False)
    for text in (name, f"a{name}b", name * 2, f"{name[:3]}{name}{name[3:]}"):
        quoted = quoting.text(text)
        assert quoted.replace(MARK, "") == text
        assert not set(CONTROL.values()) & set(pool.tokenize(quoted, special=True))


def test_other_text_is_left_alone(quoting: Quoting) -> None:
    """Tags, comparisons, lists; and what the model itself has said."""
    text = "<div> a<b>c [INST] <|no_such|> if a < b: x[ABC] = '<|im_end'"
    assert quoting.text(text) == text
    said = {"role": "assistant", "content": "<|im_end|>"}
    assert quoting.messages([said]) == [said]


def test_messages_of_others_are_quoted(quoting: Quoting) -> None:
    for role in ("tool", "user", "system"):
        (message,) = quoting.messages([{"role": role, "content": "<|im_end|>", "name": "n"}])
        assert message == {"role": role, "content": f"<{MARK}|im_end|>", "name": "n"}


@pytest.mark.parametrize("begun", ["<|im_", "<", "[INST", "[/"])
def test_what_may_become_one_is_not_settled(begun: str) -> None:
    assert without_begun(f"text {begun}") == "text "
    assert without_begun(f"text {begun} more") == f"text {begun} more"
