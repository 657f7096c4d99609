"""The words of ``tightloop test``: the line after a run, and what a wrong verdict is told with."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tightloop.agent.terminal.printable import printable
from tightloop.sandbox.audited import Check, Finding
from tightloop.sandbox.interface import CommandResult
from tightloop.sandbox.verdicts import read_report
from tightloop.sandbox.warmed import Checked

LEVELS = {
    "l0": "pytest was ready, the project was imported anew",
    "l1": "the project was ready",
    "l2": "the project and its collected tests were ready",
    "swap": "the changed functions were swapped in",
    "swap-l2": "the changed functions were swapped in, the tests were collected",
}
_MAX_DIFFERENCES = 5


NO_VERDICT = "no test ran: pytest could not use this command line (exit code 4)"
"""In place of how far a verdict can be relied on."""


def duration(result: CommandResult, began_ns: int = 0) -> str:
    """How long a run took, as a person reads it; with ``began_ns``, how long they waited for it."""
    seconds = (result.ended_ns - (began_ns or result.started_ns)) / 1e9
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def level(result: CommandResult) -> str:
    """``swap`` and the like; empty for a cold run."""
    return (
        result.how.removeprefix("warm-pytest").lstrip("-") if result.how.startswith("warm") else ""
    )


def warm_line(result: CommandResult, state: str, began_ns: int = 0) -> str:
    """After a warm run; ``state`` says how far its verdict can be relied on.

    ``began_ns``, here and below, is when the command line began, by the clock of the result.
    """
    known = LEVELS.get(level(result), "")
    what = f"warm ({level(result)}) in {duration(result, began_ns)}" + (
        f": {known}" if known else ""
    )
    return f"{what}; {state}"


def cold_line(result: CommandResult, reason: str, began_ns: int = 0) -> str:
    """After a cold run."""
    return f"cold in {duration(result, began_ns)}" + (f": {printable(reason)}" if reason else "")


def checked_words(check: Check) -> str:
    """What a check that was waited for came to."""
    if check.finding is Finding.VOID:
        return f"the check says nothing: {printable(check.note)}"
    cold = duration(check.cold) if check.cold is not None else "no time"
    if check.finding is Finding.AGREED:
        return f"checked: a cold run of {cold} says the same"
    if check.finding is Finding.UNSTABLE:
        return f"not equal to a cold run of {cold}, but two cold runs differ as well"
    return f"WRONG: a cold run of {cold} says something else, and its exit code counts"


def news(check: Check) -> list[str]:
    """What a person must hear of a check; nothing when it agreed or says nothing."""
    if check.finding not in (Finding.WRONG, Finding.UNSTABLE):
        return []
    if check.finding is Finding.WRONG:
        lines = ["A WARM RUN WAS WRONG. The cold run of the same tests says:"]
    else:
        lines = ["unstable tests: they ended in two ways in two cold runs of the same files"]
    lines += [f"    {printable(str(one))}" for one in check.found[:_MAX_DIFFERENCES]]
    if len(check.found) > _MAX_DIFFERENCES:
        lines.append(f"    and {len(check.found) - _MAX_DIFFERENCES} more")
    lines += [f"    log: {log}" for log in check.logs]
    if check.finding is Finding.WRONG:
        lines.append(
            "Runs here are cold from now on, until the project's lock files change. Please report "
            "it; 'tightloop test --warm-again' allows warm runs again."
        )
    return lines


def off_reason(reason: str, logs: Iterable[str]) -> str:
    """Why runs are cold although they could be warm."""
    where = f" (logs: {' and '.join(logs)})" if logs else ""
    return (
        f"a warm run was wrong here: {printable(reason)}{where}; "
        "'tightloop test --warm-again' allows them again"
    )


def test_lines(result: CommandResult) -> list[dict[str, Any]]:
    """One object per test."""
    return [
        {"test": test, "outcome": outcome} for test, outcome in read_report(result.report).items()
    ]


def final_object(
    result: CommandResult, code: int, reason: str, check: Check | None
) -> dict[str, Any]:
    """The last object: how it ended, how it was run, and what a check said if there was one."""
    outcomes = read_report(result.report)
    is_warm = bool(level(result))
    said: dict[str, Any] = {
        "exit_code": code,
        "how": f"warm-{level(result)}" if is_warm else "cold",
        "is_provisional": is_warm and (check is None or check.finding is Finding.VOID),
        "duration_s": (result.ended_ns - result.started_ns) / 1e9,
        "outcomes": dict(Counter(outcomes.values())),
    }
    if reason:
        said["why_cold"] = reason
    if check is not None:
        said["check"] = _check_object(check)
    return said


def no_such_command(words: list[str], known: list[str]) -> str:
    """What to write instead of ``tightloop warm WORDS``."""
    if not known:
        return "warm: .tightloop.toml has no table [warm.NAME]: see docs/testing.md"
    names = ", ".join(known)
    if len(words) != 1:
        return f"warm: give the name of one command: {names}"
    return f"warm: there is no {printable(words[0])!r} in .tightloop.toml; there are {names}"


def command_line(checked: Checked, began_ns: int = 0) -> str:
    """After a warm command, or the cold one in its place."""
    answer = checked.answer
    if not answer.is_warm:
        return cold_line(answer.result, answer.note, began_ns)
    state = checked_state(checked)
    return f"warm in {duration(answer.result, began_ns)}; {state}"


def checked_state(checked: Checked) -> str:
    """How far the answer can be relied on."""
    return checked.state if checked.check is None else checked_words(checked.check)


def command_object(checked: Checked, code: int) -> dict[str, Any]:
    """For a program: as ``final_object``."""
    answer = checked.answer
    said: dict[str, Any] = {
        "exit_code": code,
        "how": answer.result.how if answer.is_warm else "cold",
        "is_provisional": answer.is_warm and checked.result is answer.result,
        "duration_s": (answer.result.ended_ns - answer.result.started_ns) / 1e9,
    }
    if answer.note:
        said["why_cold"] = answer.note
    if checked.check is not None:
        said["check"] = _check_object(checked.check)
    return said


def _check_object(check: Check) -> dict[str, Any]:
    return {
        "finding": str(check.finding),
        "note": check.note,
        "differences": [asdict(one) for one in check.found],
        "logs": [str(log) for log in check.logs],
    }
