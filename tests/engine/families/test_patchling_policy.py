"""The policy, step by step, against a client played from recorded texts."""

import json
import re
from collections.abc import Sequence

import pytest

from tests.engine.families import recorded_pytest as recorded
from tightloop.engine.families.client_tools import PatchTool, ShellTool
from tightloop.engine.families.patchling_policy import (
    DEFAULT_COMMAND,
    Repair,
    Run,
    Say,
    Step,
    grep_command,
    next_step,
)
from tightloop.engine.families.patchling_policy import test_command as command_in
from tightloop.engine.families.v4a import reapply, write_patch
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    user_message,
)

SHELL = ShellTool("exec_command")
PATCH = PatchTool("apply_patch", is_custom=True)


def clamp_run() -> str:
    """The recorded run with the failure of ``clamp`` alone."""
    head, tail = re.split(r"_+ test_total\[", recorded.LONG, maxsplit=1)
    summary = tail.index("=========================== short")
    kept = [
        line
        for line in tail[summary:].splitlines()
        if not line.startswith("FAILED") or "test_clamp" in line
    ]
    return head + "\n".join(kept).replace("5 failed, 1 passed", "1 failed, 5 passed") + "\n"


class Client:
    """Plays the client: files, test outputs in turn, and patches applied for real."""

    def __init__(
        self, asked: str, runs: Sequence[str], files: dict[str, str] | None = None
    ) -> None:
        self.items: list[Item] = [user_message(asked)]
        self.files = dict(
            files or {"pkg/mathy.py": recorded.SOURCE, "test_mathy.py": recorded.TESTS}
        )
        self.runs = list(runs)
        self.steps: list[Step] = []
        self.patch_output = "Success. Updated the following files:\nM pkg/mathy.py\n"

    def step(self, max_candidates: int = 3) -> Step:
        step = next_step(self.items, SHELL, PATCH, max_candidates=max_candidates)
        again = next_step(list(self.items), SHELL, PATCH, max_candidates=max_candidates)
        assert step == again
        self.steps.append(step)
        return step

    def run(self, step: Step) -> None:
        assert isinstance(step, Run)
        name = f"call_{len(self.items)}"
        self.items.append(FunctionCall(name, SHELL.name, SHELL.arguments(step.command)))
        self.items.append(
            FunctionCallOutput(
                name, f"Process exited with code 0\nOutput:\n{self._shell(step.command)}"
            )
        )

    def _shell(self, command: str) -> str:
        if command.startswith("cat "):
            path = command.removeprefix("cat ")
            return self.files.get(path, f"cat: {path}: No such file or directory")
        if command.startswith("grep "):
            names = re.search(r"def \((.*?)\)", command)
            assert names is not None
            wanted = re.compile(rf"def ({names[1]})\b")
            hits = [
                f"./{path}:{number}:{line}"
                for path, text in self.files.items()
                for number, line in enumerate(text.splitlines(), 1)
                if wanted.search(line)
            ]
            return "\n".join(hits)
        return self.runs.pop(0)

    def patch(self, repair: Step, target: str) -> None:
        assert isinstance(repair, Repair)
        patch = write_patch(repair.path, repair.current, target, def_line=repair.def_line - 1)
        name = f"call_{len(self.items)}"
        self.items.append(CustomToolCall(name, "apply_patch", patch))
        self.items.append(CustomToolCallOutput(name, self.patch_output))
        after = reapply(patch, self.files[repair.path])
        if after is not None and self.patch_output.startswith("Success"):
            self.files[repair.path] = after

    def until_repair(self) -> Repair:
        for _ in range(6):
            step = self.step()
            if isinstance(step, Repair):
                return step
            self.run(step)
        raise AssertionError(f"no repair in {self.steps}")


def replaced(repair: Repair, old: str, new: str) -> str:
    return repair.with_function(repair.source.replace(old, new))


def test_a_traceback_leads_straight_to_the_file() -> None:
    client = Client("fix the tests", [recorded.LONG])
    repair = client.until_repair()
    assert client.steps[:2] == [Run(DEFAULT_COMMAND), Run("cat pkg/mathy.py")]
    assert (repair.path, repair.name) == ("pkg/mathy.py", "total")
    assert repair.source.startswith("def total(values):")
    assert repair.source.endswith("return result")
    assert repair.tried == ()


