"""The user's messages on their way to the model.

A message is in exactly one place: *waiting* behind the turn, *steering* (the agent has accepted it
for the turn that runs), gone (the agent has sent it), or back with the user. None is lost and none
goes twice, whatever the order of keys and turn ends is; nothing that moves messages lives elsewhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message; ``number`` is its own in this process."""

    number: int
    text: str


class Mailbox:
    """``waiting`` go out as turns of their own, in order; those that are *held* only when asked."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.steering: list[Message] = []
        self.is_held = False
        """Whether ``waiting`` waits for the user: a turn did not end well."""
        self._num_urgent = 0
        self._num_posted = 0

    def queue(self, text: str) -> Message:
        """Behind all others."""
        message = self._posted(text)
        self.waiting.append(message)
        return message

    def queue_urgent(self, text: str) -> Message:
        """Before the others, and behind those that came so before; goes out though others are held."""
        message = self._posted(text)
        self.waiting.insert(self._num_urgent, message)
        self._num_urgent += 1
        return message

    def send(self, text: str) -> Message:
        """It goes out at once."""
        return self._posted(text)

    def steer(self, text: str) -> Message:
        """The agent is about to accept it for the turn that runs."""
        message = self._posted(text)
        self.steering.append(message)
        return message

    def promote(self) -> Message | None:
        """The oldest that waits becomes a steer; None when none waits."""
        if not self.waiting:
            return None
        message = self._pop()
        self.steering.append(message)
        return message

    def delivered(self, number: int) -> Message | None:
        """The agent has sent a steer; None when it is none of these."""
        for message in self.steering:
            if message.number == number:
                self.steering.remove(message)
                return message
        return None

    def turn_ended(self, *, is_well: bool, returns: bool = False) -> list[Message]:
        """No turn runs. Steers that were not sent wait before all others, but for urgent ones; with
        ``returns`` they are the user's again, and returned here."""
        left, self.steering = self.steering, []
        at = self._num_urgent
        if not returns:
            self.waiting[at:at] = left
        if not is_well:
            self.is_held = len(self.waiting) > at
        return left if returns else []

    def release(self) -> None:
        """What waits goes out as soon as it can."""
        self.is_held = False

    def take_next(self) -> Message | None:
        """The one to go out now, if one may."""
        if not self.waiting or (self.is_held and not self._num_urgent):
            return None
        return self._pop()

    def take_back(self) -> list[Message]:
        """All that wait, for the user."""
        taken, self.waiting = self.waiting, []
        self._num_urgent, self.is_held = 0, False
        return taken

    def _pop(self) -> Message:
        self._num_urgent = max(0, self._num_urgent - 1)
        message = self.waiting.pop(0)
        self.is_held = self.is_held and bool(self.waiting)
        return message

    def _posted(self, text: str) -> Message:
        self._num_posted += 1
        return Message(self._num_posted, text)
