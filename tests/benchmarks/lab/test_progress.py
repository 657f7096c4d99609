import io

from benchmarks.lab.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_the_beginning_and_the_end() -> None:
    """Lines in between come every ten seconds, not with every step."""
    stream = io.StringIO()
    progress = Progress("trial", 2, stream)
    progress.step("one")
    progress.step("two")
    progress.end()
    assert stream.getvalue() == "trial: 2 steps\ntrial: done in 0 s\n"


def test_a_terminal_is_left_clean() -> None:
    stream = Terminal()
    Progress("trial", 1, stream).end()
    assert stream.getvalue().endswith("\rtrial: done in 0 s\n")
