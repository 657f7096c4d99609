import sys

import pytest

from benchmarks.net.child import ChildError, called, ready_child, run_child


async def test_a_ready_child_ends_with_its_standard_input() -> None:
    """Leaving the block closes it; the child's last act is to leave by itself."""
    script = "import sys; print('{\"url\": 1}', flush=True); sys.stdin.read()"
    async with ready_child([sys.executable, "-c", script]) as ready:
        assert ready == {"url": 1}


async def test_a_child_that_ends_before_it_is_ready_is_an_error() -> None:
    with pytest.raises(ChildError, match="ended before it was ready"):
        async with ready_child([sys.executable, "-c", "pass"]):
            raise AssertionError("it never was ready")


async def test_the_last_line_is_the_result() -> None:
    script = "import os; print('progress'); print(f'[{os.environ[\"NUMBER\"]}]')"
    assert await run_child([sys.executable, "-c", script], 30.0, {"NUMBER": "7"}) == [7]


async def test_a_child_that_fails_says_its_status() -> None:
    with pytest.raises(ChildError, match="failed with status 3"):
        await run_child([sys.executable, "-c", "raise SystemExit(3)"], 30.0)


def test_a_command_is_named_by_the_module_that_it_ends_up_running() -> None:
    inside = ["python", "-m", "benchmarks.net.inside", "/proc/7/fd/3", "python", "-m", "a.b", "-x"]
    assert called(inside) == "a.b"
    assert called(["true"]) == "true"
