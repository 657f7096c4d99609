import asyncio
from collections.abc import Sequence

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.paced import PacedEngine, in_tokens
from tightloop.engine.scripted import call_answer, text_answer
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tightloop.protocol.items import user_message

REQUEST = GenerationRequest("r", "paced", None, (user_message("go"),))


class Collector:
    """A sink; ``finished`` is set with the last delta."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.finished = asyncio.Event()

    def __call__(self, batch: Sequence[Delta]) -> None:
        self.deltas += batch
        if isinstance(batch[-1], Finished):
            self.finished.set()


def test_an_answer_is_cut_into_tokens_of_four_characters() -> None:
    """Nothing is lost, the count goes up by one a token, and the end of a call is none."""
    pieces = in_tokens([*text_answer("abcdefghi"), *call_answer("run", {"cmd": "ls"})])
    texts = [each.text for _, each in pieces if isinstance(each, TextDelta)]
    assert texts == ["abcd", "efgh", "i"]
    arguments = "".join(each.text for _, each in pieces if isinstance(each, ToolCallDelta))
    assert arguments == '{"cmd":"ls"}'
    counts = [count for count, _ in pieces]
    assert [*range(1, len(pieces)), len(pieces) - 1] == counts


async def test_the_whole_answer_is_played_and_counted() -> None:
    engine = PacedEngine(lambda _: text_answer("a longer answer of several tokens"), 1e6)
    sink = Collector()
    engine.submit(REQUEST, sink)
    await sink.finished.wait()
    *said, last = sink.deltas
    text = "".join(each.text for each in said if isinstance(each, TextDelta))
    assert text == "a longer answer of several tokens"
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.STOP
    assert last.timing is not None
    assert len(said) == last.timing.num_decode_steps == last.usage.output_tokens


async def test_a_cancelled_answer_ends_once() -> None:
    """With one ``Finished`` and nothing after it, although the next token is a day away."""
    engine = PacedEngine(lambda _: text_answer("never said"), 1 / 86_400)
    sink = Collector()
    generation = engine.submit(REQUEST, sink)
    generation.cancel()
    generation.cancel()
    await sink.finished.wait()
    await engine.close()
    assert [each.reason for each in sink.deltas if isinstance(each, Finished)] == [
        FinishReason.CANCELLED
    ]
    assert len(sink.deltas) == 1


async def test_an_answer_may_say_how_it_ends() -> None:
    """An error of a script, and its usage; the tokens played are counted."""
    ending = Finished(FinishReason.ERROR, Usage(7), None, "server_error", "broken")
    engine = PacedEngine(lambda _: [ReasoningDelta("think twice"), ending], 1e6)
    sink = Collector()
    engine.submit(REQUEST, sink)
    await sink.finished.wait()
    *said, last = sink.deltas
    assert [each.text for each in said if isinstance(each, ReasoningDelta)] == [
        "thin",
        "k tw",
        "ice",
    ]
    assert isinstance(last, Finished)
    assert (last.reason, last.error_message, last.usage) == (
        FinishReason.ERROR,
        "broken",
        Usage(7, 0, 3),
    )


async def test_prefill_alone_says_nothing() -> None:
    engine = PacedEngine(lambda _: text_answer("no"), 1e6)
    sink = Collector()
    engine.submit(GenerationRequest("r", "paced", None, (), generate=False), sink)
    await sink.finished.wait()
    assert len(sink.deltas) == 1
