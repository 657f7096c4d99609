"""93x: warm test runs of real projects say what cold ones say, whatever was edited."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.warm import projects
from benchmarks.warm.equality import check_all, report, split
from benchmarks.warm.projects import PROJECTS
from benchmarks.warm.sources import Source, body_of
from benchmarks.warm.verdict import Answer
from tests.e2e.conftest import command

COMMAND_LIMIT_S = 250.0
SEED = 5
NUM_EDITS = 60


@pytest.fixture
def place() -> Iterator[Path]:
    """Not below pytest's own directory: a pytest in a sandbox tidies up what is called that."""
    with tempfile.TemporaryDirectory(prefix="equivalence-") as directory:
        yield Path(directory)


@pytest.mark.timeout(1800)
async def test_930_no_edit_makes_a_warm_verdict_another_than_the_cold_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeded edits of click, flask, attrs and sympy, the share of each level printed; `make equivalence` has 600."""
    answers: list[Answer] = []
    wanted = {name: range(num) for name, num in split(NUM_EDITS, list(PROJECTS)).items()}
    await check_all(wanted, SEED, place, answers.append)
    with capsys.disabled():
        print(f"\n{report(answers)}")
    assert len(answers) >= NUM_EDITS
    assert [answer.line for answer in answers if answer.differences] == []
    taken = {answer.level.partition("-")[0] for answer in answers}
    assert {"l0", "swap"} <= taken
    assert taken & {"l1", "l2"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROJECTS)
def test_931_tightloop_test_agrees_with_its_audit_on_an_edit_that_breaks_tests(
    name: str, place: Path
) -> None:
    """What a person gets after an edit is pytest's exit code, and the cold run behind it says the same."""
    project = PROJECTS[name]
    root = projects.copy(project, place)
    test, path, function = project.timed[0]
    state = ("--state-dir", str(place / "state"))
    try:
        assert tightloop_test(root, *state, "-q", test)["exit_code"] == 0
        source = Source((root / path).read_bytes())
        node = next(each.node for each in source.functions() if each.name == function)
        text = source.insert_before(body_of(node)[0], b"raise ValueError('edited')")
        assert text is not None
        (root / path).write_bytes(text)
        said = tightloop_test(root, *state, "--audit", "-q", test)
    finally:
        call(root, *state, "--stop")
    assert said["how"].startswith("warm-")
    assert said["check"]["finding"] == "agreed"
    assert said["exit_code"] == 1
    assert said["outcomes"]["failed"] > 0


def tightloop_test(root: Path, *words: str) -> dict[str, Any]:
    """The last object that a run prints."""
    done = call(root, "--json", *words)
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def call(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One ``tightloop test``, to its end."""
    return subprocess.run(
        [*command(), "test", *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=COMMAND_LIMIT_S,
    )
