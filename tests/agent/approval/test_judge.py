"""The order in which rules and modes decide; what is said of it."""

import pytest

from tightloop.agent.approval.interface import Mode
from tightloop.agent.approval.judge import Judgement, Line, Outcome, Situation, judge
from tightloop.agent.approval.rules import Pattern, Rule, Rules


def rule(text: str, *, allows: bool = False, reason: str = "") -> Rule:
    return Rule(Pattern.parse(text, allows=allows), reason)


ALL = Rules(
    deny=(rule("git push", reason="people push"),),
    ask=(rule("git commit"),),
    allow=(rule("git *", allows=True),),
)


@pytest.mark.parametrize("mode", [Mode.ASK, Mode.AUTO, Mode.FULL])
def test_a_denial_wins_over_a_question_over_a_permission(mode: Mode) -> None:
    there = Situation(mode)
    assert judge(Line("git push"), ALL, there) == Judgement(
        Outcome.DECLINE, "rule", "the rule 'git push' denies it: people push", "'git push'"
    )
    assert judge(Line("git commit -m x"), ALL, there).outcome is Outcome.ASK
    assert judge(Line("git fetch"), ALL, there) == Judgement(Outcome.RUN, "rule", "", "'git *'")
    assert judge(Line("git commit && git push"), ALL, there).outcome is Outcome.DECLINE


def test_a_sandbox_that_cannot_write_needs_no_proof() -> None:
    there = Situation(Mode.READ_ONLY, cannot_write=True)
    assert judge(Line("pytest"), Rules(), there) == Judgement(Outcome.RUN, "sandbox")
    assert judge(Line("git push"), ALL, there).outcome is Outcome.DECLINE


def test_what_is_not_understood_runs_only_where_nothing_is_asked() -> None:
    line = Line("[[ -f x ]] && make")
    assert judge(line, Rules(), Situation(Mode.AUTO)).outcome is Outcome.RUN
    asked = judge(line, Rules(), Situation(Mode.ASK))
    assert asked == Judgement(Outcome.ASK, "mode", "not understood: '[['")
    denied = judge(line, Rules(), Situation(Mode.READ_ONLY))
    assert denied.reason == "only reading commands may run now; not understood: '[['"


def test_what_has_just_been_written_is_not_run_past_a_denial() -> None:
    line = Line("echo git push > s; bash s")
    assert judge(line, Rules(deny=ALL.deny), Situation(Mode.AUTO)).outcome is Outcome.ASK


def test_words_without_a_shell() -> None:
    there = Situation(Mode.ASK)
    assert judge(Line.of_argv(["cat", "$(rm x)"]), Rules(), there).outcome is Outcome.RUN
    assert judge(Line.of_argv(["bash", "-c", "rm x"]), Rules(), there).outcome is Outcome.ASK
