from pathlib import Path

import pytest

from benchmarks.lab.processes import NotStarted
from benchmarks.workshop.tool_calls import (
    OURS,
    TESTS,
    WARM_UP,
    Agent,
    Call,
    check,
    script,
    shell,
    write_script,
)
from tightloop.engine.script_file import load_script


def test_each_edit_is_followed_by_its_tests(tmp_path: Path) -> None:
    """Commands first, then patch and tests in turn; the server can play what is written."""
    calls = script(2, 1)
    kinds = [call.kind for call in calls]
    assert kinds[: 2 * (2 + WARM_UP)] == ["true"] * 4 + ["true, login false"] * 4
    assert kinds[2 * (2 + WARM_UP) :] == ["apply_patch", TESTS] * (1 + WARM_UP)
    patches = [call.arguments for call in calls if call.argv is None]
    assert len(set(map(str, patches))) == len(patches)
    model, _, path = write_script(calls, tmp_path / "script.json").partition(":")
    assert model == "scripted"
    assert callable(load_script(Path(path)))


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["Process exited with code 1"], "tightloop exec, true: 'Process exited"),
        ([], "made 0 of 1 calls"),
    ],
)
def test_a_call_that_went_wrong_is_no_measurement(
    outputs: list[str], words: str, tmp_path: Path
) -> None:
    agent = Agent(OURS, None, tmp_path, gaps_ns=[1] * len(outputs), outputs=outputs)
    with pytest.raises(NotStarted, match=words):
        check(agent, [shell("true", ("true",))])


def test_calls_that_went_well_pass(tmp_path: Path) -> None:
    """Each kind by its own words, as either agent says them."""
    calls = [shell("true", ("true",)), Call("apply_patch", "apply_patch", "", None)]
    calls.append(shell(TESTS, ("python",)))
    outputs = ["Exit code: 0\nOutput:", "Success. Updated", "....\n20 passed in 0.03s"]
    check(Agent(OURS, None, tmp_path, gaps_ns=[1, 1, 1], outputs=outputs), calls)
