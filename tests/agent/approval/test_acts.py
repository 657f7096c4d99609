"""Programs seen through whatever runs them."""

import pytest

from tightloop.agent.approval.acts import acts_of_argv, acts_of_line
from tightloop.agent.approval.bash_words import NotUnderstood


@pytest.mark.parametrize(
    ("line", "programs"),
    [
        ("env -i A=1 nice -n 5 timeout -k 3 5 rm x", ["rm x"]),
        ("xargs -0 -n1 rm -f", ["rm -f ..."]),
        ("xargs -I% cp % d", ["cp % d"]),
        ("sh -c 'rm x; ls' a b", ["rm x", "ls"]),
        ("bash -lc ls", ["ls"]),
        ("eval 'rm' x", ["rm x"]),
        ("find . -name x -exec rm {} + -o -print", ["find . -name x -o -print", "rm {}"]),
        ("command -p rm x", ["rm x"]),
        ("command -v rm", ["command -v rm"]),
        ("exec rm x", ["rm x"]),
        ("busybox rm x", ["rm x"]),
        ("sudo rm x", ["sudo rm x"]),
        ("bash <<'E'\nrm x\nE", ["rm x"]),
        ("bash script.sh a", ["bash script.sh a"]),
        ("./env rm x", ["./env rm x", "rm x"]),
        ("/usr/bin/env rm x", ["rm x"]),
        ("env", ["env"]),
    ],
)
def test_programs(line: str, programs: list[str]) -> None:
    acts = acts_of_line(line)
    assert (programs, [""] * len(acts)) == ([act.plain() for act in acts], [a.opaque for a in acts])


@pytest.mark.parametrize(
    "line",
    ["env -S 'rm x'", "env -C / rm x", "xargs --foo rm", "timeout $x rm", "bash -i -c ls", "bash -c $x",
     "bash", "bash -s", "bash +x -c ls", "bash /dev/stdin", "zsh -c ls", "source x", ". x", "alias a=b",
     "trap x 0", "$x", "python -c 1", "python -", "python", "python -W ignore -c 1", "perl -ne 1 f", "node -e 1",
     "awk 'BEGIN{system(\"x\")}'", "sed 's/a/b/e' f", "find . -exec rm", "find $x", "env 'a%=1' rm x"],
)  # fmt: skip
def test_opaque(line: str) -> None:
    assert [act.opaque != "" for act in acts_of_line(line)] == [True]


def test_what_surrounds_a_wrapped_program_stays_with_it() -> None:
    (act,) = acts_of_line("A=1 env B=2 bash -c 'C=3 rm x > y' 2> z")
    assert [one.name for one in act.assignments] == ["A", "B", "C"]
    assert [one.target.text for one in act.redirects] == ["z", "y"]
    assert act.wrappers == ("env", "bash")


def test_words_without_a_shell_are_taken_as_they_are() -> None:
    (act,) = acts_of_argv(["echo", "$(rm x)", ";", "a b"])
    assert [word.text for word in act.words] == ["echo", "$(rm x)", ";", "a b"]


def test_wrappers_without_end_are_refused() -> None:
    with pytest.raises(NotUnderstood, match="wrappers"):
        acts_of_line("env " * 40 + "rm")
