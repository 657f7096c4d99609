"""Long outputs keep both ends, are cut at line ends, and depend on nothing but the text."""

from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.tools.output import Foretelling, shorten_output


def test_short_output_is_untouched() -> None:
    assert shorten_output("a\nb", 3) == "a\nb"


def test_long_output() -> None:
    text = "".join(f"line {n:03}\n" for n in range(100))
    short = shorten_output(text, 100)
    assert short.splitlines() == [
        "line 000", "line 001", "line 002", "line 003",
        "[... 810 bytes in 90 lines left out ...]",
        "line 094", "line 095", "line 096", "line 097", "line 098", "line 099",
    ]  # fmt: skip


def test_one_endless_line_is_cut_in_the_middle() -> None:
    short = shorten_output("\u00e9" * 1000, 100)
    assert short == "\u00e9" * 40 + "\n[... 1800 bytes in 0 lines left out ...]\n" + "\u00e9" * 60


@given(st.text(alphabet="ab\n\u00e9", max_size=300), st.integers(10, 100))
def test_ends_are_the_texts_own(text: str, max_chars: int) -> None:
    short = shorten_output(text, max_chars)
    if len(text) > max_chars:
        head, _, tail = short.partition("[...")
        assert text.startswith(head.removesuffix("\n"))
        assert text.endswith(tail.partition("...]\n")[2])
    else:
        assert short == text


@given(st.lists(st.text(alphabet="ab\n\u00e9", max_size=60), max_size=12), st.integers(10, 100))
def test_what_is_told_of_a_growing_text_is_how_its_short_form_begins(
    pieces: list[str], max_chars: int
) -> None:
    """All of a short text; of a long one its head, what was told beyond it taken back."""
    told = ""

    def tell(piece: str, keep: int) -> None:
        nonlocal told
        assert keep <= len(told)
        told = told[:keep] + piece

    foretelling = Foretelling(tell, max_chars)
    text = ""
    for piece in pieces:
        foretelling.feed(piece)
        text += piece
        short = shorten_output(text, max_chars)
        assert short.startswith(told)
        assert told == (text if len(text) <= max_chars else short[: short.index("[... ") + 5])
