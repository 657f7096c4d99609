"""Seeded edits: each kind does what its name says, and the same seed the same."""

import ast
import random
from pathlib import Path

import pytest

from benchmarks.warm.body_edits import BODIES, KINDS, same_size
from benchmarks.warm.chain import MAX_EDITS, Chain
from benchmarks.warm.edits import SAME_SIZE, Edit, kinds, random_edit, write
from benchmarks.warm.module_edits import MODULES, SIGNATURES
from benchmarks.warm.sources import Source, is_plain_text
from tests.benchmarks.warm.subjects import MODULE, every_file, make_subject

SEEDS = range(40)


def emptied(text: bytes, *, keeps_inner: bool = False) -> str:
    """A module without what its functions do; maybe with the functions inside them."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_kept = (ast.FunctionDef, ast.AsyncFunctionDef) if keeps_inner else ()
            node.body = [each for each in node.body if isinstance(each, is_kept)]
    return ast.dump(tree)


@pytest.mark.parametrize("kind", [*BODIES, *KINDS])
def test_a_body_edit_leaves_the_rest_of_the_module(kind: str) -> None:
    """What is outside of functions stays, and something inside is another."""
    made = [(BODIES | KINDS)[kind](Source(MODULE), random.Random(seed)) for seed in SEEDS]
    texts = {text for text, _ in filter(None, made)}
    assert texts
    for text in texts:
        assert emptied(text) == emptied(MODULE)
        assert text != MODULE


@pytest.mark.parametrize("kind", [*SIGNATURES, *MODULES])
def test_a_module_edit_changes_more_than_bodies(kind: str) -> None:
    """Otherwise it would say nothing about the guards."""
    made = [(SIGNATURES | MODULES)[kind](Source(MODULE), random.Random(seed)) for seed in SEEDS]
    texts = {text for text, _ in filter(None, made)}
    assert texts
    if kind == "module: syntax error":
        assert not any(map(is_plain_text, texts))
    elif kind != "docstring":
        before = emptied(MODULE, keeps_inner=True)
        meant = [text for text in texts if is_plain_text(text) and text != MODULE]
        assert meant
        assert all(emptied(text, keeps_inner=True) != before for text in meant)


def test_same_size_is_what_it_says() -> None:
    made = [same_size(Source(MODULE), random.Random(seed)) for seed in SEEDS]
    texts = {text for text, _ in filter(None, made)}
    assert texts
    assert all(len(text) == len(MODULE) and text != MODULE for text in texts)


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_edit_can_be_made_and_undone(kind: str, tmp_path: Path) -> None:
    """Undoing an edit leaves every byte, and every directory, as it was."""
    subject = make_subject(tmp_path)
    before = every_file(tmp_path)
    directories = sorted(path for path in tmp_path.rglob("*") if path.is_dir())
    make = kinds()[kind][0]
    made = list(filter(None, (make(subject, random.Random(seed)) for seed in range(8))))
    assert made
    for number, (writes, about) in enumerate(made):
        undo = Edit(kind, about, writes, is_replaced=bool(number % 2)).apply(tmp_path)
        for name, content in undo.items():
            write(tmp_path / name, content)
        assert every_file(tmp_path) == before, about
    assert sorted(path for path in tmp_path.rglob("*") if path.is_dir()) == directories


def test_a_seed_gives_the_same_edits(tmp_path: Path) -> None:
    """On the same tree; that is what makes a difference repeatable."""
    subject = make_subject(tmp_path)
    edits = [random_edit(subject, random.Random(seed)) for seed in SEEDS]
    assert edits == [random_edit(subject, random.Random(seed)) for seed in SEEDS]


def test_an_edit_that_keeps_times_keeps_inode_and_size_too(tmp_path: Path) -> None:
    """Only the time of the change of the inode is left to tell."""
    path = tmp_path / "module.py"
    path.write_bytes(b"A = 1\n")
    before = path.stat()
    Edit(SAME_SIZE, "", {"module.py": b"A = 2\n"}, keeps_times=True).apply(tmp_path)
    after = path.stat()
    assert path.read_bytes() == b"A = 2\n"
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_size,
    )


def test_a_replaced_file_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_bytes(b"A = 1\n")
    with path.open("rb") as held:
        Edit("", "", {"module.py": b"A = 2\n"}, is_replaced=True).apply(tmp_path)
        assert held.read() == b"A = 1\n"
    assert sorted(tmp_path.iterdir()) == [path]


def test_chains_repeat_and_end_where_they_began(tmp_path: Path) -> None:
    """The same numbers lead to the same trees, and never far away from the start."""
    trees = []
    for name in ("one", "other"):
        subject = make_subject(tmp_path / name)
        before = every_file(subject.root)
        chain = Chain(subject, seed=5)
        seen = []
        for index in range(40):
            step = chain.step(index)
            assert step.reverted <= MAX_EDITS
            seen.append((step.edit, step.reverted, step.settles, every_file(subject.root)))
        chain.revert()
        assert every_file(subject.root) == before
        trees.append(seen)
    assert trees[0] == trees[1]
    assert any(reverted > 1 for _, reverted, _, _ in trees[0])
