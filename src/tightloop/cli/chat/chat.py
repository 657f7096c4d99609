"""The chat itself: keys and events go into the controller, what it wants done is done here.

::

    keys ----> Controller ----> operations ----> Conversation (turns, commands), Screen
    events --> Transcript ----> rows               ^ its answers are inputs again

Everything is on one event loop; tasks live in one group, which ends with ``run``.
"""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightloop.agent import events as said
from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.painter import Size
from tightloop.agent.terminal.styled import Line, Role, line
from tightloop.agent.terminal.terminal import Terminal
from tightloop.agent.terminal.wrapping import wrap
from tightloop.agent.turn import Status
from tightloop.cli.chat.asking import Asking
from tightloop.cli.chat.completing import Completing, listed_paths
from tightloop.cli.chat.controller import Applying, Controller, Ending, Phase
from tightloop.cli.chat.conversation import Conversation, Opened, Wanted
from tightloop.cli.chat.durations import counted
from tightloop.cli.chat.figures import SessionFigures
from tightloop.cli.chat.jobs import Done, Jobs, compacted_text, recap
from tightloop.cli.chat.mailbox import Message
from tightloop.cli.chat.operations import (
    Answer,
    CancelJob,
    Interrupt,
    Operation,
    Print,
    Quit,
    Run,
    Send,
    Steer,
    Suspend,
)
from tightloop.cli.chat.picture import Moment, picture
from tightloop.cli.chat.plain import PlainNews
from tightloop.cli.chat.racing import Racing
from tightloop.cli.chat.status import Gauges, turn_text
from tightloop.cli.chat.transcript import Transcript
from tightloop.harness.backend import UsageError
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.policies import PolicyError
from tightloop.trace.clock import Clock

if TYPE_CHECKING:
    from tightloop.agent.steering import Steer as Steering
    from tightloop.agent.turn import TurnResult

TICK_S = 0.25
"""How often a running time is shown anew."""
APPLYING = {"read-only": Applying.NEVER, "full": Applying.AUTO}
"""By approval mode; in all others the user is asked."""


