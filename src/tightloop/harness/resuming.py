"""Going on with a conversation of before: with which backend, and with its work put back."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from tightloop.agent.patch.apply import PatchStream
from tightloop.harness.backend import UsageError
from tightloop.harness.past import CUT_TEXT, Past, load
from tightloop.harness.record import Call, Output
from tightloop.harness.settings import Settings
from tightloop.protocol.items import CustomToolCall
from tightloop.sandbox.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PutBack:
    """What became of a conversation's work. ``lost`` are calls whose effects may be missing.

    ``clashing`` are files that somebody has changed meanwhile: here they are as the conversation
    left them, and applying will refuse them.
    """

    lost: tuple[str, ...]
    clashing: tuple[str, ...]


def choose(state_dir: Path, thread_id: str, repository: Path | None) -> Past:
    """The conversation to go on with; ``repository`` is the one that was asked for, if one was.

    Raises NoSuchThread, or UsageError when the conversation is about another repository or its
    own is gone.
    """
    past = load(state_dir, thread_id, (repository or Path()) if thread_id == "last" else None)
    if repository is not None:
        place = Path(os.path.realpath(repository))
        if not place.is_relative_to(past.repository):
            raise UsageError(
                f"--repo: the conversation {past.id} is about {str(past.repository)!r}, not "
                f"{str(place)!r}: leave --repo out, or begin a new conversation there"
            )
    if not past.repository.is_dir():
        raise UsageError(
            f"the conversation {past.id} is about {str(past.repository)!r}, which is gone"
        )
    return past


def resumed_settings(settings: Settings, past: Past) -> Settings:
    """The settings with the conversation's repository, and with its backend unless one is named.

    Without a model and a server both are as recorded. A server that is named gets the recorded
    model only when it is the recorded server: another one may not have it.
    """
    choice = past.choice
    changed = replace(settings, repo=past.repository)
    if settings.model is None and settings.server in (None, choice.get("server")):
        return replace(
            changed,
            model=choice.get("model") or (past.model if choice.get("server") else None),
            server=choice.get("server"),
            transport=choice.get("transport") or settings.transport,
            api_key_env=settings.api_key_env or choice.get("api_key_env"),
        )
    return changed


async def put_back(workspace: Workspace, past: Past) -> PutBack:
    """The conversation's work is in the workspace.

    Patches that had ended well, but were not kept any more when the process was killed, are applied
    anew; what commands did in those last moments is lost.
    """
    clashing = await workspace.restore(past.changes) if past.changes else []
    outputs = {item.call_id: item for item in past.items if isinstance(item, Output)}
    lost = []
    for call in past.items:
        if not isinstance(call, Call) or call.call_id not in past.missing:
            continue
        output = outputs.get(call.call_id)
        said = output.output if output is not None else CUT_TEXT
        if call.name == "apply_patch" and said != CUT_TEXT:
            is_known = call.call_id not in past.masked | past.unsure
            was_refused = not said.startswith("Success.")
            if was_refused or (is_known and _apply_again(workspace, call)):
                continue
        lost.append(call.call_id)
    return PutBack(tuple(lost), tuple(clashing))


def _apply_again(workspace: Workspace, call: Call) -> bool:
    """Whether the patch is in the workspace now."""
    text = call.input if isinstance(call, CustomToolCall) else call.arguments
    if text.lstrip().startswith("{"):
        try:
            fields = msgspec.json.decode(text, type=dict[str, str])
        except msgspec.MsgspecError:
            return False
        text = fields.get("input") or fields.get("patch") or ""
    stream = PatchStream(workspace.path)
    stream.feed(text)
    return stream.commit().is_ok
