from tightloop.agent.terminal.styled import Role
from tightloop.agent.terminal.table import is_table_row, table_lines

TABLE = ["| file | why |", "|:--|--:|", "| `a.py` | the **bug** |", "| b\\|c |"]


def test_columns_are_aligned() -> None:
    """Marks inside cells are understood, an escaped bar is text, missing cells are empty."""
    rows = table_lines(TABLE, 40)
    expected = ["file   why", "\u2500" * 14, "a.py   the bug", "b|c    "]
    assert [row.rstrip() for row in expected] == [row.plain.rstrip() for row in rows]
    assert Role.STRONG is rows[0].spans[0].role
    assert Role.CODE is rows[2].spans[0].role


def test_what_is_too_wide_or_no_table_stays_as_it_is() -> None:
    """Nothing is cut off to make it fit."""
    assert table_lines(TABLE, 12)[0].plain == "| file | why"
    assert [row.plain for row in table_lines(["| a |", "| b |"], 40)] == ["| a |", "| b |"]
    assert is_table_row("  | a")
    assert not is_table_row("a | b")
