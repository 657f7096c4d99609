"""Changes as a unified diff that ``git apply`` takes.

Format: git's diff-format documentation, "Generating patch text with -p".
"""

import difflib
import hashlib
import zlib
from base64 import b85encode
from collections.abc import Iterable, Iterator

from tightloop.sandbox.entries import Change, Entry

_CONTEXT = 3
_MAX_PRODUCT = 25_000_000  # lines times lines: past that a block is replaced as a whole
_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
_ESCAPES |= {34: '\\"', 92: "\\\\"}


def unified_diff(changes: Iterable[Change], *, include_binary: bool = False) -> str:
    """The whole patch. Binary files are named; ``include_binary`` puts their content in too."""
    return "".join(piece for change in changes for piece in _one(change, include_binary))


def _one(change: Change, include_binary: bool) -> Iterator[str]:
    old, new = change.before, change.after
    if old is not None and new is not None and old.is_link != new.is_link:
        yield from _one(Change(change.path, old, None), include_binary)
        yield from _one(Change(change.path, None, new), include_binary)
        return
    left, right = quoted("a/" + change.path), quoted("b/" + change.path)
    yield f"diff --git {left} {right}\n"
    if old is None and new is not None:
        yield f"new file mode {new.git_mode}\n"
    elif new is None and old is not None:
        yield f"deleted file mode {old.git_mode}\n"
    elif old is not None and new is not None and old.git_mode != new.git_mode:
        yield f"old mode {old.git_mode}\nnew mode {new.git_mode}\n"
    before, after = old.content if old else b"", new.content if new else b""
    if before == after:
        return
    if _is_binary(before) or _is_binary(after):
        names = (left if old else "/dev/null", right if new else "/dev/null")
        yield from _binary(old, new, names, include_binary)
        return
    yield f"--- {_header(left) if old else '/dev/null'}\n"
    yield f"+++ {_header(right) if new else '/dev/null'}\n"
    yield from _hunks(_lines(before), _lines(after))


def quoted(name: str) -> str:
    """A path as git writes it: in quotes with escapes when it holds special characters."""
    data = name.encode(errors="surrogateescape")
    is_text = "\udc80" not in name and not any("\udc80" <= char <= "\udcff" for char in name)
    if is_text and not any(byte < 32 or byte in (34, 92, 127) for byte in data):
        return name
    pieces = []
    for byte in data:
        if byte in _ESCAPES:
            pieces.append(_ESCAPES[byte])
        else:
            pieces.append(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
    return '"' + "".join(pieces) + '"'


def _header(name: str) -> str:
    return f"{name}\t" if " " in name and not name.startswith('"') else name


def _is_binary(content: bytes) -> bool:
    if b"\0" in content:
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return False


def _lines(content: bytes) -> list[str]:
    """Lines with their line feed; only a line feed ends a line."""
    lines = content.decode().split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _operations(old: list[str], new: list[str]) -> list[tuple[str, int, int, int, int]]:
    """Like ``SequenceMatcher.get_opcodes``, with equal ends found first."""
    start, limit = 0, min(len(old), len(new))
    while start < limit and old[start] == new[start]:
        start += 1
    end = 0
    while end < limit - start and old[-1 - end] == new[-1 - end]:
        end += 1
    old_end, new_end = len(old) - end, len(new) - end
    middle_old, middle_new = old[start:old_end], new[start:new_end]
    result = [("equal", 0, start, 0, start)] if start else []
    if len(middle_old) * len(middle_new) > _MAX_PRODUCT:
        result.append(("replace", start, old_end, start, new_end))
    else:
        matcher = difflib.SequenceMatcher(None, middle_old, middle_new, autojunk=False)
        result += [
            (tag, a + start, b + start, c + start, d + start)
            for tag, a, b, c, d in matcher.get_opcodes()
        ]
    if end:
        result.append(("equal", old_end, len(old), new_end, len(new)))
    return result


def _groups(
    operations: list[tuple[str, int, int, int, int]],
) -> Iterator[list[tuple[str, int, int, int, int]]]:
    """Operations of one hunk each, with context around and between."""
    group: list[tuple[str, int, int, int, int]] = []
    for tag, a, b, c, d in operations:
        if tag != "equal":
            group.append((tag, a, b, c, d))
        elif not group:
            skip = max(0, b - a - _CONTEXT)
            group = [(tag, a + skip, b, c + skip, d)]
        elif b - a > 2 * _CONTEXT:
            yield [*group, (tag, a, a + _CONTEXT, c, c + _CONTEXT)]
            group = [(tag, b - _CONTEXT, b, d - _CONTEXT, d)]
        else:
            group.append((tag, a, b, c, d))
    if group and group[-1][0] == "equal":
        tag, a, b, c, d = group.pop()
        if group:
            keep = min(b - a, _CONTEXT)
            group.append((tag, a, a + keep, c, c + keep))
    if group:
        yield group


def _hunks(old: list[str], new: list[str]) -> Iterator[str]:
    for group in _groups(_operations(old, new)):
        first, last = group[0], group[-1]
        yield f"@@ -{_span(first[1], last[2])} +{_span(first[3], last[4])} @@\n"
        for tag, a, b, c, d in group:
            if tag == "equal":
                yield from (_line(" ", line) for line in old[a:b])
            else:
                yield from (_line("-", line) for line in old[a:b])
                yield from (_line("+", line) for line in new[c:d])


def _span(start: int, end: int) -> str:
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _line(sign: str, line: str) -> str:
    return sign + line if line.endswith("\n") else f"{sign}{line}\n\\ No newline at end of file\n"


def _binary(
    old: Entry | None, new: Entry | None, names: tuple[str, str], include_binary: bool
) -> Iterator[str]:
    if not include_binary:
        yield f"Binary files {names[0]} and {names[1]} differ\n"
        return
    yield f"index {_blob_id(old)}..{_blob_id(new)}\nGIT binary patch\n"
    yield _literal(new)
    yield _literal(old)


def _blob_id(entry: Entry | None) -> str:
    if entry is None:
        return "0" * 40
    header = f"blob {len(entry.content)}\0".encode()
    return hashlib.sha1(header + entry.content, usedforsecurity=False).hexdigest()


def _literal(entry: Entry | None) -> str:
    content = entry.content if entry else b""
    packed = zlib.compress(content)
    lines = [f"literal {len(content)}"]
    for start in range(0, len(packed), 52):
        piece = packed[start : start + 52]
        length = chr(ord("A") + len(piece) - 1 if len(piece) <= 26 else ord("a") + len(piece) - 27)
        lines.append(length + b85encode(piece, pad=True).decode())
    return "\n".join(lines) + "\n\n"
