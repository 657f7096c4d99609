"""A line taken apart: every simple command that may run, and nothing that is not understood."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.approval.real_bash import Bash
from tightloop.agent.approval.bash_line import MAX_CHARS, parse_line
from tightloop.agent.approval.bash_words import NotUnderstood


def shown(line: str) -> list[str]:
    return [
        " ".join(word.raw if word.text is None else word.text for word in one.words)
        for one in parse_line(line)
    ]


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("", []),
        ("# nothing", []),
        ("a b", ["a b"]),
        ("a; b & c && d || e | f |& g\nh", ["a", "b", "c", "d", "e", "f", "g", "h"]),
        ("( a; b ) > x", ["a", "b", ""]),
        ("{ a; } 2>&1", ["a", ""]),
        ("! a | b", ["a", "b"]),
        ("time a", ["a"]),
        ("if a; then b; elif c; then d; else e; fi", ["a", "b", "c", "d", "e"]),
        ("while a; do b; done", ["a", "b"]),
        ("until a\ndo\nb\ndone", ["a", "b"]),
        ("for x in p $(q); do r $x; done", ["q", "", "r $x"]),
        ("for x; do r; done", ["", "r"]),
        ("a $(b $(c)) `d`", ["c", "b $(c)", "d", "a $(b $(c)) `d`"]),
        ("a <(b) >(c)", ["b", "c", "a <(b) >(c)"]),
        ("X=1 Y=$(b) a", ["b", "a"]),
        ("a # b; c\nd", ["a", "d"]),
        ("a \\\n  b", ["a b"]),
        ("cat <<E\n$(b)\nE\nc", ["cat", "b", "c"]),
        ("cat <<'E'\n$(b)\nE\nc", ["cat", "c"]),
        ("cat <<-E\n\tx\n\tE\n", ["cat"]),
        ("cat <<<x", ["cat"]),
        ("echo if then", ["echo if then"]),
        ("a 2>/dev/null >b", ["a"]),
    ],
)
def test_commands(line: str, commands: list[str]) -> None:
    assert commands == shown(line)


@pytest.mark.parametrize(
    "line",
    [
        "case x in x) a;; esac", "[[ a ]]", "(( 1 ))", "f() { a; }", "function f { a; }", "coproc a",
        "select x in a; do b; done", "a=(1 2)", "a[0]=1", "a;;", "a (b)", "(a", "a)", "{ a;", "if a; fi",
        "for x in a do b done", "a <<E\nb", "a <<E <<F\nE\nF\n", "a <<E\nEE\nE\n", "a > ", "a ||", "| a",
        "time -p a", "$(a # )\n)", "x" * (MAX_CHARS + 1), "(" * 40 + "a" + ")" * 40, "then a", "a <<$x\n",
        "a <<E; b 'x\nE\n'", "{x}>y a", "a & & b", "$(a <<E)\nE\n",
    ],
)  # fmt: skip
def test_refused(line: str) -> None:
    with pytest.raises(NotUnderstood):
        parse_line(line)


def test_assignments_and_redirections() -> None:
    (command,) = parse_line("A=1 B+=2 x 2>>log <in")
    assert [(one.name, one.value.text) for one in command.assignments] == [("A", "1"), ("B", None)]
    assert [(one.operator, one.descriptor, one.target.text) for one in command.redirects] == [
        (">>", "2", "log"),
        ("<", "", "in"),
    ]


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Bash:
    return Bash.at(tmp_path_factory.mktemp("bash"))


_WORDS = st.sampled_from(
    [
        "a",
        "'b c'",
        '"d e"',
        "f\\ g",
        "$'h'",
        "-i",
        "j=k",
        "''",
        "#",
        "{}",
        "if",
        '"$"',
        "'#x'",
        "do",
    ]
)


@st.composite
def _lines(draw: st.DrawFn) -> str:
    commands = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["safe", "other", "A=1 danger"]), st.lists(_WORDS, max_size=4)
            ),
            min_size=1,
            max_size=4,
        )
    )
    joints = draw(st.lists(st.sampled_from([";", "&&", "\n", "||", "|", " # x\n"]), min_size=4))
    return "".join(
        f"{name} {' '.join(words)} {joint} "
        for (name, words), joint in zip(commands, (*joints, *";" * 4), strict=False)
    )


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(line=_lines())
def test_what_bash_runs_was_seen(bash: Bash, line: str) -> None:
    """Every program that really runs is among the commands, with exactly its words."""
    try:
        seen = [[word.text for word in command.words] for command in parse_line(line)]
    except NotUnderstood:
        return
    for run in bash.runs(line):
        assert run in seen


def test_the_judge_records(tmp_path: Path) -> None:
    """The test above can fail: bash's runs are really recorded."""
    assert Bash.at(tmp_path).runs("safe 'a b'; other") == [["safe", "a b"], ["other"]]
