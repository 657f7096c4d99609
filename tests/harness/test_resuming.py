"""Which conversation goes on, with which backend, and what is put back of its work."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness.kept import keep
from tightloop.harness.backend import UsageError
from tightloop.harness.past import CUT_TEXT, NoSuchThread, Past
from tightloop.harness.resuming import choose, put_back, resumed_settings
from tightloop.harness.settings import Settings
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
)
from tightloop.sandbox.workspace import Workspace, open_workspace

INSERT = "*** Begin Patch\n*** Update File: m.py\n@@ x = 1\n+y = 2\n*** End Patch"
DONE = "Success. Updated the following files:\nM m.py\n"


def test_a_conversation_about_another_directory_is_refused(tmp_path: Path) -> None:
    here, inside, there = tmp_path / "here", tmp_path / "here/inside", tmp_path / "there"
    inside.mkdir(parents=True)
    there.mkdir()
    keep(tmp_path, "abc", here)
    assert choose(tmp_path, "abc", None).repository == here
    assert choose(tmp_path, "abc", here).id == choose(tmp_path, "last", inside).id == "abc"
    with pytest.raises(UsageError, match="--repo: the conversation abc is about"):
        choose(tmp_path, "abc", there)
    with pytest.raises(NoSuchThread, match="the newest of all is abc"):
        choose(tmp_path, "last", there)


def test_a_repository_that_is_gone(tmp_path: Path) -> None:
    keep(tmp_path, "abc", tmp_path / "gone")
    with pytest.raises(UsageError, match="which is gone"):
        choose(tmp_path, "abc", None)


PAST = Past("abc", Path("/r"), "big", "", "", 1, (), ())
SETTINGS = Settings(repo=Path("/elsewhere"), state_dir=Path("/s"))


@pytest.mark.parametrize(
    ("given", "recorded", "wanted"),
    [
        ({}, {}, (None, None)),
        ({}, {"model": "a.gguf"}, ("a.gguf", None)),
        ({}, {"server": "http://h", "transport": "http"}, ("big", "http://h")),
        ({}, {"server": "http://h", "model": "small"}, ("small", "http://h")),
        ({"server": "http://h"}, {"server": "http://h"}, ("big", "http://h")),
        ({"server": "http://i"}, {"server": "http://h"}, (None, "http://i")),
        ({"server": "http://i"}, {"model": "a.gguf"}, (None, "http://i")),
        ({"model": "b.gguf"}, {"server": "http://h"}, ("b.gguf", None)),
    ],
)
def test_the_backend_is_the_recorded_one_unless_another_is_named(
    given: dict[str, str], recorded: dict[str, str | None], wanted: tuple[str | None, str | None]
) -> None:
    """A model's name means nothing to a server that may not have it."""
    settings = resumed_settings(replace(SETTINGS, **given), replace(PAST, choice=recorded))  # type: ignore[arg-type]
    assert (settings.model, settings.server) == wanted
    assert settings.repo == Path("/r")


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[Workspace]:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/m.py").write_text("x = 1\n")
    opened = await open_workspace(tmp_path / "repo", state_dir=tmp_path / "state")
    yield opened
    await opened.discard()


def _past(output: str = DONE, **more: object) -> Past:
    items = (CustomToolCall("c1", "apply_patch", INSERT), CustomToolCallOutput("c1", output))
    return replace(replace(PAST, items=items, missing=("c1",)), **more)  # type: ignore[arg-type]


async def test_a_patch_of_the_last_moments_is_put_in_again(workspace: Workspace) -> None:
    """It had ended well, and what was kept of the work does not have it."""
    assert (await put_back(workspace, _past())).lost == ()
    assert (workspace.path / "m.py").read_text() == "x = 1\ny = 2\n"


async def test_a_patch_of_a_function_call_is_put_in_again(workspace: Workspace) -> None:
    call = FunctionCall("c1", "apply_patch", '{"input": "' + INSERT.replace("\n", "\\n") + '"}')
    items = (call, FunctionCallOutput("c1", DONE))
    assert (await put_back(workspace, replace(_past(), items=items))).lost == ()
    assert (workspace.path / "m.py").read_text() == "x = 1\ny = 2\n"


@pytest.mark.parametrize(
    "past",
    [
        _past(missing=()),
        _past(unsure=frozenset({"c1"})),
        _past(masked=frozenset({"c1"})),
        _past(CUT_TEXT),
        _past("The patch was refused."),
    ],
    ids=["is there", "may be there", "held a secret", "was cut", "was refused"],
)
async def test_nothing_is_done_twice_or_made_up(workspace: Workspace, past: Past) -> None:
    """Where it is not certain that the work lacks it, the model is told instead."""
    lost = (await put_back(workspace, past)).lost
    assert (workspace.path / "m.py").read_text() == "x = 1\n"
    is_over = not past.missing or past.items[1] == CustomToolCallOutput(
        "c1", "The patch was refused."
    )
    assert lost == (() if is_over else ("c1",))


async def test_what_a_command_did_in_the_last_moments_is_lost(workspace: Workspace) -> None:
    items = (FunctionCall("c1", "exec_command", "{}"), FunctionCallOutput("c1", "Success."))
    past = replace(PAST, items=items, missing=("c1",))
    assert (await put_back(workspace, past)).lost == ("c1",)


@pytest.mark.parametrize("arguments", ["{", "{}", '{"input": 3}', "no patch"])
async def test_arguments_that_are_no_patch(workspace: Workspace, arguments: str) -> None:
    items = (CustomToolCall("c1", "apply_patch", arguments), CustomToolCallOutput("c1", DONE))
    assert (await put_back(workspace, replace(_past(), items=items))).lost == ("c1",)
