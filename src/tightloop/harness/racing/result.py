"""The result of a turn that several attempts, or several models, have worked on."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from tightloop.agent import events as said
from tightloop.agent.turn import Status, TurnResult
from tightloop.protocol.deltas import Usage


@dataclass(frozen=True, slots=True)
class RacedResult(TurnResult):
    """A ``TurnResult`` whose times are those of the attempt that was taken, whose usage is that of all.

    ``models`` is empty when there was only one.
    """

    race: said.RaceFigures | None = None
    models: tuple[said.ModelFigures, ...] = ()

    def closing_event(self) -> said.TurnCompleted | said.TurnFailed:
        """See ``TurnResult.closing_event``; a failed one has its figures, too."""
        plain = TurnResult.closing_event(self)
        if isinstance(plain, said.TurnCompleted) and plain.tightloop is not None:
            figures = structs.replace(plain.tightloop, race=self.race, models=self.models)
            return structs.replace(plain, tightloop=figures)
        figures = said.TurnFigures(
            len(self.round_trips), self.wall_s, race=self.race, models=self.models
        )
        return structs.replace(plain, tightloop=figures)


def usage_of(candidates: Sequence[said.CandidateFigures]) -> Usage:
    """All tokens of them together, as far as servers have counted them."""
    return Usage(
        sum(one.input_tokens for one in candidates),
        sum(one.cached_input_tokens for one in candidates),
        sum(one.output_tokens for one in candidates),
    )


def race_figures(
    mode: str,
    num_wanted: int,
    command: str | None,
    green_s: float | None,
    candidates: Sequence[said.CandidateFigures],
    taken: int | None,
) -> said.RaceFigures:
    """The ledger of a race; ``taken`` is the candidate whose work was kept."""
    used = [one for one in candidates if one.number == taken]
    wasted = [one for one in candidates if one.number != taken]
    return said.RaceFigures(
        mode=mode,
        num_wanted=num_wanted,
        num_started=len(candidates),
        num_cancelled=sum(one.outcome == "cancelled" for one in candidates),
        winner=next((one.number for one in candidates if one.outcome == "won"), None),
        taken=taken,
        command=command,
        green_s=None if green_s is None else round(green_s, 6),
        used_tokens=sum(one.new_tokens for one in used),
        wasted_tokens=sum(one.new_tokens for one in wasted),
        used_cpu_s=round(sum(one.cpu_s for one in used), 3),
        wasted_cpu_s=round(sum(one.cpu_s for one in wasted), 3),
        candidates=tuple(candidates),
    )


def summary(race: said.RaceFigures) -> str:
    """One line for a person, such as ``race: 3 candidates, #2 won after 1.8 s; ...``."""
    what = "candidate" if race.num_started == 1 else "candidates"
    if race.winner is not None and race.green_s is not None:
        end = f"#{race.winner} won after {race.green_s:.1f} s"
    elif race.taken is not None:
        end = f"none passed, #{race.taken} is kept"
    else:
        end = "none passed"
    line = f"{race.mode}: {race.num_started} {what}, {end}"
    if len(race.candidates) > 1:
        line += (
            f"; {_thousands(race.wasted_tokens)} tokens and {race.wasted_cpu_s:.1f} s of processor "
            "time of the others wasted"
        )
    return line


def models_line(models: Sequence[said.ModelFigures]) -> str:
    """One line for a person: what each model took."""
    return "; ".join(
        f"{one.role} {one.model}: {one.wall_s:.1f} s in {one.num_responses} responses, "
        f"{_thousands(one.output_tokens)} tokens written"
        for one in models
    )


def _thousands(number: int) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else str(number)


def worst_of(results: Sequence[TurnResult]) -> Status:
    """How a turn without a winner ended: its own limit tells more than a failure."""
    ends = {result.status for result in results}
    for status in (Status.TIMEOUT, Status.MAX_TURNS):
        if ends == {status}:
            return status
    return Status.FAILED
