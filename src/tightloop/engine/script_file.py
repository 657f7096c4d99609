"""Scripts of the scripted engine as JSON files: ``tightloop serve --model scripted:PATH.json``.

::

    {"answers": [
        [{"reasoning": "look first"}, {"call": {"name": "shell", "arguments": {"cmd": "ls"}}}],
        [{"call": {"name": "apply_patch", "arguments": "*** Begin Patch ...", "call_id": "c2"}}],
        [{"text": "done"}]
    ]}

Which answer is given depends only on the request: after n tool outputs in the context it is answer
n, counted from 0, and the last one from then on. So several sessions can use one server, a
restart changes nothing, and a client that asks for a title first does not upset the count.

A step is one of ``text``, ``reasoning``, ``call`` (a string as ``arguments`` makes it a custom
tool call), ``hold`` (true: wait until the response is cancelled) and ``error`` (code, message).
"""

from pathlib import Path
from typing import Any

import msgspec

from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.scripted import Answer, Hold, Script, Step, call_answer, text_answer
from tightloop.protocol.deltas import Finished, FinishReason, ReasoningDelta, Usage
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput

MAX_FILE_BYTES = 16 << 20


class _Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any] | str
    call_id: str | None = None


class _Error(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    message: str
    code: str = "server_error"


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str | None = None
    reasoning: str | None = None
    call: _Call | None = None
    hold: bool = False
    error: _Error | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    answers: list[list[_Step]]


_file = msgspec.json.Decoder(_File)


def load_script(path: Path) -> Script:
    """The script in a file. Raises ``EngineError`` naming the file and what is wrong in it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise EngineError(f"script {path} is larger than {MAX_FILE_BYTES} bytes")
        return parse_script(path.read_bytes())
    except OSError as error:
        raise EngineError(f"cannot read script {path}: {error.strerror}") from error
    except ValueError as error:
        raise EngineError(f"script {path}: {error}") from error


def parse_script(data: bytes) -> Script:
    """The script in JSON bytes. Raises ValueError saying where it is wrong."""
    answers = _file.decode(data).answers
    if not answers:
        raise ValueError("answers is empty; give at least one answer")
    for number, answer in enumerate(answers):
        for n, step in enumerate(answer):
            if _num_kinds(step) != 1:
                raise ValueError(f"answers[{number}][{n}] must be exactly one kind of step")

    def script(request: GenerationRequest) -> Answer:
        number = min(_num_tool_outputs(request), len(answers) - 1)
        steps = [_steps(step, f"call_{number}_{n}") for n, step in enumerate(answers[number])]
        return [delta for deltas in steps for delta in deltas]

    return script


def _num_kinds(step: _Step) -> int:
    fields = (step.text, step.reasoning, step.call, step.error)
    return sum(field is not None for field in fields) + step.hold


def _num_tool_outputs(request: GenerationRequest) -> int:
    kinds = (FunctionCallOutput, CustomToolCallOutput)
    return sum(isinstance(item, kinds) for item in request.context())


def _steps(step: _Step, call_id: str) -> list[Step]:
    if step.call is not None:
        return call_answer(step.call.name, step.call.arguments, step.call.call_id or call_id)
    if step.error is not None:
        failed = Finished(FinishReason.ERROR, Usage(), None, step.error.code, step.error.message)
        return [failed]
    if step.hold:
        return [Hold()]
    if step.reasoning is not None:
        return [ReasoningDelta(step.reasoning)]
    return text_answer(step.text or "")
