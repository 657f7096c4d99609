"""Repositories of a known number of small files, committed."""

from pathlib import Path

from benchmarks.workshop.projects import commit, git

SMALL, LARGE = 300, 16_000
PER_FOLDER = 40
NUM_CHANGED = 5


def make_tree(place: Path, num_files: int) -> None:
    """``num_files`` files of 0.5 to 2.5 kB in folders of forty, in one commit, packed."""
    for number in range(num_files):
        file = _path(place, number)
        if number % PER_FOLDER == 0:
            file.parent.mkdir(parents=True)
        file.write_text(f"VALUE_{number} = {number}\n" * (30 + number % 90), "utf-8")
    git(place, "init", "-q")
    git(place, "config", "gc.auto", "0")  # nothing is tidied up while it is measured
    commit(place)
    git(place, "gc", "--quiet")  # as fetched repositories are


def change(place: Path, mark: str) -> None:
    """A line more in a few files of different folders."""
    for number in range(NUM_CHANGED):
        with _path(place, number * PER_FOLDER).open("a", encoding="utf-8") as file:
            file.write(f"MARK = {mark!r}\n")


def _path(place: Path, number: int) -> Path:
    return place / f"package{number // PER_FOLDER}" / f"module{number}.py"