def test_a_failing_assertion_is_looked_up_by_name() -> None:
    client = Client("make `python -m pytest -q tests` pass", [clamp_run()])
    repair = client.until_repair()
    assert client.steps[:3] == [
        Run("python -m pytest -q tests"),
        Run(grep_command(["clamp"])),
        Run("cat pkg/mathy.py"),
    ]
    assert repair.name == "clamp"
    assert repair.source.startswith("def clamp(")


def test_a_test_that_shows_no_call_is_read_itself() -> None:
    run = (
        "F\n=== FAILURES ===\n____ TestRaises.test_bad ____\n\n    def test_bad(self):\n"
        ">       with pytest.raises(ValueError):\nE       Failed: DID NOT RAISE ValueError\n\n"
        "test_mathy.py:28: Failed\n=== short test summary info ===\n"
        "FAILED test_mathy.py::TestRaises::test_bad - Failed\n1 failed, 5 passed in 0.02s\n"
    )
    client = Client("fix the bug", [run])
    repair = client.until_repair()
    assert client.steps[1] == Run("cat test_mathy.py")
    assert repair.name == "clamp"


def test_after_a_patch_the_tests_run_and_a_pass_ends_it() -> None:
    client = Client("fix the tests", [clamp_run(), "6 passed in 0.01s"])
    repair = client.until_repair()
    client.patch(repair, replaced(repair, "return high", "return low"))
    step = client.step()
    assert step == Run(DEFAULT_COMMAND)
    client.run(step)
    assert client.step() == Say(f"Fixed: `{DEFAULT_COMMAND}` passes now.")


def test_a_failed_attempt_is_taken_back_with_the_next_one() -> None:
    client = Client("fix the tests", [clamp_run(), clamp_run()])
    first = client.until_repair()
    wrong = replaced(first, "value < low", "value > low")
    client.patch(first, wrong)
    client.run(client.step())
    second = client.step()
    assert isinstance(second, Repair)
    assert second.original == recorded.SOURCE
    assert second.current == wrong == client.files["pkg/mathy.py"]
    assert second.tried == (wrong,)
    right = replaced(second, "value > high", "value >= high")
    client.patch(second, right)
    assert client.files["pkg/mathy.py"] == right
    assert "value < low" in right


def test_after_the_last_candidate_the_file_is_restored_and_said_so() -> None:
    client = Client("fix the tests", [clamp_run(), clamp_run()])
    repair = client.until_repair()
    client.patch(repair, replaced(repair, "value < low", "value > low"))
    client.run(client.step(max_candidates=1))
    last = client.step(max_candidates=1)
    assert isinstance(last, Repair)
    assert not last.may_continue
    client.patch(last, last.original)
    assert client.files["pkg/mathy.py"] == recorded.SOURCE
    end = client.step(max_candidates=1)
    assert isinstance(end, Say)
    assert end.text.startswith("I could not fix `clamp` in pkg/mathy.py: none of 1 attempt ")
    assert "The file is as it was." in end.text


def test_progress_on_one_test_moves_on_to_the_next() -> None:
    """``total`` is repaired: its tests pass, the others still fail."""
    after = clamp_run()
    client = Client("fix the tests", [recorded.LONG, after, "6 passed in 0.01s"])
    first = client.until_repair()
    fixed = replaced(first, "vv", "v")
    client.patch(first, fixed)
    client.run(client.step())
    second = client.until_repair()
    assert second.name == "clamp"
    assert second.original == second.current == fixed
    client.patch(second, replaced(second, "return high", "return low"))
    client.run(client.step())
    assert isinstance(client.step(), Say)


