import pytest

from benchmarks.workshop.interleaved import Table, in_turn, timed


async def test_variants_take_turns_and_the_first_round_does_not_count() -> None:
    """Each once a round; what a variant says is what is kept."""
    asked: list[str] = []

    def variant(name: str) -> object:
        async def sample() -> float:
            asked.append(name)
            return float(len(asked))

        return sample

    samples = {name: variant(name) for name in "ab"}
    took = await in_turn(samples, 3)  # type: ignore[arg-type]
    assert [sorted(asked[at : at + 2]) for at in range(0, 8, 2)] == [["a", "b"]] * 4
    assert sorted(took["a"] + took["b"]) == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


async def test_a_timed_action_takes_time() -> None:
    async def action() -> None:
        sum(range(1000))

    assert await timed(action)() > 0


def test_a_floor_is_subtracted_round_by_round_and_ratios_are_of_others_only() -> None:
    table = Table()
    took = {
        "itself": [1.0, 2.0, 3.0],
        "tightloop": [2.0, 4.0, 6.0],
        "tightloop, bash": [9.0, 9.0, 9.0],
        "bubblewrap": [20.0, 20.0, 60.0],
    }
    table.add(took, ["tightloop"], floor="itself", files=300)
    figures = {row.variant: row.figures for row in table.rows}
    assert {row.params["files"] for row in table.rows} == {300}
    assert figures["tightloop"]["over the command"].median == pytest.approx(2.0)
    assert "over the command" not in figures["itself"]
    assert [(each.of, each.over, each.median) for each in table.ratios] == [
        ("itself", "tightloop", 0.5),
        ("bubblewrap", "tightloop", 10.0),
    ]
    assert {each.name for each in table.ratios} == {"time 300"}


def test_what_was_not_measured_is_a_row_with_its_reason() -> None:
    table = Table()
    table.miss("codex", "not installed", call="true")
    [row] = table.rows
    assert (row.variant, row.missing, row.figures) == ("codex", "not installed", {})
