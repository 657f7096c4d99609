"""The harness's thread behind the chat: opened in the background, and anew for another model or past.

One task enters and leaves what is open. ``switch`` closes it and opens another; when that fails, what
was there before is opened again.
"""

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tightloop.harness.audience import Audience
from tightloop.harness.settings import Settings

if TYPE_CHECKING:
    from tightloop.agent.approval.interface import Approver
    from tightloop.harness.past import Past
    from tightloop.harness.thread import Thread


@dataclass(frozen=True, slots=True)
class Wanted:
    """``thread_id`` is a past conversation to go on with, or ``last``; None begins a new one.

    ``repository`` is the directory that was named for it, if one was.
    """

    settings: Settings
    thread_id: str | None = None
    repository: Path | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """What is open; ``past`` if it goes on with one."""

    thread: "Thread"
    settings: Settings
    past: "Past | None"

    @property
    def was_used(self) -> bool:
        """Whether anything was said in it; else it is not kept."""
        return self.past is not None or self.thread.agent.last_result is not None

    def again(self, model: str | None = None) -> Wanted:
        """The same conversation opened once more, perhaps with another model."""
        settings = self.settings if model is None else replace(self.settings, model=model)
        return Wanted(settings, self.thread.id if self.was_used else None)


class Conversation:
    """At most one open thread. ``host`` must run all the time; ``close`` ends it."""

    def __init__(
        self, audience: Audience, approver: "Approver", on_open: Callable[[Opened], None]
    ) -> None:
        self.opened: Opened | None = None
        self._audience = audience
        self._approver = approver
        self._on_open = on_open
        self._next: asyncio.Future[Wanted | None] | None = None
        self._switched: asyncio.Future[None] | None = None
        self._refusal: Exception | None = None
        self._host: asyncio.Task[None] | None = None

    @property
    def present(self) -> Opened:
        """What is open. Only while a turn or a command may run."""
        assert self.opened is not None, "asked for while nothing is open"
        return self.opened

    @property
    def thread(self) -> "Thread":
        """The open one."""
        return self.present.thread

    async def host(self, wanted: Wanted) -> None:
        """Open what is wanted, now and later. Raises why the first one cannot be opened."""
        self._host = asyncio.current_task()
        # In a thread: what is typed meanwhile is shown.
        await asyncio.to_thread(importlib.import_module, "tightloop.harness.thread")
        before: Wanted | None = None
        going: Wanted | None = wanted
        while going is not None:
            try:
                before, going = await self._keep_open(going)
            except Exception as error:
                if before is None or self._switched is None:
                    raise
                self._refusal = error
                before, going = None, before

    async def _keep_open(self, wanted: Wanted) -> tuple[Wanted, Wanted | None]:
        """Until another one is wanted, or none: the one that was open, the one that is wanted."""
        from tightloop.harness.thread import open_thread

        settings, past = wanted.settings, None
        if wanted.thread_id is not None:
            settings, past = await asyncio.to_thread(_chosen, wanted, wanted.thread_id)
        self._next = asyncio.get_running_loop().create_future()
        async with open_thread(
            settings, self._audience, past=past, approver=self._approver
        ) as thread:
            self.opened = opened = Opened(thread, settings, past)
            self._settle()
            self._on_open(opened)
            try:
                going = await self._next
            finally:
                self.opened = None
            before = opened.again()
        return before, going

    async def switch(self, wanted: Wanted) -> None:
        """Close what is open, open this. Raises why it could not; then the former is open again."""
        assert self._next is not None, "nothing is open"
        self._switched = asyncio.get_running_loop().create_future()
        self._next.set_result(wanted)
        await self._switched

    def close(self) -> None:
        """Nothing is wanted any more; ``host`` ends. What is only being opened is given up."""
        if self.opened is None and self._host is not None:
            self._host.cancel()
        elif self._next is not None and not self._next.done():
            self._next.set_result(None)

    def _settle(self) -> None:
        """Something is open: what was wanted, or again what was there before."""
        switched, self._switched = self._switched, None
        refusal, self._refusal = self._refusal, None
        if switched is None or switched.done():
            return
        if refusal is None:
            switched.set_result(None)
        else:
            switched.set_exception(refusal)


def _chosen(wanted: Wanted, thread_id: str) -> "tuple[Settings, Past]":
    """Raises UsageError, also when there is none."""
    from tightloop.harness.resuming import choose, resumed_settings

    past = choose(wanted.settings.state_dir, thread_id, wanted.repository)
    return resumed_settings(wanted.settings, past), past
