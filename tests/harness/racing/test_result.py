"""The ledger of a race, and its lines for a person."""

from tightloop.agent import events as said
from tightloop.agent.turn import Status
from tightloop.harness.racing.result import (
    RacedResult,
    models_line,
    race_figures,
    summary,
    usage_of,
)

LOSER = said.CandidateFigures(0, "cancelled", 1.0, 2, 5000, 1000, 90, 10, 0.5)
WINNER = said.CandidateFigures(1, "won", 1.5, 3, 600, 500, 50, 0, 0.25)


def test_used_and_wasted_add_up() -> None:
    """Tokens are those that were read anew or written; deltas of a cut response count as some."""
    race = race_figures("race", 3, "pytest", 1.75, [LOSER, WINNER], 1)
    assert (race.used_tokens, race.wasted_tokens) == (150, 4100)
    assert (race.used_cpu_s, race.wasted_cpu_s) == (0.25, 0.5)
    assert (race.winner, race.taken, race.num_started, race.num_cancelled) == (1, 1, 2, 1)
    assert summary(race) == (
        "race: 2 candidates, #1 won after 1.8 s; 4.1k tokens and 0.5 s of processor time of the "
        "others wasted"
    )
    usage = usage_of([LOSER, WINNER])
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (5600, 1500, 140)


def test_no_winner() -> None:
    race = race_figures("retry", 1, None, None, [LOSER], None)
    assert summary(race) == "retry: 1 candidate, none passed"
    failed = RacedResult("", Status.FAILED, [], [], 0, 5, usage_of([]), message="no", race=race)
    event = failed.closing_event()
    assert isinstance(event, said.TurnFailed)
    assert event.error.message == "no"
    assert event.tightloop is not None
    assert event.tightloop.race == race


def test_models() -> None:
    figures = said.ModelFigures("planner", "big", 2, 3.25, 1000, 0, 1500)
    assert models_line([figures]) == "planner big: 3.2 s in 2 responses, 1.5k tokens written"
