"""How much sooner ``tightloop test`` tells the verdict than ``python -m pytest``, after an edit.

Per round, each variant gets an edit of its own and is then run at once in a terminal, in random
order: an edit, the command, the verdict on the screen. Each kind of edit has a copy of the project. Between two of them the background process
may finish what it does (a person or a model reads and writes meanwhile). Prints a table and writes
``benchmarks/results/warm-tests.json``.
Usage: ``python -m benchmarks.warm.speed [--rounds N] [--projects NAME ...] [--quick]``.
"""

import argparse
import asyncio
import os
import random
import shlex
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.lab.machine import this_machine
from benchmarks.lab.progress import Progress
from benchmarks.lab.record import QUICK_RESULTS, RESULTS, Experiment, Figure, Row, paired_ratio
from benchmarks.lab.statistics import Ratio
from benchmarks.warm import projects
from benchmarks.warm.projects import PROJECTS, Project
from benchmarks.warm.sources import Source, body_of
from benchmarks.warm.terminals import Printed, command
from tightloop import __version__

NAME = "warm-tests"
TITLE = "The verdict of a test file after an edit: tightloop test beside python -m pytest"
COLD = "python -m pytest"
BODY = "function body"
KINDS = {BODY: "body", "test file": "test_file", "none": "nothing", "module constant": "signature"}
"""Edits, by the method of ``Selection`` that makes them."""
ROUNDS = 15
SEED = 1
_POLL_S = 0.1
_BUSY_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Selection:
    """One test file of a scratch copy, and the function whose body is edited.

    ``edits`` make the next text of the file that they name; the number is another each time.
    """

    project: Project
    root: Path
    test: str
    path: str
    function: str

    def body(self, number: int) -> tuple[str, bytes]:
        """A new first statement in the function."""
        source = Source(self._original(self.path))
        node = next(each.node for each in source.functions() if each.name == self.function)
        text = source.insert_before(body_of(node)[0], b"edited_%d = 1" % number)
        assert text is not None
        return self.path, text

    def test_file(self, number: int) -> tuple[str, bytes]:
        """Another assertion in one more test."""
        text = self._original(self.test)
        return self.test, text + b"\n\ndef test_edited():\n    assert %d\n" % (number + 1)

    def signature(self, number: int) -> tuple[str, bytes]:
        """One more module constant: the module must be imported anew."""
        return self.path, self._original(self.path) + b"\nEDITED = %d\n" % number

    def nothing(self, _number: int) -> tuple[str, bytes]:
        """The file as it was."""
        return self.path, self._original(self.path)

    def _original(self, path: str) -> bytes:
        return (self.project.folder / path).read_bytes()


Edit = Callable[[int], tuple[str, bytes]]


@dataclass(slots=True)
class Bench:
    """The variants of one selection. ``copies`` has a copy for each kind of edit, because an edit of
    one kind that is taken back would be part of the next. ``state`` is where the background
    processes keep theirs."""

    copies: dict[str, Selection]
    state: Path
    rng: random.Random
    samples: dict[tuple[str, str], list[Printed]] = field(default_factory=lambda: defaultdict(list))
    levels: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _number: int = 0

    def variants(self) -> dict[tuple[str, str], tuple[Selection, Edit, list[str]]]:
        """By name and kind of edit: where, which edit, and the command before pytest's words."""
        one = self.copies[BODY]
        python = [str(one.root / ".venv" / "bin" / "python"), "-m", "pytest"]
        ours = [*program(), "test", "--state-dir", str(self.state)]
        kinds = {name: (one, getattr(one, KINDS[name]), ours) for name, one in self.copies.items()}
        return {
            (COLD, BODY): (one, one.body, python),
            **{("tightloop test", name): variant for name, variant in kinds.items()},
            ("tightloop test --cold", BODY): (one, one.body, [*ours, "--cold"]),
        }

    @property
    def selection(self) -> Selection:
        """The one whose function bodies are edited."""
        return self.copies[BODY]

    async def run(self, rounds: int, progress: Progress) -> None:
        """Rounds that count, after two that do not: byte code is written, modules are learnt."""
        for number in range(-2, rounds):
            order = list(self.variants().items())
            self.rng.shuffle(order)
            for key, (selection, edit, argv) in order:
                printed = await self._one(selection, edit, argv)
                if number >= 0:
                    self.samples[key].append(printed)
                    self.levels[*key, level(printed.text)] += 1
                progress.step(f"{selection.project.name} {key[0]}, {key[1]}")

    async def _one(self, selection: Selection, edit: Edit, argv: list[str]) -> Printed:
        await self.until_idle(selection)
        self._number += 1
        path, text = edit(self._number)
        for name in (selection.path, selection.test):
            _write(selection.root / name, text if name == path else selection._original(name))
        printed = await command([*argv, "-q", selection.test], selection.root, environment())
        if printed.exit_code != 0:
            raise RuntimeError(f"{shlex.join(argv)} failed: {printed.text[-2000:]}")
        return printed

    async def until_idle(self, selection: Selection) -> None:
        """Its background process has nothing left to do, checks of verdicts included."""
        words = [*program(), "test", "--state-dir", str(self.state), "--status"]
        for _ in range(int(_BUSY_LIMIT_S / _POLL_S)):
            await asyncio.sleep(_POLL_S)
            said = await _said(words, selection.root)
            if "busy" not in said:
                return
        raise RuntimeError(f"the background process is still busy: {said}")

    async def audit(self) -> str:
        """What a check of a warm verdict says after an edit that breaks a test."""
        selection = self.selection
        path, text = selection.body(self._number + 1)
        broken = text.replace(b"edited_%d = 1" % (self._number + 1), b"raise ValueError('edited')")
        await self.until_idle(selection)
        _write(selection.root / path, broken)
        words = [
            *program(),
            "test",
            "--state-dir",
            str(self.state),
            "--audit",
            "-q",
            selection.test,
        ]
        said = await _said(words, selection.root)
        _write(selection.root / path, selection._original(path))
        return said.strip().splitlines()[-1]

    async def stop(self) -> None:
        """No background process is left."""
        for selection in self.copies.values():
            words = [*program(), "test", "--state-dir", str(self.state), "--stop"]
            await _said(words, selection.root)


