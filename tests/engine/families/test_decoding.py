"""Decoding with and without drafts: the same answer, and the same tokens left behind."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.collecting import request, start
from tests.engine.families.driving import OpinionatedBackend, Said, drive, filed
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import EngineError, GenerationRequest, Node, Sampling
from tightloop.engine.scripted_backend import IM_END, ScriptedBackend, replying
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.items import FunctionCallOutput, Message, TextPart
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool

FLAT = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}
NAMES = ("ann", "bob", "carola")
CALL = '<tool_call>\n{"name": "p", "arguments": {"input": "naïve\\n\\tif x:\\n"}}\n</tool_call> END'
texts = st.one_of(
    st.text("ab", max_size=40),
    st.text(max_size=12),
    st.sampled_from(
        (CALL, "naïve 日本 \U0001f600 naïve 日本", "one END two", "<think>hm</think>ab" * 3)
    ),
    st.lists(st.sampled_from(("for x in y:\n", "  x = 1\n", "  y = x\n", "END")), max_size=8).map(
        "".join
    ),
)


def said_by(
    reply: bytes,
    asked: GenerationRequest,
    *,
    has_drafts: bool,
    noise: float = 0.0,
    strength: float = 1.0,
    num_steps: int = 10_000,
) -> tuple[Said, list[int], Said]:
    """An answer, what its sequence holds then, and the answer to a question that follows."""
    backend = OpinionatedBackend(replying(reply), noise=noise, strength=strength)
    pool = SequencePool(backend, lambda: False)
    family = ChatFamily(pool, new_call_id=lambda: "call", has_drafts=has_drafts, step_costs=FLAT)
    first = drive(family, pool, asked, num_steps=num_steps)
    warm = filed(pool, asked.response_id)
    assert backend.tokens_of(warm.sequence) == list(warm.tokens)
    said = Message("assistant", (TextPart("output_text", first.text),))
    node = Node(asked.response_id, None, (*asked.items, said))
    after = replace(asked, response_id="after", parent=node, items=request("more").items)
    return first, list(warm.tokens), drive(family, pool, after)


def changed(text: str, at: int, size: int, new: str) -> str:
    """``text`` with a piece replaced: what an edit makes of a file."""
    at = min(at, len(text))
    return text[:at] + new + text[at + size :]


@settings(max_examples=25, deadline=None)
@given(
    reply=texts,
    changes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), texts), max_size=2),
    temperature=st.sampled_from((0.0, 0.0, 0.7)),
    stop=st.sampled_from(((), ("END",), ("x =", "\n\n"))),
    max_output_tokens=st.sampled_from((None, 1, 2, 7, 30)),
    is_json=st.booleans(),
    num_steps=st.sampled_from((3, 10_000)),
)
def test_drafts_change_nothing_but_the_number_of_steps(
    reply: str,
    changes: list[tuple[int, int, str]],
    temperature: float,
    stop: tuple[str, ...],
    max_output_tokens: int | None,
    is_json: bool,
    num_steps: int,
) -> None:
    """The same deltas, in the same order, and the same tokens kept; also when broken off.

    Predictions are the answer with changes, so some drafts are right and some are not. With a
    grammar the scripted answer is illegal nearly always, and the next best token is taken.
    """
    prediction = reply
    for at, size, new in changes:
        prediction = changed(prediction, at, size, new)
    asked = replace(
        request(
            "for x in y:\n  y = x\n" + reply[:20],
            tools=(CustomTool("p"),),
            sampling=Sampling(temperature, 0.9, 7, stop),
            max_output_tokens=max_output_tokens or (40 if is_json else 200),
        ),
        prediction=prediction,
        output_format=OutputFormat("json_object") if is_json else None,
    )
    noise = 0.5 if temperature or is_json else 0.0
    plain = said_by(reply.encode(), asked, has_drafts=False, noise=noise)
    drafted = said_by(reply.encode(), asked, has_drafts=True, noise=noise)
    for without, with_drafts in ((plain[0], drafted[0]), (plain[2], drafted[2])):
        assert without.deltas == with_drafts.deltas
        assert without.reason == with_drafts.reason
        for name in ("prefill", "output", "reasoning", "decode"):
            assert without.counts[name] == with_drafts.counts[name]
    assert plain[1] == drafted[1]
    if num_steps < 10_000:
        cut = said_by(reply.encode(), asked, has_drafts=True, noise=noise, num_steps=num_steps)
        assert cut[0].deltas == plain[0].deltas[: len(cut[0].deltas)]
        assert cut[1] == plain[1][: len(cut[1])]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_prediction_that_comes_true_takes_fewer_steps(temperature: float) -> None:
    """At temperature the drafts are checked against what the seed makes the sampler choose."""
    reply = "".join(f"line {n}: x = {n * n}\n" for n in range(20))
    sampling = Sampling(temperature, None, 3)
    asked = replace(request(sampling=sampling, max_output_tokens=300), prediction=reply)
    plain, *_ = said_by(reply.encode(), asked, has_drafts=False, noise=1, strength=12)
    drafted, *_ = said_by(reply.encode(), asked, has_drafts=True, noise=1, strength=12)
    assert plain.deltas == drafted.deltas
    assert len(drafted.steps) < len(plain.steps) / 3


def test_a_file_that_a_tool_showed_is_drafted_into_a_patch() -> None:
    """In its quoted form, with signs before its lines, though the prompt holds it plain."""
    lines = [f"    value_{n} = compute({n})\n" for n in range(12)]
    shown = "".join(lines)
    patch = " ".join(["*** Begin Patch\\n", *(line.replace("\n", "\\n") for line in lines)])
    reply = f'<tool_call>\n{{"name": "p", "arguments": {{"input": "{patch}"}}}}\n</tool_call>'
    asked = request([FunctionCallOutput("c", shown)], tools=(CustomTool("p"),))
    plain, *_ = said_by(reply.encode(), asked, has_drafts=False)
    drafted, *_ = said_by(reply.encode(), asked, has_drafts=True)
    assert plain.deltas == drafted.deltas
    assert drafted.reason is FinishReason.TOOL_CALLS
    assert len(drafted.steps) < len(plain.steps) / 2


def test_no_drafts_where_they_cannot_pay() -> None:
    """Steps of one token each, by a curve as a small model has it on a CPU."""
    costs = {1: 1.0, 4: 3.9, 8: 7.8}
    backend = ScriptedBackend(replying(b"abcabcabcabc"))
    pool = SequencePool(backend, lambda: False)
    family = ChatFamily(pool, step_costs=costs)
    said = drive(family, pool, replace(request(), prediction="abcabcabcabc"))
    assert set(said.steps[1:]) == {1}
    assert said.text == "abcabcabcabc"


def test_accepted_and_rejected_tokens_are_counted() -> None:
    asked = replace(request(), prediction="01234_______")
    said, *_ = said_by(b"0123456789", asked, has_drafts=True)
    checked, accepted = said.counts["drafts"]
    assert said.counts["drafts"] == said.counts["prediction"]
    assert (checked, accepted) == (7, 4)
    assert sum(said.steps[1:]) == said.counts["decode"][0] + checked - accepted


def test_drafts_that_find_no_room_are_left_out() -> None:
    """The token itself fits, so the answer goes on."""
    prompt_size = len("user\nhi\nassistant\n") + 3
    backend = OpinionatedBackend(replying(b"abcdefghijklmnop"), noise=0, num_cells=prompt_size + 9)
    pool = SequencePool(backend, lambda: False)
    family = ChatFamily(pool, step_costs=FLAT)
    asked = replace(request(max_output_tokens=10), prediction="abc_____________")
    assert drive(family, pool, asked).text == "abcdefghij"


class Unforgetting(OpinionatedBackend):
    """Cannot forget a part of a sequence, as models with recurrent memory cannot."""

    def truncate(self, sequence: int, num_tokens: int) -> None:
        """Everything is forgotten, and an error says so."""
        if num_tokens < self.num_tokens(sequence):
            super().truncate(sequence, 0)
            raise EngineError("it is empty now", code="partial_truncate_unsupported")


def test_a_model_that_cannot_forget_drafts_once_and_never_again() -> None:
    """What it had is read again; the answer is the same."""
    backend = Unforgetting(replying(b"abcdefgh"), noise=0)
    pool = SequencePool(backend, lambda: False)
    family = ChatFamily(pool, step_costs=FLAT)
    asked = replace(request(), prediction="abX_____")
    said = drive(family, pool, asked)
    assert said.text == "abcdefgh"
    again = drive(family, pool, replace(asked, response_id="again"))
    assert again.text == "abcdefgh"
    assert "drafts" not in again.counts


async def test_sessions_that_share_steps_get_their_own_answers() -> None:
    """Drafts of one are evaluated beside tokens of another."""
    replies = {
        name: f"{name}: " + "".join(f"{n * len(name)}, " for n in range(30)) for name in NAMES
    }

    def next_token(held: Sequence[int]) -> int:
        prompt, _, said = bytes(min(token, 255) for token in held).rpartition(b"assistant\n")
        name = next(name for name in NAMES if name.encode() in prompt)
        reply = replies[name].encode()
        return reply[len(said)] if len(said) < len(reply) else IM_END

    engine = TokenEngine(
        lambda: ScriptedBackend(next_token),
        lambda pool: ChatFamily(pool, step_costs=FLAT),
        name="test",
    )
    await engine.start()
    asked = [replace(request(name, name=name), prediction=replies[name]) for name in NAMES]
    answers = [start(engine, one) for one in asked]
    for answer in answers:
        await answer.wait()
    await engine.close()
    assert list(replies.values()) == [answer.text for answer in answers]
    for answer in answers:
        timing, usage = answer.finished.timing, answer.finished.usage
        assert timing is not None
        assert timing.num_accepted_tokens > 0
        assert timing.num_decode_steps == usage.output_tokens
        assert usage.accepted_prediction_tokens > 0
