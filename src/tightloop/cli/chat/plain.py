"""What a terminal without a live region is told: questions, hints, messages that wait."""

from tightloop.agent.terminal.styled import Line, Role, line
from tightloop.cli.chat.controller import Controller


class PlainNews:
    """Remembers what it has told."""

    def __init__(self) -> None:
        self._question_id: int | None = None
        self._hint = ""
        self._num_waiting = 0

    def news(self, controller: Controller) -> list[Line]:
        """What is new since the last time."""
        rows: list[Line] = []
        question = controller.question
        question_id = None if question is None else question.id
        if question is not None and question_id != self._question_id:
            rows.append(line(question.text, Role.WARNING))
            rows += [line(f"  {detail}") for detail in question.details]
            rows.append(line(question.answers))
        if controller.hint and controller.hint != self._hint:
            rows.append(line(controller.hint, Role.DIM))
        mailbox = controller.mailbox
        num_waiting = len(mailbox.waiting) + len(mailbox.steering)
        if num_waiting > self._num_waiting:
            told = "will be seen at the next step" if mailbox.steering else "queued"
            rows.append(line(told, Role.DIM))
        self._question_id, self._hint = question_id, controller.hint
        self._num_waiting = num_waiting
        return rows
