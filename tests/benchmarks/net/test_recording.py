from pathlib import Path

import orjson
import pytest

from benchmarks.net.recording import recording
from tightloop.agent.patch.apply import apply_patch
from tightloop.bench.bugs import MODULE, Bug, choose, load_bugs
from tightloop.engine.script_file import parse_script


@pytest.mark.parametrize("bug", choose(load_bugs(), 5, seed=3), ids=lambda bug: bug.id)
def test_every_patch_applies_and_the_last_one_repairs(bug: Bug, tmp_path: Path) -> None:
    """Even rounds leave the original text below a comment, odd ones the bug."""
    script = recording(bug, 6)
    parse_script(orjson.dumps(script))
    target = tmp_path / MODULE
    target.write_text(bug.buggy_module, "utf-8")
    rounds = [answer for answer in script["answers"] if len(answer) == 3]
    assert len(rounds) == 6
    for number, (_, patch, tests) in enumerate(rounds, start=1):
        outcome = apply_patch(patch["call"]["arguments"], tmp_path)
        assert outcome.is_ok, outcome.as_text()
        _, _, text = target.read_text("utf-8").partition("\n")
        assert (bug.buggy_module if number % 2 else bug.module) == text
        assert tests["call"]["name"] == "exec_command"


def test_the_answer_of_a_round_follows_both_outputs_of_the_one_before() -> None:
    """The script engine counts outputs: round n comes after 2n, the last word after all."""
    answers = recording(load_bugs()[0], 4)["answers"]
    assert [len(answer) for answer in answers] == [3, 1, 3, 1, 3, 1, 3, 1, 1]


@pytest.mark.parametrize("num_rounds", [0, 1, 7])
def test_an_odd_number_of_rounds_is_refused(num_rounds: int) -> None:
    with pytest.raises(ValueError, match=f"not {num_rounds}"):
        recording(load_bugs()[0], num_rounds)
