"""What a reader of events needs and the agent need not know: which turn, and where a piece belongs."""

import msgspec

from tightloop.agent import events as said


class Marks:
    """Adds ``turn_id`` to the events of a turn's ends, and ``offset`` to pieces. One conversation's.

    Turn ids count the turns of this process: ``turn_1``, ``turn_2``, ...
    """

    def __init__(self) -> None:
        self.turn_id: str | None = None
        """The running turn; None between turns."""
        self._num_turns = 0
        self._lengths: dict[str, int] = {}

    def __call__(self, event: said.Event) -> said.Event:
        """The event as it is told. Cheap: it is called for each piece of text."""
        if isinstance(event, said.ItemUpdated):
            return self._placed(event)
        if isinstance(event, said.ItemCompleted):
            self._lengths.pop(event.item.id, None)
        elif isinstance(event, said.TurnStarted):
            self._num_turns += 1
            self.turn_id = f"turn_{self._num_turns}"
            self._lengths.clear()
            return said.TurnStarted(self.turn_id)
        elif isinstance(event, said.TurnCompleted | said.TurnFailed):
            ended, self.turn_id = self.turn_id, None
            return msgspec.structs.replace(event, turn_id=ended)
        return event

    def _placed(self, event: said.ItemUpdated) -> said.ItemUpdated:
        piece = event.text_delta or event.output_delta or event.patch_delta
        if not piece:
            return event
        offset = self._lengths.get(event.item.id, 0)
        self._lengths[event.item.id] = offset + len(piece)
        return msgspec.structs.replace(event, offset=offset)
