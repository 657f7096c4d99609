from benchmarks.net.network import (
    Condition,
    Key,
    Outcome,
    conditions,
    impossible,
    params_of,
    ratios_of,
    rows_of,
    unmeasured,
)
from benchmarks.net.trips import KEPT, NEW, STREAMED, TIGHT, TIGHT_TUNED, TUNED, Sample


def series(way: str, ttfts: list[float]) -> list[Sample]:
    """Samples of one way."""
    return [
        Sample(
            way=way,
            history="50k",
            new_bytes=4096,
            idle_s=0.6,
            number=number,
            ttft_s=ttft,
            overhead_s=ttft - 0.001,
            round_trip_s=ttft + 0.001,
            request_bytes=5000,
        )
        for number, ttft in enumerate(ttfts)
    ]


def key(condition: Condition, way: str) -> Key:
    return condition, way, "50k", 4096, 0.6


NEAR, FAR = Condition(0, "cubic", ()), Condition(50, "cubic", ())
SAMPLES = {
    key(NEAR, NEW): series(NEW, [0.010]),
    key(NEAR, TIGHT): series(TIGHT, [0.009, 0.002]),
    key(FAR, NEW): series(NEW, [0.260, 0.260, 0.310]),
    key(FAR, TIGHT): series(TIGHT, [0.052, 0.052, 0.052]),
    key(FAR, TUNED): series(TUNED, [0.060, 0.060, 0.060]),
    key(FAR, TIGHT_TUNED): series(TIGHT_TUNED, [0.051, 0.051, 0.051]),
}


def test_round_trips_are_what_the_distance_adds() -> None:
    """In units of the distance, over the same way without it."""
    rows = {(row.variant, row.params["rtt_ms"]): row for row in rows_of(SAMPLES)}
    assert round(rows[NEW, 50].figures["round_trips"].median, 6) == 5.0
    assert round(rows[TIGHT, 50].figures["round_trips"].median, 6) == 1.0
    assert "round_trips" not in rows[TIGHT, 0].figures
    assert rows[TIGHT, 50].figures["ttft"].median == 52.0


def test_ratios_pair_the_turns_of_both_ways() -> None:
    ratio = next(each for each in ratios_of(SAMPLES) if "50 ms" in each.name)
    assert (
        ratio.name,
        ratio.of,
        ratio.over,
        ratio.num,
    ) == ("overhead 50 ms cubic 50k +4 kB idle 0.6 s", TIGHT, NEW, 3)
    assert round(0.051 / 0.259, 6) == round(ratio.median, 6)


def test_tuned_is_compared_with_tuned() -> None:
    """A tuned WebSocket over the tuned connection and over itself untuned, and nothing untuned else."""
    pairs = {(each.of, each.over) for each in ratios_of(SAMPLES) if "50 ms" in each.name}
    assert {over for of, over in pairs if of == TIGHT_TUNED} == {TUNED, TIGHT}
    assert (TIGHT, TUNED) in pairs


def test_a_cap_is_a_parameter_of_its_own() -> None:
    capped = Condition(50, "cubic", (), mbit_per_s=50)
    assert params_of(key(capped, TIGHT))["mbit_per_s"] == 50
    assert "mbit_per_s" not in params_of(key(FAR, TIGHT))


def test_all_distances_sizes_and_controls_are_planned() -> None:
    """The floor comes first; long tools, large outputs and a capped link are there."""
    planned = conditions(["cubic", "bbr"], is_quick=False)
    assert planned[0].rtt_ms == 0
    assert {(rtt, name) for rtt in (20.0, 50.0, 100.0) for name in ("cubic", "bbr")} <= {
        (each.rtt_ms, each.congestion_control) for each in planned
    }
    blocks = [block for each in planned for block in each.blocks]
    assert {0.2, 0.6, 6.0} == {block.idle_s for block in blocks}
    assert {"10k", "50k", "200k"} == {block.history for block in blocks}
    assert all((STREAMED in block.ways) == (block.new_bytes == 30_000) for block in blocks)
    assert all({TUNED, TIGHT_TUNED} <= {*block.ways} for block in blocks)
    assert [each.mbit_per_s for each in planned if each.mbit_per_s] == [50]


def test_a_link_that_failed_leaves_rows_that_say_so() -> None:
    """For its own ways only: the other link may have worked."""
    condition = conditions(["cubic"], is_quick=True)[1]
    tuned = unmeasured(condition, Outcome(is_tuned=True, samples=[], reason="no link"))
    others = unmeasured(condition, Outcome(is_tuned=False, samples=[], reason="no link"))
    assert {(row.variant, row.missing) for row in tuned} == {
        (TUNED, "no link"),
        (TIGHT_TUNED, "no link"),
    }
    assert {NEW, KEPT, TIGHT, STREAMED} == {row.variant for row in others}
    assert others[0].params == {"rtt_ms": 20.0, "cc": "cubic"}


def test_without_the_means_every_way_says_why() -> None:
    """In the table that is printed, too; nothing is left out silently."""
    made = impossible("needs root", {"quick": True})
    ways = {NEW, KEPT, TUNED, TIGHT, TIGHT_TUNED, STREAMED}
    assert ways == {row.variant for row in made.rows}
    assert made.table().count("not measured: needs root") == len(ways)