def _write(path: Path, text: bytes) -> None:
    """Untouched when it has that text already."""
    if path.read_bytes() != text:
        path.write_bytes(text)


def program() -> list[str]:
    """``tightloop``: the one beside this interpreter, or what TIGHTLOOP names."""
    chosen = os.environ.get("TIGHTLOOP") or str(Path(sys.executable).with_name("tightloop"))
    return shlex.split(chosen)


def environment() -> dict[str, str]:
    """A person's: byte code is written, nothing is unbuffered."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "TERM": "xterm", "COLUMNS": "80"}


async def _said(argv: list[str], cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode(errors="replace")


def level(text: str) -> str:
    """Which level a run of ours says it took; ``cold`` where it names none."""
    _, found, rest = text.rpartition("tightloop: warm (")
    return rest.partition(")")[0] if found else "cold"


def rows(bench: Bench) -> list[Row]:
    """One for each variant and kind of edit."""
    selection, found = bench.selection, []
    for (variant, kind), printed in bench.samples.items():
        levels = {
            taken: n for (v, k, taken), n in bench.levels.items() if (v, k) == (variant, kind)
        }
        params = {"project": selection.project.name, "test": selection.test, "edit": kind}
        said = ", ".join(f"{name} {num}" for name, num in sorted(levels.items()))
        figures = {
            "verdict": Figure.of([each.verdict_ms for each in printed], "ms"),
            "end": Figure.of([each.ended_ms for each in printed], "ms"),
        }
        found.append(Row(variant, {**params, "level": said}, figures))
    return found


def ratios(bench: Bench) -> list[Ratio]:
    """How many times sooner the verdict comes, round by round."""
    cold = [each.verdict_ms for each in bench.samples[COLD, "function body"]]
    name = f"{bench.selection.project.name} {Path(bench.selection.test).name}"
    return [
        paired_ratio(f"{name}, {kind}", COLD, variant, cold, [each.verdict_ms for each in printed])
        for (variant, kind), printed in bench.samples.items()
        if variant != COLD
    ]


async def measure(names: list[str], rounds: int, place: Path) -> Experiment:
    """All selections, one after the other."""
    found_rows, found_ratios, notes = list[Row](), list[Ratio](), list[str]()
    rng = random.Random(SEED)
    timed = [(PROJECTS[name], *each) for name in names for each in PROJECTS[name].timed]
    progress = Progress("runs", len(timed) * (rounds + 2) * (len(KINDS) + 2))
    for index, (project, test, path, function) in enumerate(timed):
        copies = {}
        for number, kind in enumerate(KINDS):
            root = projects.copy(project, place / f"{index}-{number}")
            copies[kind] = Selection(project, root, test, path, function)
        bench = Bench(copies, place / "state", rng)
        try:
            await bench.run(rounds, progress)
            notes.append(f"{project.name} {test}, a failing edit, --audit: {await bench.audit()}")
        finally:
            await bench.stop()
        found_rows += rows(bench)
        found_ratios += ratios(bench)
    progress.end()
    return Experiment(
        name=NAME,
        title=TITLE,
        settings={"rounds": rounds, "terminal": True, "options": "-q"},
        machine=this_machine(),
        versions={"tightloop": __version__, "pytest": "8.4.2"},
        rows=found_rows,
        ratios=found_ratios,
        notes=notes,
    )


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--projects", nargs="+", choices=list(PROJECTS), default=list(PROJECTS))
    parser.add_argument("--quick", action="store_true", help="few rounds, kept apart")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="warm-speed-") as place:
        found = asyncio.run(measure(options.projects, rounds, Path(place).resolve()))
    print(found.table())
    path = found.write(QUICK_RESULTS if options.quick else RESULTS)
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
