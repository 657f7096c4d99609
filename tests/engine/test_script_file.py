"""Script files: answers depend on the request alone, and mistakes are named."""

from pathlib import Path

import pytest

from tightloop.engine.interface import EngineError, GenerationRequest, Node
from tightloop.engine.paced import PacedEngine
from tightloop.engine.script_file import load_engine, load_script, parse_script
from tightloop.engine.scripted import Hold, ScriptedEngine, call_answer, text_answer
from tightloop.protocol.deltas import Finished, FinishReason, ReasoningDelta, Usage
from tightloop.protocol.items import FunctionCallOutput, Item, user_message

SCRIPT = b"""{"answers": [
  [{"reasoning": "hm"}, {"call": {"name": "shell", "arguments": {"cmd": "ls"}}}],
  [{"call": {"name": "apply_patch", "arguments": "*** Begin", "call_id": "p"}}],
  [{"text": "all done"}, {"hold": true}],
  [{"error": {"message": "engine died"}}]
]}"""


def request(num_outputs: int) -> GenerationRequest:
    outputs: list[Item] = [FunctionCallOutput("c", "ok")] * num_outputs
    parent = Node("a", None, (user_message("go"), *outputs[:1]))
    return GenerationRequest("b", "scripted", parent, tuple(outputs[1:]))


def test_the_answer_is_chosen_by_the_tool_outputs_in_the_context() -> None:
    """Also those in ancestors; after the last answer it stays the last."""
    script = parse_script(SCRIPT)
    shell = [ReasoningDelta("hm"), *call_answer("shell", {"cmd": "ls"}, "call_0_1")]
    assert list(script(request(0))) == shell
    assert list(script(request(1))) == call_answer("apply_patch", "*** Begin", "p")
    *text, hold = script(request(2))
    assert text == text_answer("all done")
    assert isinstance(hold, Hold)
    failed = [Finished(FinishReason.ERROR, Usage(), None, "server_error", "engine died")]
    assert list(script(request(3))) == list(script(request(7))) == failed


def test_a_reply_to_what_the_user_just_said_comes_first() -> None:
    """Only while it is the newest item: after a tool's output the answers go on."""
    script = parse_script(
        b'{"answers": [[{"text": "first"}], [{"text": "second"}]],'
        b' "replies": {"quick": [{"text": "at once"}]}}'
    )

    def after(*items: Item) -> list[object]:
        return list(script(GenerationRequest("b", "scripted", None, items)))

    assert after(user_message("be quick, please")) == text_answer("at once")
    assert after(user_message("take your time")) == text_answer("first")
    said = (user_message("be quick"), FunctionCallOutput("c", "ok"))
    assert after(*said) == text_answer("second")


def test_usage_ends_the_answer_with_its_counts() -> None:
    """The deltas of the answer are the output tokens; the end fits what was said."""
    script = parse_script(
        b'{"answers": [[{"call": {"name": "a", "arguments": {}}},'
        b' {"usage": {"input_tokens": 50, "cached_tokens": 7}}],'
        b' [{"text": "a b"}, {"usage": {"input_tokens": 60}}]]}'
    )
    assert list(script(request(0)))[-1] == Finished(FinishReason.TOOL_CALLS, Usage(50, 7, 4))
    assert list(script(request(1)))[-1] == Finished(FinishReason.STOP, Usage(60, 0, 2))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "truncated"),
        (b"{}", "answers"),
        (b'{"answers": []}', "at least one"),
        (b'{"answers": [[{"text": "a"}, {}]]}', r"answers\[0\]\[1\] must be exactly one"),
        (b'{"answers": [[{"text": "a", "hold": true}]]}', "exactly one"),
        (b'{"answers": [[{"txet": "x"}]]}', "txet"),
        (b'{"answers": [[]], "replies": {"a": [{}]}}', r"replies\['a'\]\[0\] must be"),
        (b'{"answers": [[{"usage": {"input_tokens": 1}}, {"text": "a"}]]}', "the last step"),
        (b'{"answers": [[{"call": {"name": "x", "arguments": 3}}]]}', "arguments"),
        (b'{"answers": [[{"text": "a"}]], "tokens_per_s": 0}', "tokens_per_s"),
        (b'{"answers": [[{"hold": true}]], "tokens_per_s": 9}', "do not go together"),
    ],
)
def test_a_mistake_is_named_with_the_file(tmp_path: Path, data: bytes, reason: str) -> None:
    """A misspelt step must not become an empty answer."""
    path = tmp_path / "script.json"
    path.write_bytes(data)
    with pytest.raises(EngineError, match=rf"script\.json: .*{reason}"):
        load_engine(path)


def test_a_rate_paces_the_answers(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_bytes(b'{"answers": [[{"text": "a"}]], "tokens_per_s": 1000}')
    engine = load_engine(path)
    assert isinstance(engine, PacedEngine)
    assert [model.name for model in engine.models()] == ["scripted"]
    path.write_bytes(b'{"answers": [[{"text": "a"}]]}')
    assert isinstance(load_engine(path), ScriptedEngine)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The operating system's reason is in the text."""
    with pytest.raises(EngineError, match=r"nowhere\.json: No such file"):
        load_script(tmp_path / "nowhere.json")