def test_a_half_repair_is_no_progress() -> None:
    """Fewer tests fail, but one of them still leads to the function: the next try starts afresh."""
    one_left = clamp_run()
    section = one_left[one_left.index("____") : one_left.index("=========================== short")]
    twice = one_left.replace(section, section + section.replace("test_clamp", "test_clamp_low"))
    summary = next(line for line in one_left.splitlines() if line.startswith("FAILED"))
    low = summary.replace("test_clamp", "test_clamp_low")
    both = twice.replace(summary, f"{summary}\n{low}").replace("1 failed, 5", "2 failed, 4")
    client = Client("fix the tests", [both, one_left.replace("test_clamp", "test_clamp_low")])
    repair = client.until_repair()
    client.patch(repair, replaced(repair, "value < low", "value > low"))
    client.run(client.step())
    following = client.step()
    assert isinstance(following, Repair)
    assert following.original == recorded.SOURCE
    assert len(following.tried) == 1


@pytest.mark.parametrize(
    "output",
    [
        f"Wall time: 0.42 seconds\nProcess exited with code 1\nOutput:\n{clamp_run()}",
        f"Wall time: 9 s\n{clamp_run()}\nProcess exited with code 1\nWall time: 0.42 seconds",
    ],
)
def test_a_repair_that_never_ends_is_a_failed_one(output: str) -> None:
    """Its test run gets a deadline from the first run's time; the next candidate follows."""
    client = Client("fix the tests", [clamp_run(), ""])
    repair = client.until_repair()
    client.items[2] = FunctionCallOutput(
        client.items[2].call_id,  # type: ignore[union-attr]
        output,
    )
    client.patch(repair, replaced(repair, "value < low", "value > low"))
    again = client.step()
    assert again == Run(DEFAULT_COMMAND, timeout_s=10)
    client.run(again)
    following = client.step()
    assert isinstance(following, Repair)
    assert len(following.tried) == 1


def test_a_regression_is_no_progress() -> None:
    worse = clamp_run().replace("test_clamp", "test_other")
    client = Client("fix the tests", [clamp_run(), worse])
    repair = client.until_repair()
    client.patch(repair, replaced(repair, "value < low", "value > low"))
    client.run(client.step())
    assert isinstance(client.step(), Repair)


def test_a_refused_patch_stops_it() -> None:
    client = Client("fix the tests", [clamp_run()])
    client.patch_output = "context not found in pkg/mathy.py"
    repair = client.until_repair()
    client.patch(repair, replaced(repair, "value < low", "value > low"))
    assert client.step() == Say(
        "My patch was not applied, so I stop here: context not found in pkg/mathy.py"
    )


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("6 passed in 0.01s", "passes: there is nothing to repair"),
        ("bash: line 1: python: command not found\n", "python: command not found"),
        ("1 failed in 0.1s", "does not show where"),
        (recorded.BROKEN_IMPORT, "pytest cannot load test_broken.py: ModuleNotFoundError"),
        ("no tests ran in 0.00s", "finds no tests"),
        ("=== no tests ran in 0.00s ===", "finds no tests"),
    ],
)
def test_runs_that_end_at_once(run: str, expected: str) -> None:
    client = Client("fix the tests", [run], {"test_broken.py": "import nothing_here\n"})
    for _ in range(4):
        step = client.step()
        if isinstance(step, Say):
            break
        client.run(step)
    assert isinstance(step, Say)
    assert expected in step.text


def test_a_file_that_cannot_be_read_or_has_no_function_there() -> None:
    client = Client("fix the tests", [recorded.LONG], {"a.py": ""})
    client.run(client.step())
    client.run(client.step())
    assert client.step() == Say("I cannot read pkg/mathy.py, which the failing test leads to.")
    client = Client("fix the tests", [recorded.LONG], {"pkg/mathy.py": "x = 1\n" * 20})
    client.run(client.step())
    client.run(client.step())
    step = client.step()
    assert isinstance(step, Say)
    assert "line 16 of pkg/mathy.py, which is not inside a function" in step.text


def test_a_file_that_the_client_shortened() -> None:
    text = recorded.SOURCE.replace(
        "    for v in values:\n", "[... 90 bytes in 3 lines left out ...]\n"
    )
    client = Client("fix the tests", [recorded.LONG], {"pkg/mathy.py": text})
    client.run(client.step())
    client.run(client.step())
    step = client.step()
    assert isinstance(step, Say)
    assert "pkg/mathy.py is too long" in step.text


