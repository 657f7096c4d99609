from tightloop.agent.terminal.patch_view import MAX_FILE_ROWS, NUM_LAST_ROWS, PatchView
from tightloop.agent.terminal.styled import Line, Role

PATCH = """\
*** Begin Patch
*** Update File: src/calc.py
*** Move to: src/sums.py
@@ def total(items):
     subtotal = 0
-    for item in items[1:]:
+    for item in items:
*** Add File: notes.txt
+one
+\x1b[31mtwo
*** Delete File: old.py
*** End Patch
"""
ROWS = [
    "M src/calc.py",
    "  to src/sums.py",
    "  @@ def total(items):",
    "        subtotal = 0",
    "  -     for item in items[1:]:",
    "  +     for item in items:",
    "",
    "A notes.txt",
    "  + one",
    "  + two",
    "",
    "D old.py",
]


def plain(rows: list[Line]) -> list[str]:
    return [row.plain for row in rows]


def test_a_patch_in_any_pieces() -> None:
    """Files with their letter, lines with their mark, the envelope hidden; counted on the way."""
    for size in (1, 3, 7, 1000):
        view = PatchView()
        rows: list[Line] = []
        for start in range(0, len(PATCH), size):
            view.feed(PATCH[start : start + size])
            rows += view.take(80)
            view.live(80)
        view.finish()
        rows += view.take(80)
        assert plain(rows) == ROWS
        assert view.summary.plain == "3 files  +3 -1"


def test_the_line_that_is_written_is_live() -> None:
    """In its colour from the first character on; markers are not shown before they are known."""
    view = PatchView()
    view.feed("*** Begin Patch\n*** Add Fi")
    assert view.take(80) + view.live(80) == []
    view.feed("le: a.py\n+def f")
    assert plain(view.take(80)) == ["A a.py"]
    assert plain(view.live(80)) == ["  + def f"]
    assert Role.ADDED is view.live(80)[0].spans[0].role


def test_of_a_long_file_the_end_is_shown_and_how_much_is_not() -> None:
    """While it is written its last rows are live; the scrollback is not flooded."""
    view = PatchView()
    view.feed("*** Begin Patch\n*** Add File: big.py\n")
    view.feed("".join(f"+line {number}\n" for number in range(500)))
    rows = view.take(80)
    assert len(rows) == 1 + MAX_FILE_ROWS
    left_out = 500 - MAX_FILE_ROWS - NUM_LAST_ROWS
    assert [f"  \u2026 {left_out} more rows", "  + line 494"] == plain(view.live(80))[:2]
    assert plain(view.live(80, 1)) == ["  + line 499"]
    view.finish()
    rows = view.take(80)
    assert f"  \u2026 {left_out} more rows" == rows[0].plain
    assert rows[-1].plain == "  + line 499"
    assert view.live(80) == []


def test_rows_are_cut_at_the_width() -> None:
    """A row of a patch is one row of the terminal."""
    view = PatchView()
    view.feed("*** Begin Patch\n*** Add File: a\n+" + "x" * 100 + "\n")
    assert all(row.cells <= 40 for row in view.take(40))
