"""Any edit of any file, written as a patch, gives the edited file, however it is cut; and what is
no such patch leaves every byte as it was."""

import difflib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.agent.patch.scenarios import Tree, harvest, plant
from tightloop.agent.patch.apply import PatchStream, apply_patch

WORDS = [
    "a",
    "b",
    "  c",
    "\td",
    "",
    "e  ",
    "*** f",
    "@@ g",
    "+h",
    "-i",
    "*** End Patch",
    "\u00e9\u201c",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9)
ENDINGS = st.sampled_from(["\n", "\r\n"])


@dataclass(frozen=True)
class Before:
    """A file as lines with their own endings; the last one may have none."""

    texts: list[str]
    endings: list[str]

    @property
    def content(self) -> bytes:
        pairs = zip(self.texts, self.endings, strict=True)
        return "".join(text + ending for text, ending in pairs).encode()


@st.composite
def files(draw: st.DrawFn) -> Before:
    texts = draw(TEXTS)
    endings = [draw(ENDINGS) for _ in texts]
    if texts and texts[-1] and draw(st.booleans()):
        endings[-1] = ""
    return Before(texts, endings)


def _edited(before: Before, after: list[str]) -> bytes:
    """What the second file has to be: kept lines with their own endings, new ones with the first
    ending of the file, and none at the end only where an untouched last line had none."""
    first = next((ending for ending in before.endings if ending), "\n")
    pieces: list[str] = []
    for tag, a, b, c, d in _opcodes(before.texts, after):
        if tag == "equal":
            pieces += [before.texts[n] + before.endings[n] for n in range(a, b)]
        else:
            pieces += [text + first for text in after[c:d]]
    ends = [piece if piece.endswith("\n") else piece + first for piece in pieces[:-1]]
    return "".join([*ends, *pieces[-1:]]).encode()


def _opcodes(old: list[str], new: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()


def as_patch(old: list[str], new: list[str]) -> str:
    """The change as a careful author writes it: each chunk with as much context as makes its place
    the only one after the chunk before; where none does, one chunk of the whole file."""
    chunks, cursor = [], 0
    changes = [code for code in _opcodes(old, new) if code[0] != "equal"]
    ends = [*(a for _, a, *_ in changes[1:]), len(old)]
    for (_, a, b, c, d), end in zip(changes, ends, strict=True):
        low, high = _unique(old, (a, b), (cursor, end))
        if (low, high) == (-1, -1):
            return _whole(old, new)
        chunks.append(
            [" " + text for text in old[low:a]]
            + ["-" + text for text in old[a:b]]
            + ["+" + text for text in new[c:d]]
            + [" " + text for text in old[b:high]]
        )
        cursor = high
    return _wrapped(chunks)


def _unique(old: list[str], change: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """The smallest range around the change, within the room, that fits nowhere else after the
    room's beginning; -1, -1 when there is none."""
    (a, b), (cursor, end) = change, room
    for margin in range(len(old) + 1):
        low, high = max(a - margin, cursor), min(b + margin, end)
        starts = [
            start
            for start in range(cursor, len(old))
            if low < high and old[start : start + high - low] == old[low:high]
        ]
        if len(starts) == 1:
            return low, high
    return -1, -1


def _whole(old: list[str], new: list[str]) -> str:
    lines = []
    for tag, a, b, c, d in _opcodes(old, new):
        if tag == "equal":
            lines += [" " + text for text in old[a:b]]
        else:
            lines += ["-" + text for text in old[a:b]] + ["+" + text for text in new[c:d]]
    return _wrapped([lines])


def _wrapped(chunks: list[list[str]]) -> str:
    body = [line for chunk in chunks for line in ["@@", *chunk]]
    return "\n".join(["*** Begin Patch", "*** Update File: f", *body, "*** End Patch", ""])


@given(files(), TEXTS, st.data())
def test_a_diff_of_two_files_gives_the_second(
    before: Before, after: list[str], data: st.DataObject
) -> None:
    """In any pieces; mixed endings, missing last newlines, lines that look like markers."""
    if before.texts == after:
        return
    patch = as_patch(before.texts, after)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(patch)), max_size=4)))
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "f"
        file.write_bytes(before.content)
        stream = PatchStream(Path(directory))
        for start, end in zip([0, *cuts], [*cuts, len(patch)], strict=True):
            stream.feed(patch[start:end])
        outcome = stream.commit()
        assert outcome.failure is None
        assert _edited(before, after) == file.read_bytes()


LINES = st.sampled_from(
    [
        "*** Add File: new", "*** Add File: d/new", "*** Add File: f", "*** Delete File: f",
        "*** Delete File: d/g", "*** Update File: f", "*** Update File: d/g", "*** Move to: moved",
        "*** Move to: d/g", "@@", "@@ a", "@@ b", " a", "-a", "+a", " b", "-b", "+b", "+c", "",
        "*** End of File", "*** Update File: ../out", "*** Add File: none/../../x", "junk",
    ]
)  # fmt: skip
OUTSIDE: Tree = {"out": b"o\n"}
INSIDE: Tree = {"ws/f": b"a\nb\na\n", "ws/d/g": b"b\r\nb\r\n"}


@given(lines=st.lists(LINES, max_size=14), has_end=st.booleans())
def test_a_refused_patch_leaves_every_byte(*, lines: list[str], has_end: bool) -> None:
    """Random lines of a patch: either it is applied, or content, names, modes and times are as
    before; nothing outside is ever touched and no temporary name is left."""
    text = "\n".join(["*** Begin Patch", *lines, *(["*** End Patch"] if has_end else [])])
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        plant(root, INSIDE | OUTSIDE)
        before = _facts(root)
        outcome = apply_patch(text, root / "ws")
        after = harvest(root)
        assert after["out"] == b"o\n"
        assert not [name for name in after if ".tightloop-" in name]
        if not outcome.is_ok:
            assert after == INSIDE | OUTSIDE
            assert before == _facts(root)
            assert "No file was changed" in outcome.as_text()
        else:
            assert has_end
            assert outcome.as_text().startswith("Success")


def _facts(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            facts = path.stat()
            found[str(path)] = (facts.st_ino, facts.st_mode, facts.st_mtime_ns)
    return found
