"""A thread that is opened in the background, and anew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.chat.pseudo_terminal import script_file
from tests.harness.audience import Listening
from tightloop.agent.approval.interface import DENY, ApprovalRequest, Decision
from tightloop.cli.chat.conversation import Conversation, Opened, Wanted
from tightloop.harness.backend import UsageError
from tightloop.harness.settings import Settings


class Nobody:
    """Declines whatever is asked."""

    async def ask(self, request: ApprovalRequest) -> Decision:
        return DENY


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "repo").mkdir()
    model = script_file(tmp_path / "script.json", [[{"text": "Hello."}]])
    return Settings(
        repo=tmp_path / "repo", state_dir=tmp_path / "state", model=model, sandbox="none"
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Conversation]:
    """A conversation that is open; closed afterwards."""
    is_open = asyncio.Event()
    conversation = Conversation(Listening(), Nobody(), lambda _opened: is_open.set())
    host = asyncio.create_task(conversation.host(Wanted(settings)))
    await asyncio.wait([host, asyncio.create_task(is_open.wait())], return_when="FIRST_COMPLETED")
    try:
        yield conversation
    finally:
        conversation.close()
        await host


async def test_the_same_one_with_another_model(settings: Settings) -> None:
    other = script_file(settings.state_dir.parent / "other.json", [[{"text": "Another."}]])
    async with opened(settings) as conversation:
        await conversation.thread.run_turn("hi")
        thread_id = conversation.thread.id
        await conversation.switch(conversation.present.again(model=other))
        assert conversation.thread.id == thread_id
        assert (await conversation.thread.run_turn("who?")).text == "Another."


async def test_one_in_which_nothing_was_said_begins_anew(settings: Settings) -> None:
    async with opened(settings) as conversation:
        assert conversation.present.again() == Wanted(settings, None)


async def test_what_cannot_be_opened_leaves_the_former(settings: Settings) -> None:
    async with opened(settings) as conversation:
        await conversation.thread.run_turn("hi")
        thread_id = conversation.thread.id
        with pytest.raises(UsageError, match="no engine 'no-such'"):
            await conversation.switch(conversation.present.again(model="no-such"))
        assert conversation.thread.id == thread_id
        with pytest.raises(UsageError, match="nowhere"):
            await conversation.switch(Wanted(settings, "nowhere"))
        assert (await conversation.thread.run_turn("still there?")).text == "Hello."


async def test_the_first_one_that_cannot_be_opened(settings: Settings) -> None:
    opened_ones: list[Opened] = []
    conversation = Conversation(Listening(), Nobody(), opened_ones.append)
    with pytest.raises(UsageError, match="no engine"):
        await conversation.host(Wanted(replace(settings, model="no-such")))
    assert opened_ones == []


async def test_closed_while_it_is_being_opened(settings: Settings) -> None:
    conversation = Conversation(Listening(), Nobody(), lambda _opened: None)
    host = asyncio.create_task(conversation.host(Wanted(settings)))
    await asyncio.sleep(0)  # it has begun
    conversation.close()
    with suppress(asyncio.CancelledError):
        await host
    assert conversation.opened is None
