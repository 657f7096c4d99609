"""Lines found in undivided bytes are those that are found in a list of lines."""

from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.patch.raw_lines import RawLines, Trail, as_bytes
from tightloop.agent.patch.text import FileText, Tier, positions

LINES = st.lists(st.sampled_from(["", "a", "ab", "b", " a"]), max_size=8)
PATTERNS = st.lists(st.sampled_from(["", "a", "ab", "b", " a"]), min_size=1, max_size=3)
BEGINS = st.sampled_from([b"", b"\xef\xbb\xbf"])


def content(lines: list[str], begin: bytes, *, is_open: bool) -> bytes:
    """A file of these lines, the last one without an end if ``is_open``."""
    text = "".join(line + "\n" for line in lines)
    return begin + (text[:-1] if is_open else text).encode()


@given(LINES, BEGINS, st.booleans(), PATTERNS, st.integers(0, 9))
def test_exact_lines_are_found_as_in_a_list(
    lines: list[str], begin: bytes, is_open: bool, pattern: list[str], start: int
) -> None:
    """Every place, the first one, and whether they stand at a certain one."""
    file = FileText(content(lines, begin, is_open=is_open))
    there = file.lines
    expected = positions(there, pattern, start)
    assert expected == file.positions(Tier.EXACT, pattern, start)
    assert (there[start : start + len(pattern)] == pattern) == file.stand_at(
        Tier.EXACT, pattern, start
    )
    first = there.index(pattern[0], start) if pattern[0] in there[start:] else None
    assert first == file.first(Tier.EXACT, pattern[0], start)
    assert len(there) == file.num_lines


@given(LINES, BEGINS, st.booleans(), st.lists(PATTERNS, min_size=1, max_size=4), st.integers(0, 3))
def test_a_trail_goes_on_as_long_as_all_of_it_stands_somewhere(
    lines: list[str], begin: bytes, is_open: bool, pieces: list[list[str]], start: int
) -> None:
    """Piece by piece it says what a search for all pieces together says."""
    given_content = content(lines, begin, is_open=is_open)
    there = FileText(given_content).lines
    trail = Trail(RawLines(given_content, len(begin)), start)
    for number in range(len(pieces)):
        so_far = [line for piece in pieces[: number + 1] for line in piece]
        is_there = bool(positions(there, so_far, start))
        assert is_there == trail.goes_on(pieces[number])
        if not is_there:
            break


@given(LINES, BEGINS, st.lists(st.integers(0, 9), max_size=6))
def test_offsets_do_not_depend_on_what_was_asked_before(
    lines: list[str], begin: bytes, asked: list[int]
) -> None:
    """Each line begins after the ends of those before it; what is not there begins at the end."""
    raw = RawLines(content(lines, begin, is_open=False), len(begin))
    for line in asked:
        expected = len(begin) + sum(len(each) + 1 for each in lines[:line])
        assert expected == raw.offset(line)
        assert min(line, len(lines)) == raw.line_at(raw.offset(line))


def test_half_a_surrogate_pair_is_in_no_file() -> None:
    assert as_bytes(["\ud800"]) is None
    assert not Trail(RawLines(b"a\n", 0), 0).goes_on(["\ud800"])


def test_an_invalid_byte_is_matched_by_no_other() -> None:
    """Bytes that are no UTF-8 stay what they are in the list and in the search."""
    file = FileText(b"\xff\na\n")
    assert file.positions(Tier.EXACT, ["a"], 0) == [1]
    assert file.positions(Tier.EXACT, ["\ufffd"], 0) == []


def test_ends_of_two_characters_are_searched_line_by_line() -> None:
    file = FileText(b"a\r\nb\na\r\n")
    assert file.raw is None
    assert file.positions(Tier.EXACT, ["a"], 0) == [0, 2]
    assert file.first(Tier.EXACT, "b", 1) == 1
