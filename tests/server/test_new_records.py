"""What a response leaves for those that continue it."""

from tightloop.engine.interface import Node
from tightloop.protocol.deltas import Usage
from tightloop.protocol.items import Compaction, Message, TextPart, user_message
from tightloop.protocol.requests import decode_request
from tightloop.server.conversations import Record
from tightloop.server.new_records import new_chain, new_link

REQUEST = decode_request(b'{"model":"m","input":"new"}')
ANSWER = Message("assistant", (TextPart("output_text", "said"),))
PARENT = Record(Node("resp_1", None, (user_message("old"), ANSWER)), None, 1)


def test_a_link_holds_what_is_new_and_its_parent() -> None:
    usage = Usage(1, 2, 3)
    record = new_link(REQUEST, PARENT, (), Node("resp_2", None, (ANSWER,), usage))
    assert Node("resp_2", PARENT.node, (user_message("new"), ANSWER), usage) == record.node
    assert (record.parent, record.num_input) == (PARENT, 1)
    again = new_link(REQUEST, record, (), Node("resp_3", None, ()))
    assert record.settings is again.settings


def test_a_chain_begins_with_what_is_worth_keeping_and_the_summary() -> None:
    """What the assistant said is in the summary."""
    summary = Compaction("tlc1.x")
    record = new_chain(REQUEST, PARENT, (), Node("resp_2", None, (summary,)), 1000)
    assert (user_message("old"), user_message("new"), summary) == record.node.items
    assert (record.parent, record.node.parent, record.num_input) == (None, None, 2)
