import os
import subprocess
import sys
from pathlib import Path

from benchmarks.lab.processes import NotStarted
from benchmarks.lab.record import read
from benchmarks.peers import round_trip
from benchmarks.peers.field import Field
from benchmarks.peers.gateways import Gateway, Upstream, direct

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def test_a_quick_run_measures_and_writes(tmp_path: Path) -> None:
    """Everything real: the upstream, our server, both clients; the result has rows and ratios."""
    argv = [sys.executable, "-m", "benchmarks.peers", "--quick", "--only", "round-trip"]
    argv += ["--gateway", "direct", "--gateway", "tightloop scripted", "--results", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("not measured")) == (0, 0), done.stderr
    found = read(tmp_path / "round-trip.json")
    apis = ("chat", "responses", "responses new", "websocket")
    for size in round_trip.QUICK_SIZES:
        for api in apis:
            assert found.row("direct", api=api, history=size).figures["ttft"].n == 4
            ours = found.row("tightloop scripted", api=api, history=size)
            assert ours.figures["cpu"].min > 0
            assert ours.figures["rss"].median > 10
    sent = {size: found.row("direct", api="chat", history=size).figures["sent"].median for size in
            round_trip.QUICK_SIZES}  # fmt: skip
    assert sent["50k"] > 5 * sent["1k"]
    assert found.row("direct", api="websocket", history="50k").figures["sent"].median < 8
    idle = found.row("direct", api="chat", history=round_trip.idle_label(round_trip.QUICK_IDLE_S))
    assert idle.figures["reconnected"].median == 0
    if len(os.sched_getaffinity(0)) > 1:
        pinned = found.row("tightloop scripted, pinned", api="websocket", history="1k")
        assert pinned.figures["cpu"].min > 0
        assert "added" not in pinned.figures
    assert {ratio.over for ratio in found.ratios} == {"tightloop scripted, websocket"}
    assert done.stdout.startswith(found.title)


def test_what_cannot_be_started_is_said_and_the_rest_is_measured() -> None:
    def broken(_upstream: Upstream) -> object:
        raise NotStarted("the port is gone")

    def absent() -> str:
        raise NotStarted("not installed; make peers installs it")

    gateways = [
        Gateway("direct", direct, lambda: "1"),
        Gateway("broken", broken, lambda: "2"),  # type: ignore[arg-type]
        Gateway("absent", direct, absent),
    ]
    said: list[str] = []
    with Field(gateways, said.append) as field:
        assert list(field.doors) == ["direct"]
        field.pace(0.0, 3)
        assert field.counts() == {}
        with field.fresh("direct") as door:
            assert door.port == field.doors["direct"].port
    reasons = {"broken": "the port is gone", "absent": "not installed; make peers installs it"}
    assert field.missing == reasons
    assert "broken: not measured: the port is gone" in said
