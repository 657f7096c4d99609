"""States of a project that follow one another: edits, and what takes them back, all by seed."""

import random
from dataclasses import dataclass, field

from benchmarks.warm.edits import Edit, random_edit, write
from benchmarks.warm.file_edits import Subject, Writes

MAX_EDITS = 4
"""Edits that a state may differ by from the project as it is."""
_ENDING = (
    *("module: syntax error", "module: import removed", "module: statement", "deleted: module"),
    *("deleted: test file", "data: deleted", "data: read on import", "new: shadowing"),
    *("new: configuration", "function: deleted", "function: renamed"),
)
"""Kinds after which most tests fail: nothing more would be seen of further edits."""


@dataclass(slots=True)
class Step:
    """One edit; ``reverted`` says whether earlier ones were taken back with it, at once.

    ``settles`` says whether the warm process may finish what it does before the edit comes, and
    ``announces`` whether it is told of the edit before the run, as after a patch.
    """

    index: int
    edit: Edit
    reverted: int
    settles: bool
    announces: bool


@dataclass(slots=True)
class Chain:
    """The states of one project; they depend on the seed and the project alone."""

    subject: Subject
    seed: int
    _undo: list[Writes] = field(default_factory=list)
    _ends: bool = False

    def step(self, index: int) -> Step:
        """The edit of that number, applied; numbers must come in order from 0."""
        rng = random.Random(f"{self.seed} {self.subject.project.name} {index}")
        settles, announces = rng.random() < 0.7, rng.random() < 0.5
        goes_back = rng.random() < 0.4 or self._ends or len(self._undo) >= MAX_EDITS
        reverted = self.revert() if goes_back else 0
        edit = random_edit(self.subject, rng)
        self._undo.append(edit.apply(self.subject.root))
        self._ends = edit.kind in _ENDING
        return Step(index, edit, reverted, settles, announces)

    def revert(self) -> int:
        """Take every edit back, the last one first; returns how many there were."""
        num = len(self._undo)
        while self._undo:
            for name, content in self._undo.pop().items():
                write(self.subject.root / name, content)
        return num
