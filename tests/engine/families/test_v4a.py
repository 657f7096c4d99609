"""Patches that every applier puts where they belong."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.agent.patch.apply import PatchStream
from tightloop.engine.families.v4a import patched_path, reapply, write_patch

TEXT = '''"""Math."""


def low(a, b):
    if a < b:
        return a
    return b


def high(a, b):
    if a < b:
        return a
    return b
'''
LINES = TEXT.splitlines()


def changed(line: int, new: str, text: str = TEXT) -> str:
    lines = text.splitlines()
    lines[line] = new
    return "\n".join(lines) + "\n"


def applied(folder: Path, patch: str, text: str) -> str:
    """What the agent's patch tool makes of it."""
    (folder / "m.py").write_text(text)
    stream = PatchStream(folder)
    stream.feed(patch)
    outcome = stream.commit()
    assert outcome.is_ok, outcome.as_text()
    return (folder / "m.py").read_text()


def test_one_line_in_the_envelope() -> None:
    patch = write_patch("m.py", TEXT, changed(12, "    return max(a, b)"), def_line=9)
    assert patch == (
        "*** Begin Patch\n*** Update File: m.py\n@@ def high(a, b):\n"
        "     if a < b:\n         return a\n-    return b\n+    return max(a, b)\n*** End Patch\n"
    )
    assert patched_path(patch) == "m.py"


def test_taking_back_and_changing_elsewhere_is_one_patch(tmp_path: Path) -> None:
    first = changed(10, "    if a > b:")
    second = changed(12, "    return a")
    patch = write_patch("m.py", first, second, def_line=9)
    assert patch.count("*** Update File") == 1
    assert second == applied(tmp_path, patch, first) == reapply(patch, first)


def test_a_changed_def_line_has_no_anchor(tmp_path: Path) -> None:
    target = changed(9, "def high(b, a):")
    patch = write_patch("m.py", TEXT, target, def_line=9)
    assert "@@\n" in patch
    assert target == applied(tmp_path, patch, TEXT)


def test_methods_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    body = "    def get(self):\n        x = 1\n        return x\n"
    text = f"class A:\n{body}\n\nclass B:\n{body}"
    lines = text.splitlines()
    second = lines.index("class B:") + 1
    target = changed(second + 2, "        return -x", text)
    patch = write_patch("m.py", text, target, def_line=second)
    assert target == applied(tmp_path, patch, text) == reapply(patch, text)


def test_the_end_of_a_file_without_newline(tmp_path: Path) -> None:
    text = "def f():\n    return 1"
    patch = write_patch("m.py", text, "def f():\n    return 2", def_line=0)
    assert reapply(patch, text) == "def f():\n    return 2"
    assert applied(tmp_path, patch, text).rstrip("\n") == "def f():\n    return 2"


def test_equal_texts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"nothing to change in m\.py"):
        write_patch("m.py", TEXT, TEXT, def_line=3)


def test_a_patch_for_another_text_does_not_fit() -> None:
    patch = write_patch("m.py", TEXT, changed(12, "    pass"), def_line=9)
    assert reapply(patch, "something else\n") is None
    assert reapply(patch, TEXT.replace("return b", "return c")) is None
    assert patched_path("hello") is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_any_pair_of_one_line_changes_of_a_repetitive_file(seed: int) -> None:
    """Half the lines are equal, so only a careful choice of context lands in the right place."""
    rng = random.Random(seed)
    body = [rng.choice(["    a = 1", "    b = 2", "", "    return a"]) for _ in range(12)]
    lines = ["def f():", *body, "def f():", *body, "def g():", *body]
    def_line = rng.choice([0, 13, 26])
    original = "\n".join(lines) + "\n"
    current, target = (
        changed(def_line + 1 + rng.randrange(12), f"    c = {value}", original) for value in (3, 4)
    )
    patch = write_patch("m.py", current, target, def_line=def_line)
    assert target == reapply(patch, current)
