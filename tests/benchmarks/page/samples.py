"""Small made-up results, for tests of the page."""

from benchmarks.lab.record import Experiment, Figure, Machine, Ratio, Row, Value
from benchmarks.workshop import workspaces
from benchmarks.workshop.commands import OURS
from benchmarks.workshop.trees import LARGE, SMALL
from benchmarks.workshop.warm_runs import COLD, EDITED

MACHINE = Machine(2, "a processor", "Linux 6.18", "3.11.7", 0.1)


def figure(median: float, unit: str = "ms") -> Figure:
    """A figure with a spread of a tenth."""
    return Figure(median, 0.9 * median, 1.1 * median, 0.9 * median, 9, unit)


def row(variant: str, figures: dict[str, Figure], **params: Value) -> Row:
    """A measured row."""
    return Row(variant, params, figures)


def experiment(
    name: str, rows: list[Row], ratios: list[Ratio], *, is_quick: bool = False
) -> Experiment:
    """A result of that name."""
    return Experiment(
        name=name,
        title=f"What {name} is about",
        settings={"quick": is_quick},
        machine=MACHINE,
        rows=rows,
        ratios=ratios,
        notes=[f"a note of {name}"],
        made="2026-11-23",
    )


def network() -> Experiment:
    """One distance; the reduction against the tuned baseline is small."""
    place: dict[str, Value] = {
        "rtt_ms": 50.0,
        "cc": "cubic",
        "history": "50k",
        "new_kB": 4,
        "idle_s": 0.6,
    }
    trips = {"new connection": 6.6, "kept, defaults": 3.0, "kept, tuned": 1.1, "tight": 1.02}
    rows = [
        row(way, {"ttft": figure(50 * num), "round_trips": figure(num, "RTT")}, **place)
        for way, num in trips.items()
    ]
    rows.append(row("tight, streamed", {"ttft": figure(52)}, **{**place, "new_kB": 30}))
    rows.append(Row("kept, tuned", {}, {}, missing="no device"))
    condition = "50 ms cubic 50k +4 kB idle 0.6 s"
    ratios = [
        Ratio(f"overhead {condition}", "tight", "new connection", 0.155, 0.15, 0.16, 9),
        Ratio(f"overhead {condition}", "tight", "kept, defaults", 0.34, 0.33, 0.35, 9),
        Ratio(f"overhead {condition}", "tight", "kept, tuned", 0.93, 0.9, 1.02, 9),
        Ratio(f"overhead {condition}", "tight, tuned", "kept, tuned", 0.95, 0.92, 0.99, 9),
        Ratio(
            "overhead 50 ms cubic 50k +30 kB idle 0.6 s",
            "tight, streamed",
            "new connection",
            0.25,
            0.24,
            0.26,
            9,
        ),
        Ratio("ttft 50 ms cubic random-3m", "tight", "new connection", 0.6, 0.5, 0.7, 5),
    ]
    return experiment("network", rows, ratios)


def per_token() -> Experiment:
    """Our gateway and one peer, at two rates."""
    rows = [
        row(variant, {"cpu": figure(cpu, "us/token")}, api=api, rate=rate)
        for variant, api, rate, cpu in (
            ("tightloop", "websocket", "1000/s", 18.0),
            ("tightloop", "responses", "1000/s", 36.0),
            ("litellm", "chat", "1000/s", 500.0),
            ("tightloop", "websocket", "unpaced", 4.0),
        )
    ]
    ratio = Ratio("cpu 1000/s", "tightloop, responses", "tightloop, websocket", 2.0, 1.6, 2.5, 6)
    return experiment("per-token", rows, [ratio])


def round_trip() -> Experiment:
    """Our own server at one size: much is saved against a new connection, little against a kept one."""
    ours = "tightloop scripted, websocket"
    rows = [row("tightloop scripted", {"ttft": figure(900, "us")}, api="websocket", history="1k")]
    ratios = [
        Ratio("ttft 1k", "tightloop scripted, responses new", ours, 2.0, 1.6, 2.5, 9),
        Ratio("ttft 1k", "tightloop scripted, responses", ours, 1.1, 1.0, 1.25, 9),
    ]
    return experiment("round-trip", rows, ratios)


def replay() -> Experiment:
    """Two paths over loopback."""
    rows = [
        row(
            path,
            {"wall": figure(wall, "s"), "test": figure(test, "s"), "decode": figure(3.0, "s")},
            rtt_ms=0.0,
        )
        for path, wall, test in (("classic", 23.0, 20.0), ("tight", 5.0, 2.0))
    ]
    return experiment("edit-test-replay", rows, [], is_quick=True)


def commands(over_ms: float = 0.6) -> Experiment:
    """A command in our sandbox, and in bubblewrap entered for it."""
    rows = [
        row(variant, {"time": figure(1 + over), "over the command": figure(over)}, series="quick")
        for variant, over in ((OURS, over_ms), ("bubblewrap per command", 9.0))
    ]
    ratio = Ratio("time quick", "bubblewrap per command", OURS, 6.25, 6.0, 6.5, 9)
    return experiment("workshop-commands", rows, [ratio])


def warm_runs(*times: float) -> Experiment:
    """Cold over warm of so many projects."""
    ratios = [
        Ratio(f"time project {number}", COLD, EDITED, each, each - 1, each + 1, 9)
        for number, each in enumerate(times)
    ]
    rows = [row(EDITED, {"time": figure(90)}, project="project 0")]
    return experiment("workshop-tests", rows, ratios)


def fresh(small_ms: float) -> Experiment:
    """Two ways to a fresh copy, on two trees."""
    rows = [
        row(variant, {"time": figure(median)}, step=workspaces.FRESH, files=files)
        for variant, files, median in (
            (workspaces.OURS, SMALL, small_ms),
            ("cp -a", SMALL, 80.0),
            (workspaces.OURS, LARGE, 12.0),
        )
    ]
    return experiment("workshop-workspaces", rows, [])
