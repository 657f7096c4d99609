"""Which loop runs: the fast one unless another was asked for or it is not there."""

import asyncio
import sys

import pytest

from tightloop.cli.event_loop import run


async def kind() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@pytest.mark.parametrize(
    ("loop", "expected"), [("auto", "uvloop"), ("uvloop", "uvloop"), ("asyncio", "asyncio")]
)
def test_the_loop_asked_for_runs(loop: str, expected: str) -> None:
    assert run(kind(), loop) == expected


def test_without_uvloop_the_standard_loop_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it was asked for by name."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(kind()) == "asyncio"
    with pytest.raises(ImportError):
        run(kind(), "uvloop")
