"""The trajectory of the rounds: what is said, how long it is, and what counts as a round."""

from pathlib import Path

import orjson
import pytest

from benchmarks.workshop.rounds import CALLS, WARM_UP, answers, script, walls_ms
from benchmarks.workshop.tool_calls import OURS, TESTS, Agent
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.paced import in_tokens
from tightloop.engine.script_file import parse_script
from tightloop.protocol.items import FunctionCallOutput, user_message


def test_a_round_has_the_tokens_that_it_is_said_to_have() -> None:
    """Within what dividing the thought leaves over; the server can play it."""
    calls = script(2)
    assert [call.kind for call in calls] == ["read", "apply_patch", TESTS] * (2 + WARM_UP)
    data = orjson.dumps({"answers": answers(calls, 300), "tokens_per_s": 1000})
    play = parse_script(data)
    for first in range(0, len(calls), CALLS):
        num_tokens = 0
        for number in range(first, first + CALLS):
            outputs = [FunctionCallOutput(f"c{n}", "fine") for n in range(number)]
            request = GenerationRequest("r", "scripted", None, (user_message("go"), *outputs))
            num_tokens += in_tokens(play(request))[-1][0]
        assert num_tokens == pytest.approx(300, abs=4 * CALLS)


def test_calls_that_are_longer_than_a_round_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 20 tokens"):
        answers(script(1), 20)


def test_a_round_goes_from_its_first_request_to_the_tests_output(tmp_path: Path) -> None:
    """Not counting the time in which another agent had its turn."""
    agent = Agent(OURS, None, tmp_path)
    agent.passed_ns = [0, 1, 2, 100_000_000, 5, 6, 900_000_000]
    agent.arrived_ns = [0, 1, 2, 50_000_000, 5, 6, 340_000_000]
    assert walls_ms(agent, 1) == [240.0]
