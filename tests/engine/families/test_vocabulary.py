"""First bytes of tokens, and control tokens."""

from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.scripted_backend import IM_END, IM_START, ScriptedBackend, replying


class Blank(ScriptedBackend):
    """Some models have tokens without any bytes."""

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == 65 else super().token_bytes(token)


def test_tokens_are_found_by_their_first_byte() -> None:
    vocabulary = Vocabulary(Blank(replying(b"")))
    for _ in range(2):
        chosen = vocabulary.beginning_with(b"<AB")
        assert [n for n, is_in in enumerate(chosen) if is_in] == [60, 66, IM_START, IM_END, 258]
    assert not vocabulary.beginning_with(b"").any()


def test_a_control_token_is_more_than_its_text() -> None:
    backend = ScriptedBackend(replying(b""))
    vocabulary = Vocabulary(backend)
    for _ in range(2):
        assert vocabulary.is_control(IM_START, backend.token_bytes(IM_START))
    assert not vocabulary.is_control(60, b"<")
    assert not vocabulary.is_control(500, b"<no such>")
