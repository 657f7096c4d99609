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

``"replies": {"be quick": [{"text": "done"}]}`` beside ``answers``: a reply is given instead when the
newest item is a user message, or a summary, that contains its key; the first such key counts.

``"tokens_per_s": 1000`` plays the answers at that rate (see ``paced``), else they come at once.

A step is one of ``text``, ``reasoning``, ``call`` (a string as ``arguments`` makes it a custom
tool call), ``hold`` (true: wait until the response is cancelled), ``error`` (code, message) and
``usage``, which comes last: the token counts to report, ``{"input_tokens": 5000}``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from tightloop.engine.interface import Engine, EngineError, GenerationRequest
from tightloop.engine.paced import PacedEngine
from tightloop.engine.scripted import (
    Answer,
    Hold,
    Script,
    ScriptedEngine,
    Step,
    call_answer,
    text_answer,
)
from tightloop.protocol.deltas import Finished, FinishReason, ReasoningDelta, ToolCallDone, Usage
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Message

_T = TypeVar("_T")
MAX_FILE_BYTES = 16 << 20


class _Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any] | str
    call_id: str | None = None


class _Error(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    message: str
    code: str = "server_error"


class _Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input_tokens: int
    cached_tokens: int = 0


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str | None = None
    reasoning: str | None = None
    call: _Call | None = None
    hold: bool = False
    error: _Error | None = None
    usage: _Usage | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    answers: list[list[_Step]]
    replies: dict[str, list[_Step]] = {}
    tokens_per_s: Annotated[float, msgspec.Meta(gt=0)] | None = None


_file = msgspec.json.Decoder(_File)


def load_script(path: Path) -> Script:
    """The script in a file. Raises ``EngineError`` naming the file and what is wrong in it."""
    return _load(path, parse_script)


def load_engine(path: Path) -> Engine:
    """An engine that plays the script in a file, at its rate. Raises as ``load_script``."""

    def make(data: bytes) -> Engine:
        script, rate = parse_script(data), _file.decode(data).tokens_per_s
        if rate is None:
            return ScriptedEngine(script, counts_input=True)
        return PacedEngine(script, rate, name="scripted")

    return _load(path, make)


def _load(path: Path, make: Callable[[bytes], _T]) -> _T:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise EngineError(f"script {path} is larger than {MAX_FILE_BYTES} bytes")
        return make(path.read_bytes())
    except OSError as error:
        raise EngineError(f"cannot read script {path}: {error.strerror}") from error
    except ValueError as error:
        raise EngineError(f"script {path}: {error}") from error


def parse_script(data: bytes) -> Script:
    """The script in JSON bytes. Raises ValueError saying where it is wrong."""
    file = _file.decode(data)
    answers = file.answers
    if not answers:
        raise ValueError("answers is empty; give at least one answer")
    for number, answer in enumerate(answers):
        _check(f"answers[{number}]", answer)
    for key, reply in file.replies.items():
        _check(f"replies[{key!r}]", reply)
    if file.tokens_per_s is not None and any(step.hold for each in answers for step in each):
        raise ValueError("hold and tokens_per_s do not go together")

    def script(request: GenerationRequest) -> Answer:
        number = min(_num_tool_outputs(request), len(answers) - 1)
        reply = _reply(request, file.replies)
        steps = answers[number] if reply is None else reply
        return _played(steps, f"call_{number}")

    return script


def _check(place: str, steps: list[_Step]) -> None:
    for n, step in enumerate(steps):
        if _num_kinds(step) != 1:
            raise ValueError(f"{place}[{n}] must be exactly one kind of step")
        if step.usage is not None and n + 1 < len(steps):
            raise ValueError(f"{place}[{n}] is usage, which must be the last step")


def _num_kinds(step: _Step) -> int:
    fields = (step.text, step.reasoning, step.call, step.error, step.usage)
    return sum(field is not None for field in fields) + step.hold


def _reply(request: GenerationRequest, replies: dict[str, list[_Step]]) -> list[_Step] | None:
    """The reply to what a user has just said, if there is one."""
    context = request.context() if replies else []
    newest = context[-1] if context else None
    if not isinstance(newest, Message) or newest.role != "user":
        return None
    return next((steps for key, steps in replies.items() if key in newest.text), None)


def _played(steps: list[_Step], call_id: str) -> Answer:
    deltas = [delta for n, step in enumerate(steps) for delta in _steps(step, f"{call_id}_{n}")]
    usage = steps[-1].usage if steps else None
    if usage is None:
        return deltas
    has_calls = any(isinstance(delta, ToolCallDone) for delta in deltas)
    reason = FinishReason.TOOL_CALLS if has_calls else FinishReason.STOP
    counts = Usage(usage.input_tokens, usage.cached_tokens, len(deltas))
    return [*deltas, Finished(reason, counts)]


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
    if step.usage is not None:
        return []  # ``_played`` ends the answer with it
    if step.reasoning is not None:
        return [ReasoningDelta(step.reasoning)]
    return text_answer(step.text or "")
