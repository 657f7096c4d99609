"""Nothing is allowed, and nothing escapes a denial, because of how it is written.

Real bash says what a line runs. The claims: a line that runs ``danger`` is never allowed by rules that
do not name it, never counts as reading, and always meets a rule that denies it, or is asked for.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.approval.real_bash import Bash
from tests.agent.approval.wrapped_lines import CORPUS, PREFIXES, SPELLINGS, WRAPPERS, prefixed
from tightloop.agent.approval.interface import Mode
from tightloop.agent.approval.judge import Line, Outcome, Situation, judge
from tightloop.agent.approval.rules import Pattern, Rule, Rules

GENEROUS = Rules(
    allow=tuple(
        Rule(Pattern.parse(f"{name} *", allows=True))
        for name in [
            "safe",
            "other",
            "git",
            "rg",
            "find",
            "sed",
            "awk",
            "sort",
            "python3",
            "make",
            "tar",
            "vim",
            "cat",
            "echo",
            "printf",
            "test",
        ]
    )
)
"""Everything that the lines use as a vehicle, but not ``danger``."""
DENYING = Rules(deny=(Rule(Pattern.parse("danger", allows=False)),))
ASKING = Situation(Mode.ASK)
READING = Situation(Mode.READ_ONLY)


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Bash:
    return Bash.at(tmp_path_factory.mktemp("bash"))


def wrong(line: str) -> list[str]:
    """Which of the claims does not hold for a line that runs ``danger``."""
    found = []
    if judge(Line(line), GENEROUS, ASKING).outcome is Outcome.RUN:
        found.append("allowed by rules about others")
    if judge(Line(line), Rules(), READING).outcome is Outcome.RUN:
        found.append("taken for reading")
    if judge(Line(line), DENYING, Situation(Mode.AUTO)).outcome is Outcome.RUN:
        found.append("not met by the rule that denies it")
    return found


@pytest.mark.parametrize("line", CORPUS)
def test_known_ways_around(bash: Bash, line: str) -> None:
    """Each line that really runs it (the programs may be missing here) is caught."""
    if bash.ran_danger(line):
        assert wrong(line) == []


def test_the_corpus_is_about_something(bash: Bash) -> None:
    """Bash does run it in most of them: the test above is no empty one."""
    assert sum(bash.ran_danger(line) for line in CORPUS) > 0.7 * len(CORPUS)


_COMMANDS = st.sampled_from(SPELLINGS)


@st.composite
def wrapped(draw: st.DrawFn) -> str:
    """The command behind prefixes and within syntax, composed."""
    command = draw(_COMMANDS)
    for prefix in draw(st.lists(st.sampled_from(PREFIXES), max_size=2)):
        if prefix in ("command ", "exec ", "A=1 ", "eval ") and not command[0].isalpha():
            continue
        command = prefixed(prefix, command)
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            command = draw(st.sampled_from(WRAPPERS)).format(command)
        elif "'" not in command:
            command = draw(st.sampled_from(("bash -c '{}'", "sh -ec '{}'", "eval '{}'"))).format(
                command
            )
    return command


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(line=wrapped())
def test_composed_ways_around(bash: Bash, line: str) -> None:
    """Wrappers within wrappers within syntax."""
    if bash.ran_danger(line):
        assert wrong(line) == []


@settings(max_examples=120, deadline=None)
@given(line=wrapped())
def test_the_same_line_is_allowed_when_all_of_it_is(line: str) -> None:
    """A rule for the bare command lets no more through than it, and syntax alone takes nothing away."""
    allowing = Rules(allow=(*GENEROUS.allow, Rule(Pattern.parse("danger", allows=True))))
    judgement = judge(Line(line), allowing, ASKING)
    is_plain = not any(
        part in line for part in ("exec", "eval", "A=1", "xargs", "<(", "find", "<<E")
    )
    if is_plain:
        assert judgement.outcome is Outcome.RUN, judgement.reason


_PIECES = st.lists(
    st.sampled_from(
        [
            "danger",
            "safe",
            "other",
            ";",
            "&&",
            "|",
            "||",
            "&",
            "(",
            ")",
            "{",
            "}",
            "$(",
            "`",
            '"',
            "'",
            "\\",
            "$x",
            "${x}",
            "<<E",
            "E",
            "\n",
            "#",
            "!",
            ">",
            "<",
            "2>&1",
            "*",
            "~",
            "[",
            "]",
            "=",
            "a=b",
            "if",
            "then",
            "fi",
            "for",
            "x",
            "in",
            "do",
            "done",
            "-c",
            "eval",
            "env",
            "$'",
            "<(",
            ",",
        ]
    ),
    max_size=9,
)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=_PIECES, glue=st.sampled_from((" ", "")))
def test_whatever_bash_makes_of_it(bash: Bash, pieces: list[str], glue: str) -> None:
    """Random pieces of syntax: what bash runs of it is never more than what was seen."""
    line = glue.join(pieces)
    if "danger" in line and bash.ran_danger(line):
        assert wrong(line) == []
