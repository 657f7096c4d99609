"""The decision log: two lines a response, written off the hot path."""

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from tests.engine.collecting import ask, request, start
from tests.engine.fleet.members import Backend, error, group, started
from tightloop.engine.fleet.decisions import DecisionLog
from tightloop.engine.fleet.policy import Price
from tightloop.engine.scripted import text_answer
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.trace.log import read_log


async def test_a_failover_can_be_read(tmp_path: Path) -> None:
    """Where it went, why, what failed before, how it ended and what it cost."""
    path = tmp_path / "decisions.jsonl"
    price = Price(Decimal(2), Decimal(1), Decimal(10))
    a, b = Backend("a"), Backend("b", price=price)
    a.says = [error("upstream_error")]
    usage = Usage(input_tokens=1000, cached_tokens=400, output_tokens=100)
    b.says = [*text_answer("b"), Finished(FinishReason.STOP, usage)]
    fleet = await started(group("m", a, b), recorder=DecisionLog(path))
    await ask(fleet, replace(request(name="r"), model="m", cache_key="k", service_tier="auto"))
    await fleet.close()
    begun, decided, ended, closed = read_log(path)
    assert (begun["kind"], closed["kind"]) == ("run.started", "run.ended")
    assert decided["kind"] == "route.decided"
    assert decided["failures"][0].pop("after_s") >= 0
    wanted = {
        "response_id": "r", "parent_id": None, "session": "k", "model": "m",
        "policy": "latency-first", "backend": "b", "tier": "fast",
        "reason": "b answers, because a failed: upstream_error;"
        " a had been chosen: cheaper ($0.000000, b $0.012000)",
        "ranked": ["a", "b"],
        "failures": [{"member": "a", "code": "upstream_error",
                      "message": "upstream_error happened"}],
        "asked_tier": "auto", "is_background": False, "expected_output": 400,
    }  # fmt: skip
    assert {name: decided[name] for name in wanted} == wanted
    assert ended["kind"] == "route.ended"
    assert (ended["backend"], ended["outcome"], ended["code"]) == ("b", "stop", None)
    assert Decimal(ended["cost_usd"]) == Decimal("0.0026")
    assert 0 <= ended["first_delta_s"] <= ended["total_s"]


async def test_nothing_is_written_before_the_first_delta_is_out(tmp_path: Path) -> None:
    """The line comes in a later step of the loop."""
    path = tmp_path / "decisions.jsonl"
    a = Backend("a")
    fleet = await started(group("m", a), recorder=DecisionLog(path))
    seen: list[int] = []
    answer = start(fleet, replace(request(), model="m"))
    while not answer.batches:
        seen.append(len(path.read_bytes().splitlines()))
        await answer.first.wait()
    assert set(seen) == {1}
    await answer.wait()
    await fleet.close()


async def test_a_disk_that_fails_ends_the_log_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line in the program's log; the answers go on."""
    a = Backend("a")
    reader, writer = os.pipe()
    log = DecisionLog(Path(f"/proc/self/fd/{writer}"))
    os.close(writer)
    os.close(reader)  # from now on nothing can be written
    fleet = await started(group("m", a), recorder=log)
    assert (await ask(fleet, replace(request("r"), model="m"))).text == "a"
    assert (await ask(fleet, replace(request("s"), model="m"))).text == "a"
    await fleet.close()
    assert len([r for r in caplog.records if "it ends here" in r.message]) == 1
