"""Where messages are; that none is lost or sent twice is tested with the keys, in test_controller_runs."""

from tightloop.cli.chat.mailbox import Mailbox, Message


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


def test_waiting_messages_go_out_in_order() -> None:
    box = Mailbox()
    box.queue("a")
    box.queue("b")
    sent = [box.take_next(), box.take_next(), box.take_next()]
    assert [message and message.text for message in sent] == ["a", "b", None]


def test_every_message_has_a_number_of_its_own() -> None:
    box = Mailbox()
    numbers = [box.send("a").number, box.queue("b").number, box.steer("c").number]
    numbers.append(box.queue_urgent("d").number)
    assert len(set(numbers)) == 4


def test_a_delivered_steer_is_gone() -> None:
    box = Mailbox()
    steer = box.steer("a")
    assert box.delivered(steer.number) == steer
    assert box.delivered(steer.number) is None
    box.turn_ended(is_well=True)
    assert box.waiting == []


def test_steers_that_were_not_delivered_go_out_next() -> None:
    box = Mailbox()
    box.queue("queued")
    box.steer("first")
    box.steer("second")
    assert box.turn_ended(is_well=True) == []
    assert texts(box.waiting) == ["first", "second", "queued"]
    assert box.steering == []
    assert not box.is_held


def test_they_can_be_returned_instead() -> None:
    box = Mailbox()
    box.queue("queued")
    box.steer("steer")
    assert texts(box.turn_ended(is_well=False, returns=True)) == ["steer"]
    assert texts(box.waiting) == ["queued"]


def test_after_a_bad_end_messages_wait_for_the_user() -> None:
    box = Mailbox()
    box.queue("a")
    box.turn_ended(is_well=False)
    assert box.is_held
    assert box.take_next() is None
    box.release()
    assert box.take_next() == Message(1, "a")


def test_nothing_is_held_when_nothing_waits() -> None:
    box = Mailbox()
    box.turn_ended(is_well=False)
    assert not box.is_held


def test_urgent_messages_go_out_though_others_are_held() -> None:
    """In their own order, before the others; the others stay held."""
    box = Mailbox()
    box.queue("old")
    box.queue_urgent("now")
    box.queue_urgent("then")
    box.steer("steer")
    box.turn_ended(is_well=False)
    assert texts(box.waiting) == ["now", "then", "steer", "old"]
    sent = [box.take_next(), box.take_next(), box.take_next()]
    assert [message and message.text for message in sent] == ["now", "then", None]
    assert box.is_held


def test_promote_takes_the_oldest() -> None:
    box = Mailbox()
    assert box.promote() is None
    box.queue("a")
    box.queue("b")
    assert box.promote() == Message(1, "a")
    assert texts(box.steering) == ["a"]
    assert texts(box.waiting) == ["b"]


def test_take_back_leaves_nothing() -> None:
    box = Mailbox()
    box.queue("a")
    box.queue_urgent("b")
    box.turn_ended(is_well=False)
    assert texts(box.take_back()) == ["b", "a"]
    assert (box.waiting, box.is_held) == ([], False)
    box.queue("c")
    assert box.take_next() == Message(3, "c")
