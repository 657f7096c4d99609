"""The tables of programs that run others."""

from tightloop.agent.approval.bash_words import UNKNOWN, known
from tightloop.agent.approval.wrappers import WRAPPERS, hidden_code, is_from_input, is_interpreter


def test_options_are_taken_with_their_values() -> None:
    words = [known(word) for word in ["-k", "3", "--signal=KILL", "5", "rm", "-f"]]
    rest, assignments = WRAPPERS["timeout"].rest(words)
    assert rest is not None
    assert ([word.text for word in rest], assignments) == (["rm", "-f"], ())


def test_an_option_that_is_not_known_ends_it() -> None:
    for text in ("--kill 5 rm", "-z 5 rm", "-k"):
        assert WRAPPERS["timeout"].rest([known(word) for word in text.split()]) == (None, ())
    assert WRAPPERS["nice"].rest([UNKNOWN, known("rm")]) == (None, ())


def test_interpreters() -> None:
    assert [is_interpreter(name) for name in ("python3.12", "perl", "pytest")] == [
        True,
        True,
        False,
    ]
    assert [is_from_input(path) for path in ("/dev/stdin", "-", "/proc/self/fd/0", "x.py")] == [
        True,
        True,
        True,
        False,
    ]


def test_code_that_a_line_hides() -> None:
    def why(text: str) -> bool:
        return bool(hidden_code([known(word) for word in text.split()]))

    assert [why(text) for text in ("python x.py", "python -u -m pytest", "python --version")] == [
        False
    ] * 3
    assert [why(text) for text in ("python -uc 1", "python -m timeit 1", "python", "ruby -n")] == [
        True
    ] * 4
