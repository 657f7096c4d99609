"""Grammars that real clients send, and readers of what they describe that owe them nothing."""

import re

APPLY_PATCH = """\
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?
hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?
filename: /(.+)/
add_line: "+" /(.*)/ LF -> line
change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF
%import common.LF
"""
"""The patch tool's grammar as Codex CLI sends it."""

_CHANGE = r"(?:(?:@@(?: [^\n]+)?|[+\- ][^\n]*)\n)+(?:\*\*\* End of File\n)?"
_HUNK = (
    r"(?:\*\*\* Add File: [^\n]+\n(?:\+[^\n]*\n)+"
    r"|\*\*\* Delete File: [^\n]+\n"
    rf"|\*\*\* Update File: [^\n]+\n(?:\*\*\* Move to: [^\n]+\n)?(?:{_CHANGE})?)"
)
PATCH = re.compile(rf"\*\*\* Begin Patch\n{_HUNK}+\*\*\* End Patch\n?")
"""The same language as one regular expression, to be matched in full."""
