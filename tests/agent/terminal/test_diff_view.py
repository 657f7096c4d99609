from tightloop.agent.terminal.diff_view import diff_lines
from tightloop.agent.terminal.styled import Role

DIFF = """\
diff --git a/x.sql b/x.sql
index 1..2 100644
--- a/x.sql
+++ b/x.sql
@@ -1,3 +1,3 @@
 select 1
--- a comment
+++ plus
 end
@@ -9 +9 @@ more
-a
+b
\\ No newline at end of file
diff --git a/y b/y
new file mode 100644
"""


def test_roles() -> None:
    """Inside a hunk only the first character counts, however much a line looks like a header."""
    rows = diff_lines(DIFF)
    assert DIFF.splitlines() == [row.plain for row in rows]
    expected = [
        "strong",
        "dim",
        "dim",
        "dim",
        "accent",
        "plain",
        "removed",
        "added",
        "plain",
        "accent",
        "removed",
        "added",
    ]
    assert expected == [row.spans[0].role.value for row in rows[:12]]
    assert [row.spans[0].role for row in rows[-2:]] == [Role.STRONG, Role.DIM]


def test_hostile_and_empty_diffs() -> None:
    """What is no diff is shown as text, sequences are gone."""
    assert diff_lines("") == []
    assert [row.plain for row in diff_lines("+x \x1b[31mred\n")] == ["+x red"]
    assert [row.plain for row in diff_lines("@@ -a,b +99999999999999 @@")] == [
        "@@ -a,b +99999999999999 @@"
    ]
