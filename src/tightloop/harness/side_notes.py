"""What is found out beside the agent: told to a person at once, to a program as an event, and logged."""

from tightloop.agent import events as said
from tightloop.agent.terminal.printable import printable
from tightloop.harness.audience import Audience
from tightloop.trace.log import RunLog


class SideNotes:
    """Takes notes of a workshop, such as that a verdict could not be checked.

    Events and log lines begin with ``attach``: what came before is told then.
    """

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._log: RunLog | None = None
        self._waiting: list[str] = []
        self._num_events = 0

    def __call__(self, text: str) -> None:
        """Take one note."""
        self._audience.note(printable(text))
        if self._log is None:
            self._waiting.append(text)
        else:
            self._tell(self._log, text)

    def attach(self, log: RunLog) -> None:
        """The first event has been told; write to this log from now on."""
        self._log = log
        for text in self._waiting:
            self._tell(log, text)
        self._waiting.clear()

    def detach(self) -> None:
        """The log is about to be closed; what still comes is only told to a person."""
        self._log = None

    def _tell(self, log: RunLog, text: str) -> None:
        log.write("note", text=text)
        if self._audience.is_json:
            item = said.ErrorItem(f"note_{self._num_events}", text)
            self._num_events += 1
            self._audience.listen(said.ItemCompleted(item))
