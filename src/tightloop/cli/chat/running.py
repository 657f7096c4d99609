"""The event loop around a chat, and what is said when it is over."""

import asyncio
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.printable import printable
from tightloop.agent.terminal.terminal import Terminal
from tightloop.cli.chat.chat import Chat
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.completing import Completing
from tightloop.cli.chat.controller import Controller
from tightloop.cli.chat.conversation import Wanted
from tightloop.cli.chat.exit_status import BAD_USAGE, CRASHED, DONE, INTERRUPTED
from tightloop.cli.chat.stray_output import stray_output
from tightloop.cli.thread_options import thread_settings
from tightloop.trace.clock import MonotonicClock
from tightloop.trace.log import new_log_path

if TYPE_CHECKING:
    import argparse


def run_chat(
    terminal: Terminal,
    editor: Editor,
    completing: Completing,
    arguments: "argparse.Namespace",
) -> int:
    """The exit status. The terminal is as it was when this returns with anything but 0."""
    settings = thread_settings(arguments, verb="chat")
    wanted = Wanted(settings, arguments.resume, arguments.repo)
    stray_path = new_log_path(settings.state_dir, "chat-stderr").with_suffix(".txt")
    controller = Controller(editor, COMMANDS)
    chat = Chat(terminal, editor, controller, wanted, MonotonicClock())
    if arguments.prompt:
        controller.post(arguments.prompt)  # waits in the mailbox until all is open
    try:
        with stray_output(stray_path):
            logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
            asyncio.run(chat.run(completing))
    except Exception as error:  # noqa: BLE001 - whatever it was, the terminal is given back and it is said
        terminal.close()
        path = new_log_path(settings.state_dir, "chat-crash").with_suffix(".txt")
        _tell_crash(error, path, chat)
        return CRASHED
    if chat.failure:
        terminal.close()
        _tell_left(chat)
        print(f"tightloop: {printable(chat.failure)}", file=sys.stderr)
        return BAD_USAGE
    if chat.is_terminated:
        _tell_left(chat)
        return INTERRUPTED
    return DONE


def _tell_crash(error: Exception, path: Path, chat: Chat) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    _tell_left(chat)
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    last = "".join(traceback.format_exception_only(cause)).strip()
    print(f"tightloop: crashed: {printable(last)}", file=sys.stderr)
    print(f"details: {path}", file=sys.stderr)
    if chat.log_path is not None:
        print(f"log: {chat.log_path}", file=sys.stderr)


def _tell_left(chat: Chat) -> None:
    for text in chat.farewell():
        print(printable(text), file=sys.stderr)
