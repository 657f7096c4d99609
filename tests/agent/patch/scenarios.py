"""Patches with the tree before and after, numbered as in the public list of Codex's fixtures.

Numbers below 100 are its cases, those from 101 are ours. ``error`` is the failure expected; the
tree is then unchanged.
"""

from dataclasses import dataclass, field
from pathlib import Path

Tree = dict[str, bytes | str]
"""Path to content; a str content is the target of a symlink; a path ending in / is a directory."""


@dataclass(frozen=True)
class Scenario:
    name: str
    before: Tree
    body: str
    after: Tree = field(default_factory=dict)
    error: str | None = None
    is_whole: bool = False
    """Whether ``body`` is the whole patch text and not only what stands between the markers."""

    @property
    def patch(self) -> str:
        return self.body if self.is_whole else f"*** Begin Patch\n{self.body}*** End Patch\n"

    @property
    def expected(self) -> Tree:
        return self.before if self.error else self.after


def plant(root: Path, tree: Tree) -> None:
    """Make ``root`` hold exactly this tree; ``root`` must be empty."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def harvest(root: Path) -> Tree:
    """The tree as it is now, empty directories included."""
    tree: Tree = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            tree[name] = str(path.readlink())
        elif path.is_file():
            tree[name] = path.read_bytes()
        elif not any(path.iterdir()):
            tree[name + "/"] = b""
    return tree


TWICE = b"def a():\n    x = 1\n    return x\n\ndef b():\n    x = 1\n    return x\n"
CLASSES = b"class A:\n    def m(self):\n        return 1\n\nclass B:\n    def m(self):\n        return 1\n"

SCENARIOS = [
    Scenario(
        "001 add beside another file",
        {"other.txt": b"o\n"},
        "*** Add File: new.txt\n+one\n+two\n",
        {"other.txt": b"o\n", "new.txt": b"one\ntwo\n"},
    ),
    Scenario(
        "002 add, delete and update at once",
        {"gone.txt": b"g\n", "kept.txt": b"a\nb\n"},
        "*** Add File: sub/new.txt\n+n\n*** Delete File: gone.txt\n"
        "*** Update File: kept.txt\n@@\n-b\n+B\n",
        {"kept.txt": b"a\nB\n", "sub/new.txt": b"n\n"},
    ),
    Scenario(
        "003 two chunks",
        {"f": b"1\n2\n3\n4\n"},
        "*** Update File: f\n@@\n-2\n+two\n@@\n-4\n+four\n",
        {"f": b"1\ntwo\n3\nfour\n"},
    ),
    Scenario(
        "004 move into a new directory",
        {"old/name.txt": b"from\n", "old/other.txt": b"o\n"},
        "*** Update File: old/name.txt\n*** Move to: renamed/dir/name.txt\n@@\n-from\n+to\n",
        {"old/other.txt": b"o\n", "renamed/dir/name.txt": b"to\n"},
    ),
    Scenario("005 nothing between the markers", {"f": b"x\n"}, "", error="empty_patch"),
    Scenario(
        "006 old line not in the file",
        {"f": b"x\n"},
        "*** Update File: f\n@@\n-missing\n+y\n",
        error="context_not_found",
    ),
    Scenario(
        "007 delete a missing file", {"f": b"x\n"}, "*** Delete File: g\n", error="missing_file"
    ),
    Scenario(
        "008 update without chunks", {"f": b"x\n"}, "*** Update File: f\n", error="bad_syntax"
    ),
    Scenario(
        "008b a pure move",
        {"f": b"x\n"},
        "*** Update File: f\n*** Move to: g\n",
        {"g": b"x\n"},
    ),
    Scenario(
        "009 update a missing file",
        {"f": b"x\n"},
        "*** Update File: g\n@@\n-x\n+y\n",
        error="missing_file",
    ),
    Scenario(
        "010 move onto an existing file",
        {"f": b"x\n", "g": b"old\n"},
        "*** Update File: f\n*** Move to: g\n@@\n-x\n+y\n",
        {"g": b"y\n"},
    ),
    Scenario(
        "011 add over an existing file",
        {"f": b"x\n"},
        "*** Add File: f\n+new\n",
        {"f": b"new\n"},
    ),
    Scenario(
        "012 delete a directory", {"d/f": b"x\n"}, "*** Delete File: d\n", error="forbidden_path"
    ),
    Scenario("013 unknown header", {"f": b"x\n"}, "*** Frobnicate File: f\n", error="bad_syntax"),
    Scenario(
        "014 no final newline before, one after",
        {"f": b"only"},
        "*** Update File: f\n@@\n-only\n+first\n+second\n",
        {"f": b"first\nsecond\n"},
    ),
    Scenario(
        "015 a later failure undoes an earlier add",
        {"f": b"x\n"},
        "*** Add File: new\n+n\n*** Update File: missing\n@@\n-a\n+b\n",
        error="missing_file",
    ),
    Scenario(
        "016 pure addition goes to the end",
        {"f": b"a\n"},
        "*** Update File: f\n@@\n+b\n+c\n",
        {"f": b"a\nb\nc\n"},
    ),
    Scenario(
        "017 indented update header",
        {"f": b"a\n"},
        "  *** Update File: f\n@@\n-a\n+b\n",
        {"f": b"b\n"},
    ),
    Scenario(
        "018 padded markers outside",
        {"f": b"a\n"},
        " *** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n*** End Patch ",
        {"f": b"b\n"},
        is_whole=True,
    ),
    Scenario(
        "019 accents and an emoji",
        {"f": "\u00e9t\u00e9\n".encode()},
        "*** Begin Patch\n*** Update File: f\n@@\n-\u00e9t\u00e9\n+na\u00efve \U0001f600\n*** End Patch  \n",
        {"f": "na\u00efve \U0001f600\n".encode()},
        is_whole=True,
    ),
    Scenario(
        "020a padded markers inside",
        {"f": b"a\n"},
        "*** Begin Patch \n*** Update File: f\n@@\n-a\n+b\n *** End Patch\n",
        {"f": b"b\n"},
        is_whole=True,
    ),
    Scenario(
        "020b delete one of two",
        {"a": b"1\n", "b": b"2\n"},
        "*** Delete File: a\n",
        {"b": b"2\n"},
    ),
    Scenario(
        "021 context, removal, context",
        {"f": b"a\nb\nc\n"},
        "*** Update File: f\n@@\n a\n-b\n c\n",
        {"f": b"a\nc\n"},
    ),
    Scenario(
        "022 end of file",
        {"f": b"x\ny\nx\n"},
        "*** Update File: f\n@@\n-x\n+z\n*** End of File\n",
        {"f": b"x\ny\nz\n"},
    ),
    Scenario(
        "101 ambiguous",
        {"f": TWICE},
        "*** Update File: f\n@@\n-    x = 1\n+    x = 2\n",
        error="ambiguous",
    ),
    Scenario(
        "102 an anchor decides",
        {"f": TWICE},
        "*** Update File: f\n@@ def b():\n-    x = 1\n+    x = 2\n",
        {"f": TWICE[:-23] + b"    x = 2\n    return x\n"},
    ),
    Scenario(
        "103 stacked anchors",
        {"f": CLASSES},
        "*** Update File: f\n@@ class B\n@@ def m\n-        return 1\n+        return 2\n",
        {"f": CLASSES[:-2] + b"2\n"},
    ),
    Scenario(
        "104 tabs in the file, spaces in the patch",
        {"f": b"if x:\n\ta = 1  \n\tb = 2\n"},
        "*** Update File: f\n@@\n if x:\n     a = 1\n-    b = 2\n+\tb = 3\n",
        {"f": b"if x:\n\ta = 1  \n\tb = 3\n"},
    ),
    Scenario(
        "105 typographic quotes in the file",
        {"f": "say(\u201chi\u201d)\nx = 1\n".encode()},
        '*** Update File: f\n@@\n say("hi")\n-x = 1\n+x = 2\n',
        {"f": "say(\u201chi\u201d)\nx = 2\n".encode()},
    ),
    Scenario(
        "106 pure addition after an anchor",
        {"f": b"def f(x):\n    return x\n"},
        "*** Update File: f\n@@ def f\n+    x += 1\n",
        {"f": b"def f(x):\n    x += 1\n    return x\n"},
    ),
    Scenario(
        "107a CRLF file",
        {"f": b"a\r\nb\r\n"},
        "*** Update File: f\n@@\n-b\n+c\n+d\n",
        {"f": b"a\r\nc\r\nd\r\n"},
    ),
    Scenario(
        "107b mixed endings",
        {"f": b"a\nb\r\nc\n"},
        "*** Update File: f\n@@\n-c\n+d\n",
        {"f": b"a\nb\r\nd\n"},
    ),
    Scenario(
        "107c byte order mark",
        {"f": b"\xef\xbb\xbfa\nb\n"},
        "*** Update File: f\n@@\n-a\n+c\n",
        {"f": b"\xef\xbb\xbfc\nb\n"},
    ),
    Scenario(
        "107d a patch with CRLF",
        {"f": b"a\n"},
        "*** Begin Patch\r\n*** Update File: f\r\n@@\r\n-a\r\n+b\r\n*** End Patch\r\n",
        {"f": b"b\n"},
        is_whole=True,
    ),
    Scenario(
        "110 already applied",
        {"f": b"a\nnew\nc\n"},
        "*** Update File: f\n@@\n a\n-old\n+new\n c\n",
        {"f": b"a\nnew\nc\n"},
    ),
    Scenario(
        "111a path above the root", {"f": b""}, "*** Add File: ../x\n+a\n", error="forbidden_path"
    ),
    Scenario(
        "111b absolute path", {"f": b""}, "*** Add File: /etc/x\n+a\n", error="forbidden_path"
    ),
    Scenario(
        "111c path that leaves on the way",
        {"a/f": b""},
        "*** Add File: a/../../x\n+a\n",
        error="forbidden_path",
    ),
    Scenario(
        "111d parent is a symlink outwards",
        {"out": "/tmp", "up": "../.."},
        "*** Add File: out/x\n+a\n",
        error="forbidden_path",
    ),
    Scenario(
        "111e relative symlink outwards",
        {"up": "../.."},
        "*** Add File: up/x\n+a\n",
        error="forbidden_path",
    ),
    Scenario(
        "111f git's own files",
        {".git/config": b"c\n"},
        "*** Update File: .GIT/config\n@@\n-c\n+d\n",
        error="forbidden_path",
    ),
    Scenario(
        "111g a link into git's own files",
        {".git/config": b"c\n", "g": ".git"},
        "*** Update File: g/config\n@@\n-c\n+d\n",
        error="forbidden_path",
    ),
    Scenario(
        "111h the file itself is a symlink",
        {"real": b"a\n", "link": "real"},
        "*** Update File: link\n@@\n-a\n+b\n",
        error="forbidden_path",
    ),
    Scenario(
        "111i a parent is a file", {"f": b"x\n"}, "*** Add File: f/g\n+a\n", error="forbidden_path"
    ),
    Scenario(
        "111j move out",
        {"f": b"x\n"},
        "*** Update File: f\n*** Move to: ../f\n",
        error="forbidden_path",
    ),
    Scenario(
        "115 content that looks like markers",
        {"f": b"a\n*** Update File: x\nz\n"},
        "*** Update File: f\n@@\n a\n *** Update File: x\n-z\n+*** End Patch\n+*** Add File: y\n",
        {"f": b"a\n*** Update File: x\n*** End Patch\n*** Add File: y\n"},
    ),
    Scenario(
        "115b a padded end marker as context",
        {"f": b"*** End Patch\nz\n"},
        "*** Update File: f\n@@\n *** End Patch\n-z\n+y\n",
        {"f": b"*** End Patch\ny\n"},
    ),
    Scenario(
        "115c an added file of markers",
        {},
        "*** Add File: f\n+*** Begin Patch\n+*** End Patch\n",
        {"f": b"*** Begin Patch\n*** End Patch\n"},
    ),
    Scenario(
        "116 here-document around the text",
        {"f": b"a\n"},
        "<<'EOF'\n*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n*** End Patch\nEOF\n",
        {"f": b"b\n"},
        is_whole=True,
    ),
    Scenario(
        "116b here-document and a padded end marker",
        {"f": b"a\n"},
        "<<EOF\n*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n *** End Patch\nEOF",
        {"f": b"b\n"},
        is_whole=True,
    ),
    Scenario(
        "116c here-document without its end",
        {"f": b"a\n"},
        "<<EOF\n*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n*** End Patch\n",
        error="bad_syntax",
        is_whole=True,
    ),
    Scenario(
        "117 environment id",
        {"f": b"a\n"},
        "*** Environment ID: box-1\n*** Update File: f\n@@\n-a\n+b\n",
        {"f": b"b\n"},
    ),
    Scenario(
        "117b two environment ids",
        {"f": b"a\n"},
        "*** Environment ID: a\n*** Environment ID: b\n*** Delete File: f\n",
        error="bad_syntax",
    ),
    Scenario(
        "117c empty environment id",
        {"f": b"a\n"},
        "*** Environment ID: \n*** Delete File: f\n",
        error="bad_syntax",
    ),
    Scenario(
        "118 update, move, update under the new name",
        {"f": b"1\n2\n3\n"},
        "*** Update File: f\n@@\n-1\n+one\n*** Update File: f\n*** Move to: g\n@@\n-2\n+two\n"
        "*** Update File: g\n@@\n-3\n+three\n",
        {"g": b"one\ntwo\nthree\n"},
    ),
    Scenario(
        "118b add, then update the same file",
        {},
        "*** Add File: f\n+a\n+b\n*** Update File: f\n@@\n-b\n+c\n",
        {"f": b"a\nc\n"},
    ),
    Scenario(
        "118c delete twice",
        {"f": b"a\n"},
        "*** Delete File: f\n*** Delete File: f\n",
        error="missing_file",
    ),
    Scenario(
        "118d add after delete",
        {"f": b"a\n"},
        "*** Delete File: f\n*** Add File: f\n+b\n",
        {"f": b"b\n"},
    ),
    Scenario(
        "120a update of an empty file",
        {"f": b""},
        "*** Update File: f\n@@\n+a\n",
        {"f": b"a\n"},
    ),
    Scenario(
        "120b file of one newline",
        {"f": b"\n"},
        "*** Update File: f\n@@\n+a\n",
        {"f": b"a\n\n"},
    ),
    Scenario(
        "120c removing the only line",
        {"f": b"a\n"},
        "*** Update File: f\n@@\n-a\n",
        {"f": b""},
    ),
    Scenario("120d adding an empty file", {}, "*** Add File: f\n", {"f": b""}),
    Scenario(
        "124 chunks in reversed order",
        {"f": b"1\n2\n3\n4\n"},
        "*** Update File: f\n@@\n-3\n+c\n@@\n-1\n+a\n",
        error="context_not_found",
    ),
    Scenario(
        "the last line untouched stays without newline",
        {"f": b"a\nb"},
        "*** Update File: f\n@@\n-a\n+c\n b\n",
        {"f": b"c\nb"},
    ),
    Scenario(
        "appending closes the last line",
        {"f": b"a\nb"},
        "*** Update File: f\n@@\n b\n+c\n",
        {"f": b"a\nb\nc\n"},
    ),
    Scenario(
        "empty lines stand for empty context and separate chunks",
        {"f": b"a\n\nb\nc\nd\n"},
        "*** Update File: f\n@@\n a\n\n-b\n+B\n\n@@\n-d\n+D\n\n",
        {"f": b"a\n\nB\nc\nD\n"},
    ),
    Scenario(
        "empty lines inside an added file",
        {},
        "*** Add File: f\n+a\n\n+b\n\n",
        {"f": b"a\n\nb\n"},
    ),
    Scenario(
        "the first chunk without @@",
        {"f": b"a\nb\n"},
        "*** Update File: f\n a\n-b\n+c\n",
        {"f": b"a\nc\n"},
    ),
    Scenario(
        "a chunk that repeats its anchor",
        {"f": b"def f():\n    a\n\ndef f():\n    a\n"},
        "*** Update File: f\n@@ def f():\n def f():\n-    a\n+    b\n",
        {"f": b"def f():\n    b\n\ndef f():\n    a\n"},
    ),
    Scenario(
        "an anchor that is not there",
        {"f": b"def alpha():\n    a\n"},
        "*** Update File: f\n@@ def alpho():\n-    a\n+    b\n",
        error="context_not_found",
    ),
    Scenario(
        "binary file",
        {"f": b"a\0b\n"},
        "*** Update File: f\n@@\n-a\n+b\n",
        error="not_text",
    ),
    Scenario(
        "invalid UTF-8 elsewhere in the file is kept",
        {"f": b"\xe9t\xe9\nx\n"},
        "*** Update File: f\n@@\n-x\n+y\n",
        {"f": b"\xe9t\xe9\ny\n"},
    ),
    Scenario(
        "a garbage line in a chunk",
        {"f": b"a\n"},
        "*** Update File: f\n@@\n-a\n+b\ngarbage\n",
        error="bad_syntax",
    ),
    Scenario(
        "end of file marker without change lines",
        {"f": b"a\n"},
        "*** Update File: f\n@@\n*** End of File\n",
        error="bad_syntax",
    ),
    Scenario(
        "no end marker",
        {"f": b"a\n"},
        "*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n",
        error="bad_syntax",
        is_whole=True,
    ),
    Scenario("no text at all", {"f": b"a\n"}, " \n", error="bad_syntax", is_whole=True),
    Scenario(
        "text after the end",
        {"f": b"a\n"},
        "*** Begin Patch\n*** Delete File: f\n*** End Patch\nmore\n",
        error="bad_syntax",
        is_whole=True,
    ),
    Scenario("a NUL in the patch", {"f": b"a\n"}, "*** Add File: g\n+a\0b\n", error="bad_syntax"),
    Scenario(
        "half a surrogate pair",
        {"f": b"a\n"},
        "*** Add File: g\n+\ud83d\n",
        error="bad_syntax",
    ),
    Scenario(
        "107e an insertion takes the first ending, whatever stands around it",
        {"f": b"a\r\nb\nc"},
        "*** Update File: f\n@@\n b\n+x\n",
        {"f": b"a\r\nb\nx\r\nc"},
    ),
    Scenario(
        "107f an unterminated last line of a CRLF file gets its ending when something follows",
        {"f": b"a\r\nb"},
        "*** Update File: f\n@@\n b\n+c\n",
        {"f": b"a\r\nb\r\nc\r\n"},
    ),
    Scenario(
        "110b one chunk applied before, one not",
        {"f": b"a\nnew\nc\nold\n"},
        "*** Update File: f\n@@\n a\n-gone\n+new\n@@\n c\n-old\n+newer\n",
        {"f": b"a\nnew\nc\nnewer\n"},
    ),
    Scenario(
        "111k a share of a Windows network",
        {"f": b""},
        "*** Add File: \\\\host\\share\\x\n+a\n",
        error="forbidden_path",
    ),
    Scenario(
        "111l a directory's name", {"d/f": b""}, "*** Add File: d/\n+a\n", error="forbidden_path"
    ),
    Scenario(
        "111m what an editor runs",
        {"f": b""},
        "*** Add File: sub/.vscode/tasks.json\n+{}\n",
        error="forbidden_path",
    ),
    Scenario(
        "111n a new directory below a link outwards",
        {"up": "../.."},
        "*** Add File: up/new/deep/x\n+a\n",
        error="forbidden_path",
    ),
    Scenario(
        "111o a good file before a forbidden one",
        {"f": b"a\n"},
        "*** Update File: f\n@@\n-a\n+b\n*** Add File: ../x\n+a\n",
        error="forbidden_path",
    ),
    Scenario(
        "116d here-document with double quotes",
        {"f": b"a\n"},
        '<<"EOF"\n*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n*** End Patch\nEOF\n',
        {"f": b"b\n"},
        is_whole=True,
    ),
    Scenario(
        "118e a file under two names is one file",
        {"d/f": b"1\n2\n", "link": "d"},
        "*** Update File: d/f\n@@\n-1\n+one\n*** Update File: link/f\n@@\n-2\n+two\n",
        {"d/f": b"one\ntwo\n", "link": "d"},
    ),
    Scenario(
        "118f a new directory under two names is one directory",
        {"d/f": b"1\n", "link": "d"},
        "*** Add File: link/new/g\n+a\n*** Update File: d/new/g\n@@\n-a\n+b\n",
        {"d/f": b"1\n", "d/new/g": b"b\n", "link": "d"},
    ),
    Scenario(
        "118g a move onto the same file under another name",
        {"d/f": b"1\n", "link": "d"},
        "*** Update File: d/f\n*** Move to: link/f\n@@\n-1\n+one\n",
        {"d/f": b"one\n", "link": "d"},
    ),
    Scenario(
        "118h two names swapped by three moves",
        {"a": b"1\n", "b": b"2\n"},
        "*** Update File: a\n*** Move to: c\n*** Update File: b\n*** Move to: a\n"
        "*** Update File: c\n*** Move to: b\n",
        {"a": b"2\n", "b": b"1\n"},
    ),
    Scenario(
        "120e nothing is in an empty file",
        {"f": b""},
        "*** Update File: f\n@@\n-a\n+b\n",
        error="context_not_found",
    ),
    Scenario(
        "120f replacing the empty line of a file that has only that",
        {"f": b"\n"},
        "*** Update File: f\n@@\n-\n+a\n",
        {"f": b"a\n"},
    ),
    Scenario(
        "120g a byte order mark alone",
        {"f": b"\xef\xbb\xbf"},
        "*** Update File: f\n@@\n+a\n",
        {"f": b"\xef\xbb\xbfa\n"},
    ),
    Scenario(
        "a binary file may be renamed",
        {"f": b"\x89PNG\0"},
        "*** Update File: f\n*** Move to: g\n",
        {"g": b"\x89PNG\0"},
    ),
    Scenario(
        "a binary file may be removed", {"f": b"\0", "g": b"x"}, "*** Delete File: f\n", {"g": b"x"}
    ),
    Scenario(
        "a binary file cannot be changed",
        {"f": b"\0a\n"},
        "*** Update File: f\n@@\n-a\n+b\n",
        error="not_text",
    ),
    Scenario(
        "a line that is no text cannot be matched",
        {"f": b"\xe9t\xe9\nx\n"},
        "*** Update File: f\n@@\n-\u00e9t\u00e9\n+y\n",
        error="context_not_found",
    ),
    Scenario(
        "chunks that only add keep their order",
        {"f": b"a\nb\n"},
        "*** Update File: f\n@@\n+1\n@@\n+2\n",
        {"f": b"a\nb\n1\n2\n"},
    ),
    Scenario(
        "a name with spaces and accents",
        {"a b/\u00e9.txt": b"x\n"},
        "*** Update File: a b/\u00e9.txt\n@@\n-x\n+y\n",
        {"a b/\u00e9.txt": b"y\n"},
    ),
    Scenario(
        "a second move line",
        {"f": b"x\n"},
        "*** Update File: f\n*** Move to: g\n*** Move to: h\n@@\n-x\n+y\n",
        error="bad_syntax",
    ),
    Scenario(
        "a plain text before the patch",
        {"f": b"x\n"},
        "Here it is:\n*** Begin Patch\n*** Delete File: f\n*** End Patch\n",
        error="bad_syntax",
        is_whole=True,
    ),
]
