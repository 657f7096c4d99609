"""What the model and a program read of a refusal: bounded, and clear that nothing changed."""

from tightloop.agent.patch.failure import Divergence, Failure


def test_full_text_has_at_most_20_lines() -> None:
    failure = Failure(
        "context_not_found", "one\ntwo\nthree\nfour", "src/a.py", 2, 31, "unicode", 118, 5, 7,
        Divergence(123, "wanted", "found"), tuple((n, f"line {n}") for n in range(117, 130)),
        (40, 118), "ab", "Do better.",
    )  # fmt: skip
    lines = failure.as_text().splitlines()
    assert len(lines) == 20
    assert lines[0] == (
        "apply_patch failed: context_not_found in src/a.py, chunk 2 (patch line 31)."
        " No file was changed."
    )
    assert lines[-1] == "Do better."
    assert "  123|line 123" in lines
    assert failure.as_dict() == {
        "ok": False,
        "error": "context_not_found",
        "message": "one\ntwo\nthree\nfour",
        "file": "src/a.py",
        "chunk": 2,
        "patch_line": 31,
        "tier_tried": "unicode",
        "sha256": "ab",
        "best": {"line": 118, "matched": 5, "of": 7},
        "first_diverging": {"line": 123, "expected": "wanted", "actual": "found"},
        "nearby": [[n, f"line {n}"] for n in range(117, 130)],
        "candidates": [40, 118],
    }


def test_short_text() -> None:
    assert Failure("empty_patch", "nothing").as_text().splitlines() == [
        "apply_patch failed: empty_patch. No file was changed.",
        "nothing",
    ]


def test_long_lines_are_cut() -> None:
    text = Failure("bad_syntax", "x" * 1000).as_text()
    assert max(map(len, text.splitlines())) == 160


def test_end_of_file() -> None:
    failure = Failure("context_not_found", "m", first_diverging=Divergence(9, "a", None))
    assert "but the file has: (end of file)" in failure.as_text()


def test_what_could_not_be_undone_is_not_denied() -> None:
    failure = Failure("io_error", "m", is_undone=False)
    assert "No file was changed" not in failure.as_text()
    assert "SOME FILES MAY HAVE CHANGED" in failure.as_text()
    assert failure.as_dict()["is_undone"] is False