def test_methods_with_decorators_are_taken_whole() -> None:
    source = (
        "class A:\n    @property\n    def size(self):\n        def inner():\n            return 1\n"
        "        return inner() + missing\n\n    def other(self):\n        pass\n"
    )
    run = (
        "=== FAILURES ===\n____ test_a ____\ntest_a.py:3: in test_a\n    assert A().size == 2\n"
        "a.py:6: in size\n    return inner() + missing\nE   NameError: name 'missing'\n"
        "=== short test summary info ===\nFAILED test_a.py::test_a\n1 failed in 0.1s\n"
    )
    repair = Client("fix the tests", [run], {"a.py": source}).until_repair()
    assert (repair.first_line, repair.def_line, repair.last_line) == (2, 3, 6)
    assert repair.name == "size"
    assert repair.with_function(repair.source) == source


@pytest.mark.parametrize("asked", ["hello", "write me a website", ""])
def test_anything_else_gets_the_skill_explained(asked: str) -> None:
    step = next_step([user_message(asked)], SHELL, PATCH)
    assert isinstance(step, Say)
    assert "demo model" in step.text
    assert "remote:MODEL@https://host/v1" in step.text


@pytest.mark.parametrize(
    ("shell", "patch", "missing"),
    [(None, PATCH, "a shell tool"), (SHELL, None, "an apply_patch tool")],
)
def test_a_client_without_the_tools_is_told(
    shell: ShellTool | None, patch: PatchTool | None, missing: str
) -> None:
    step = next_step([user_message("fix the tests")], shell, patch)
    assert isinstance(step, Say)
    assert step.text.startswith(f"I need {missing}")


def test_a_new_request_starts_over() -> None:
    client = Client("fix the tests", ["6 passed in 0.1s"])
    client.run(client.step())
    assert isinstance(client.step(), Say)
    client.items.append(user_message("now fix `pytest other`"))
    assert client.step() == Run("pytest other")


def test_a_call_without_its_output_is_made_again() -> None:
    client = Client("fix the tests", [])
    client.items.append(FunctionCall("c", SHELL.name, SHELL.arguments(DEFAULT_COMMAND)))
    assert client.step() == Run(DEFAULT_COMMAND)


def test_calls_of_other_tools_are_passed_over() -> None:
    client = Client("fix the tests", [])
    client.items.append(FunctionCall("c", "search", json.dumps({"q": 1})))
    client.items.append(FunctionCallOutput("c", "3 passed in 0.1s"))
    client.items.append(FunctionCall("d", SHELL.name, SHELL.arguments("ls")))
    client.items.append(FunctionCallOutput("d", "3 passed in 0.1s"))
    assert client.step() == Run(DEFAULT_COMMAND)


@pytest.mark.parametrize(
    "text",
    [
        "`" * 200_000 + "pytest",
        "pytest " + "a" * 200_000,
        "a" * 200_000 + " pytest",
        ("a" * 1900 + " pytest\n") * 1000,
    ],
    ids=["backticks", "long-word", "long-word-first", "many-lines"],
)
def test_a_command_is_looked_for_within_bounds(text: str) -> None:
    """Every session waits meanwhile; without bounds these took minutes."""
    assert command_in(f"{text}\n\nnow") == DEFAULT_COMMAND
    assert command_in(f"{text}\n\nrun `pytest -x`") == "pytest -x"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("make the tests pass", DEFAULT_COMMAND),
        ("run `pytest -x tests/a.py` and fix it", "pytest -x tests/a.py"),
        ("```bash\n$ uv run pytest -q\n```", "uv run pytest -q"),
        ("```\ncd sub && python -m pytest\n```", "cd sub && python -m pytest"),
        ("pytest fails, please fix", DEFAULT_COMMAND),
        (
            "fix what python3.12 -m pytest tests/unit -q shows.",
            "python3.12 -m pytest tests/unit -q",
        ),
        ("please run pytest tests/test_a.py::test_b, it fails", "pytest tests/test_a.py::test_b"),
    ],
)
def test_the_command_a_user_names(text: str, command: str) -> None:
    assert command == command_in(text)
