"""What the proxy of a sandbox decided: into the run's log, and refusals to the user."""

from tightloop.agent.terminal.printable import printable
from tightloop.harness.audience import Audience
from tightloop.sandbox.proxy import Decision
from tightloop.trace.log import RunLog


class DecisionLog:
    """A listener for ``way_out``. What comes before there is a log is written when there is one."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._log: RunLog | None = None
        self._waiting: list[Decision] = []
        self._told: set[tuple[str, int]] = set()

    def __call__(self, decision: Decision) -> None:
        """Take one decision; the user hears of each refused destination once."""
        if self._log is None:
            self._waiting.append(decision)
        else:
            self._log.write("network", decision=decision)
        destination = (decision.host, decision.port)
        if not decision.is_allowed and destination not in self._told:
            self._told.add(destination)
            self._audience.note(f"network: refused: {printable(decision.reason)}")

    def attach(self, log: RunLog) -> None:
        """Write to this log from now on."""
        self._log = log
        for decision in self._waiting:
            log.write("network", decision=decision)
        self._waiting.clear()

    def detach(self) -> None:
        """The log is about to be closed; what still comes is only told to the user."""
        self._log = None
