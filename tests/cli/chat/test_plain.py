"""A terminal that cannot redraw is told everything once."""

from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.keys import Key
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.controller import Controller, Ending
from tightloop.cli.chat.plain import PlainNews


def test_what_is_told() -> None:
    controller, news = Controller(Editor(), COMMANDS), PlainNews()

    def told() -> list[str]:
        return [row.plain for row in news.news(controller)]

    controller.opened()
    assert told() == []
    controller.post("go")
    controller.post("steer")
    assert told() == ["will be seen at the next step"]
    assert told() == []
    controller.delivered(2, 1)
    controller.mailbox.queue("later")
    controller.mailbox.queue("and later")
    assert told() == ["queued"]
    controller.mailbox.take_back()
    controller.turn_ended(Ending(True, ("a.py",)), 0)
    assert told() == ["apply 1 file?", "[y]es  [n]o  [d]iff"]
    assert told() == []
    controller.press(Key("ctrl-c"), 0)
    assert told() == ["Ctrl-C again quits"]
