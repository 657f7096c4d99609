"""73x: Codex CLI and a conversation that has grown too long."""

import pytest

from tests.e2e.codex import Codex, items
from tests.e2e.conftest import Serve
from tests.e2e.relay import Event, Relay
from tests.e2e.stock_clients import Home
from tests.e2e.test_codex import Script, answer_ids, kinds

pytestmark = pytest.mark.timeout(120)

LIMIT = 4000
SUMMARY = "Summarize this conversation"
"""How the server asks its engine for a summary."""


def answers(num_input: int) -> list[object]:
    """A command whose answer used ``num_input`` tokens, then the last word."""
    command = {"call": {"name": "exec_command", "arguments": {"cmd": "echo seen > shell.txt"}}}
    return [[command, {"usage": {"input_tokens": num_input}}], [{"text": "all done"}]]


async def test_730_the_server_sums_up_when_codex_asks_for_it(
    serve: Serve, script: Script, home: Home
) -> None:
    """A request that ends in a trigger gets one compaction item, with which a new chain begins."""
    replies = {
        SUMMARY: [{"text": "the file has been written"}],
        "the file has been written": [{"text": "all done"}],
    }
    served = serve("--model", script(answers(2 * LIMIT), **replies))
    async with Relay(served.url) as relay:
        codex = Codex(
            home,
            relay.url,
            relay.origin,
            options=(f"model_auto_compact_token_limit = {LIMIT}",),
            provider=("[model_providers.tightloop.capabilities]", 'remote_compaction = "v2"'),
        )
        done = (await codex.exec()).well()
    assert [message["text"] for message in items(done, "agent_message")] == ["all done"]
    assert len(items(done, "command_execution")) == 1
    (socket,) = relay.sockets
    *_, asking, after = socket.creates
    assert kinds(asking) == ["function_call_output", "compaction_trigger"]
    made = next(e["response"] for e in socket.received if is_end_of(e, answer_ids(socket)[2]))
    assert [item["type"] for item in made["output"]] == ["compaction"]
    assert "previous_response_id" not in after
    assert after["input"][-1] == made["output"][0]


def is_end_of(event: Event, response_id: str) -> bool:
    """Whether it is the end of one response."""
    is_end = event["type"] == "response.completed"
    return is_end and bool(event["response"]["id"] == response_id)
