"""An audience that remembers."""

from dataclasses import dataclass, field

from tightloop.agent.events import Event


@dataclass
class Listening:
    """All that was said."""

    is_json: bool = False
    notes: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def note(self, text: str) -> None:
        """See ``Audience``."""
        self.notes.append(text)

    def listen(self, event: Event) -> None:
        """See ``Audience``."""
        self.events.append(event)
