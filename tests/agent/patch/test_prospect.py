"""A chunk is given up early only when it cannot be placed, and then as early as that is certain."""

from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.locate import Locator
from tightloop.agent.patch.operations import Chunk, ChunkGrew, ChunkLine
from tightloop.agent.patch.prospect import Prospect
from tightloop.agent.patch.text import FileText

TEXT = "def f():\n    a = 1\n    b = 2\n\n    c = 3\n"


def _lines(body: str) -> list[ChunkLine]:
    return [ChunkLine(line[:1] or " ", line[1:]) for line in body.split("\n")]


def _verdicts(text: str, body: str, start: int = 0) -> list[bool]:
    prospect = Prospect(FileText(text.encode()), start)
    return [prospect.add(line) for line in _lines(body)]


def test_the_first_line_that_is_nowhere_ends_it() -> None:
    """The outcome begins as the old lines do while there is only context."""
    assert _verdicts(TEXT, " def f():\n     a = 1\n     x\n     y") == [True, True, False, False]


def test_looser_tiers_count() -> None:
    assert _verdicts(TEXT, "     a = 1\n- b = 2\n+    b = 3") == [True] * 3
    assert _verdicts("say(\u201chi\u201d)\nx\n", ' say("hi")\n-x\n+y') == [True] * 3


def test_what_was_applied_before_has_hope() -> None:
    assert _verdicts(TEXT, "     a = 1\n-    gone\n+    b = 2") == [True] * 3
    assert _verdicts(TEXT, "     a = 1\n-    gone\n+    other") == [True, True, False]


def test_additions_alone_always_have_a_place() -> None:
    assert _verdicts(TEXT, "+x\n+y") == [True, True]
    assert _verdicts(TEXT, "+x\n-nowhere") == [True, False]


def test_empty_lines_count_once_something_follows() -> None:
    """At the end of a chunk they may only separate it from the next one."""
    assert _verdicts(TEXT, "     a = 1\n \n ") == [True] * 3
    assert _verdicts(TEXT, "     a = 1\n \n     b = 2") == [True, True, False]
    assert _verdicts(TEXT, "     b = 2\n\n     c = 3") == [True] * 3


def test_lines_before_the_start_do_not_count() -> None:
    assert _verdicts(TEXT, "     a = 1", 2) == [False]


def test_the_end_of_the_file() -> None:
    assert _verdicts(TEXT, "     c = 3\n more") == [True, False]


WORDS = st.sampled_from(["a", "b", " a", "", "c  ", "\u201cq\u201d", '"q"'])
CHUNK = st.lists(st.builds(ChunkLine, st.sampled_from(" -+"), WORDS), min_size=1, max_size=6)


@given(
    file=st.lists(WORDS, max_size=8),
    first=CHUNK,
    second=CHUNK,
    is_end=st.booleans(),
    anchors=st.sampled_from([(), ("a",), ("b",)]),
)
def test_no_chunk_that_has_a_place_is_given_up(
    *,
    file: list[str],
    first: list[ChunkLine],
    second: list[ChunkLine],
    is_end: bool,
    anchors: tuple[str, ...],
) -> None:
    """Two chunks of a random file: if the whole chunk is placed, none of its lines raised."""
    content = "".join(line + "\n" for line in file).encode()
    early, late = Locator(FileText(content), "f"), Locator(FileText(content), "f")
    for number, lines in enumerate((first, second), 1):
        num_soft = 0
        while num_soft < len(lines) and lines[-1 - num_soft] == ChunkLine(" ", ""):
            num_soft += 1
        chunk = Chunk(tuple(lines), anchors, is_end, num_soft, number, 0)
        try:
            placement = late.place(chunk)
        except PatchError:
            return
        for line in lines:
            early.grow(ChunkGrew(line, anchors, number, 0))
        assert placement == early.place(chunk)