class Chat:
    """One chat at a terminal. An ``Audience`` of the harness."""

    is_json = False

    def __init__(
        self,
        terminal: Terminal,
        editor: Editor,
        controller: Controller,
        wanted: Wanted,
        clock: Clock,
    ) -> None:
        self.controller = controller
        self.clock = clock
        self.gauges = Gauges()
        self.failure = ""
        """Why there is no conversation; empty if there is one."""
        self.is_terminated = False
        """Whether a signal ended it."""
        self.log_path: Path | None = None
        self._terminal = terminal
        self._screen = terminal.screen
        self._editor = editor
        self._wanted = wanted
        self._transcript = Transcript(clock)
        self._figures = SessionFigures()
        self._asking = Asking(self)
        self._conversation = Conversation(self, self._asking, self._opened)
        self._racing = Racing()
        self._jobs = Jobs(self._conversation, self._figures, wanted.settings, self._racing)
        self._steers: dict[str, tuple[int, Steering]] = {}
        self._turn: asyncio.Task[TurnResult] | None = None
        self._following: asyncio.Task[None] | None = None
        self._job: asyncio.Task[None] | None = None
        self._quitting = asyncio.Event()
        self._crash: BaseException | None = None
        self._thread_id = self._resumable_id = ""
        self._phase = controller.phase
        self._phase_ns = clock.now_ns()
        self._ticking: asyncio.TimerHandle | None = None
        self._plain = PlainNews()

    # -- its life

    async def run(self, completing: Completing) -> None:
        """Until the user leaves, or nothing could be opened. Raises what crashed."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_crash)
        self._screen.on_frame = self._frame
        self._terminal.attach(self.press, self.terminate)
        if not self._terminal.has_keys:
            loop.add_signal_handler(signal.SIGINT, self.press, Key("ctrl-c"))
        self._changed()
        async with asyncio.TaskGroup() as group:
            self._group = group
            host = group.create_task(self._host(), name="conversation")
            paths = group.create_task(self._list_paths(completing), name="paths")
            await self._quitting.wait()
            paths.cancel()
            await self._stop_work()
            await self._note_end()
            self._conversation.close()
            await asyncio.wait([host])
        if self._ticking is not None:
            self._ticking.cancel()
        for text in self.farewell():
            self.note(text)
        if self._crash is not None:
            raise self._crash

    def end(self) -> None:
        """Leave, as if the user had asked for it."""
        self.controller.phase = Phase.CLOSING
        self._quitting.set()

    def terminate(self) -> None:
        """A signal: the terminal is gone, or was given back already."""
        self.is_terminated = True
        self.end()

    def farewell(self) -> list[str]:
        """What the user should know afterwards: nothing is lost, and where it is."""
        mailbox, pending = self.controller.mailbox, self.controller.pending
        unsent = [*mailbox.steering, *mailbox.waiting]
        texts = [f"not sent: {message.text}" for message in unsent]
        if pending:
            texts.append(f"{counted(len(pending), 'changed file')} not applied, kept with it")
        if self._resumable_id:
            texts.append(f"go on with: tightloop --resume {self._resumable_id}")
        return texts

    async def _host(self) -> None:
        try:
            await self._conversation.host(self._wanted)
        except (UsageError, SandboxError, PolicyError) as error:
            self.failure = str(error)
        except OSError as error:
            self.failure = f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
        finally:
            self.end()

    async def _list_paths(self, completing: Completing) -> None:
        completing.paths = await listed_paths(self._wanted.settings.repo)

    def _on_crash(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised: without this the chat would go on half dead."""
        error = context.get("exception")
        self._crash = self._crash or error or RuntimeError(str(context.get("message")))
        self.end()

    async def _stop_work(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
        if self._job is not None:
            self._job.cancel()
        tasks = [task for task in (self._following, self._job) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _note_end(self) -> None:
        """What can be gone on with."""
        opened = self._conversation.opened
        if opened is not None and opened.was_used:
            self._resumable_id = opened.thread.id

    # -- inputs

    def press(self, key: Key) -> None:
        """A key of the terminal."""
        self.do(self.controller.press(key, self.clock.now_ns()))

    def note(self, text: str) -> None:
        """See ``Audience``."""
        self._print([line(text, Role.DIM)])

    def listen(self, event: said.Event) -> None:
        """See ``Audience``."""
        self.gauges.trouble = ""
        if isinstance(event, said.Steered):
            self._steered(event)
        elif isinstance(event, said.Compacted):
            self._print([line(compacted_text(event.tokens_before, event.tokens_after), Role.DIM)])
        elif isinstance(event, said.Retrying):
            tries = f"try {event.attempt} of {event.max_attempts}"
            self.gauges.trouble = f"{event.reason}: {tries} in {event.wait_s:.0f} s"
        else:
            self._transcript.hear(event)
            self._note_test(event)
        self._screen.touch()

    def _steered(self, event: said.Steered) -> None:
        if event.state == "delivered" and event.id in self._steers:
            number, _ = self._steers.pop(event.id)
            self.do(self.controller.delivered(number, event.step))

    def _note_test(self, event: said.Event) -> None:
        from tightloop.agent.tools.exec_command import is_test_run

        item = event.item if isinstance(event, said.ItemCompleted) else None
        if isinstance(item, said.CommandExecution) and is_test_run(item.command):
            self.gauges.test_level = item.how or "cold"

    def _opened(self, opened: Opened) -> None:
        thread = opened.thread
        self.log_path = thread.log.path
        self.gauges.model = thread.labels["model"]
        self.gauges.backend = thread.labels["backend"]
        self.gauges.isolation = thread.labels["isolation"]
        self._set_mode(str(thread.gate.mode))
        if opened.past is not None and self._thread_id != thread.id:
            self._print(recap(opened.past))
        self._thread_id = thread.id
        self._group.create_task(self._begin(), name="begin")

    async def _begin(self) -> None:
        """Of a conversation that goes on, some changes may not be applied yet."""
        self.do(self.controller.opened(await self._pending()))

    def _set_mode(self, mode: str) -> None:
        self.gauges.mode = mode
        self.controller.applying = APPLYING.get(mode, Applying.ASK)

    async def _pending(self) -> tuple[str, ...]:
        try:
            return await self._jobs.pending()
        except (SandboxError, OSError) as error:
            self._print([line(f"what has changed is unknown: {error}", Role.ERROR)])
            return ()

    # -- operations

    def do(self, operations: Sequence[Operation]) -> None:
        """Do what the controller wants."""
        for operation in operations:
            self._do(operation)
        self._changed()

    def _do(self, operation: Operation) -> None:
        if isinstance(operation, Print):
            self._print(operation.lines)
        elif isinstance(operation, Send):
            self._begin_turn(operation.message)
        elif isinstance(operation, Steer):
            self._steer(operation.message)
        elif isinstance(operation, Interrupt):
            if self._turn is not None:
                self._turn.cancel()
        elif isinstance(operation, Run):
            self._begin_job(operation)
        elif isinstance(operation, CancelJob):
            if self._job is not None:
                self._job.cancel()
        elif isinstance(operation, Answer):
            self._asking.answer(operation.question_id, operation.key)
        elif isinstance(operation, Suspend):
            self._terminal.suspend()
        elif isinstance(operation, Quit):
            self.end()

    def _begin_turn(self, message: Message) -> None:
        thread = self._conversation.thread
        turn = self._racing.run_turn(thread, message.text, self.note)
        self._turn = self._group.create_task(turn, name="turn")
        self._following = self._group.create_task(self._follow(self._turn), name="end of turn")

    async def _follow(self, turn: "asyncio.Task[TurnResult]") -> None:
        """Waits for its end, however it comes. Steers that were not sent are the controller's again."""
        await asyncio.wait([turn])
        agent = self._conversation.thread.agent
        result = agent.last_result if turn.cancelled() else turn.result()
        for _number, steer in self._steers.values():
            agent.withdraw(steer)
        self._steers.clear()
        self._turn = None
        self._transcript.end()
        if result is not None:
            self._count(result)
        is_well = result is not None and result.status is Status.COMPLETED
        ending = Ending(is_well, await self._pending())
        self.do(self.controller.turn_ended(ending, self.clock.now_ns()))
        self._screen.draw()  # whoever has pressed Esc waits for this, not for the frame rate

    def _count(self, result: "TurnResult") -> None:
        thread = self._conversation.thread
        cost = self.gauges.cost = self._figures.add(result)
        use = thread.agent.context_use
        self.gauges.context_tokens, self.gauges.context_window = use.num_tokens, use.window
        if result.status is not Status.CANCELLED:
            self._print([line(turn_text(cost), Role.DIM)])

    def _steer(self, message: Message) -> None:
        if self._racing.mode is not None:  # it tells every candidate, or the next turn
            self._racing.mode.steer(message.text)
            self.do(self.controller.delivered(message.number, None))
            return
        steer = self._conversation.thread.agent.steer(message.text)
        self._steers[steer.id] = (message.number, steer)

    def _begin_job(self, wanted: Run) -> None:
        task = self._group.create_task(self._run_job(wanted), name=f"/{wanted.name}")
        if not wanted.is_aside:
            self._job = task

    async def _run_job(self, wanted: Run) -> None:
        try:
            done = await self._jobs.run(wanted.name, wanted.argument)
        except asyncio.CancelledError:
            done = Done([line(f"/{wanted.name}: interrupted", Role.ERROR)])
        if done.mode is not None:
            self._set_mode(done.mode)
        if wanted.is_aside:
            self._print(done.lines)
            return
        self._job = None
        ended = self.controller.job_ended(self.clock.now_ns(), done.lines, pending=done.pending)
        self.do(ended)

    # -- the screen

    def _print(self, lines: Sequence[Line]) -> None:
        """Below what has been said so far."""
        width = self._screen.size.columns
        wrapped = [part for row in lines for part in wrap(row, width, 2)]
        self._screen.append([*self._transcript.settled(width), *wrapped])

    def _frame(self, size: Size) -> None:
        self._screen.append(self._transcript.settled(size.columns))
        num = self._racing.num
        self.gauges.race = f"next: race of {num}" if num > 1 else ""
        if self._conversation.opened is not None:
            self.gauges.checks = self._conversation.thread.checks.state
        moment = Moment((self.clock.now_ns() - self._phase_ns) / 1e9)
        shown = picture(self.controller, self._editor, self._transcript, self.gauges, moment, size)
        self._screen.set_live(*shown)

    def _changed(self) -> None:
        """The controller may show something else now."""
        if self.controller.phase is not self._phase:
            self._phase, self._phase_ns = self.controller.phase, self.clock.now_ns()
        if self._screen.is_plain:
            self._screen.append(self._plain.news(self.controller))
        self._screen.touch()
        self._tick()

    def _tick(self) -> None:
        """Running times go on; nothing wakes up while nothing runs."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        if self.controller.is_busy or self.controller.phase is Phase.OPENING:
            loop = asyncio.get_running_loop()
            self._ticking = loop.call_later(TICK_S, self._changed)
