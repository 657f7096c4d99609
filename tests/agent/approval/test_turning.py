"""Words that a star does not cover."""

import pytest

from tightloop.agent.approval.bash_words import UNKNOWN, known
from tightloop.agent.approval.turning import hands_over, star_covers


def uncovered(line: str) -> list[str]:
    words = [known(word) for word in line.split()]
    return [
        words[index].text or "" for index in range(1, len(words)) if not star_covers(words, index)
    ]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("git commit -a -m x", []),
        ("git -c a=b log", ["-c"]),
        ("git fetch --upload-pa=x", ["--upload-pa=x"]),
        ("git rebase --exec x", ["--exec"]),
        ("rg --pre x y", ["--pre"]),
        ("rg -n x", []),
        ("tar -xf a", []),
        ("tar -xIf a", ["-xIf"]),
        ("tar xf a --to-c=x", ["--to-c=x"]),
        ("docker ps -a", []),
        ("docker exec x rm", ["exec"]),
        ("sudo rm x", ["rm"]),
        ("python x.py -c y", []),
        ("python -c y", ["-c"]),
        ("find . -delete", ["-delete"]),
        ("unknown --anything x", []),
    ],
)
def test_words(line: str, left: list[str]) -> None:
    assert left == uncovered(line)


def test_what_is_not_known_may_be_an_option() -> None:
    assert not star_covers([known("git"), UNKNOWN], 1)
    assert not star_covers([known("git"), known("log"), UNKNOWN], 2)
    assert star_covers([known("pytest"), UNKNOWN], 1)


def test_handing_over() -> None:
    def hands(*words: str) -> bool:
        return hands_over([known(word) for word in words])

    assert hands("git", "-c", "alias.x=!rm", "x")
    assert hands("make", "-f", "-")
    assert not hands("git", "-C", "dir", "log")
    assert not hands("git", "commit", "-m", "a b")
