"""What goes and what stays."""

import os
from pathlib import Path

import pytest

from tightloop.sandbox import layouts
from tightloop.sandbox.bases import Record, base_for, read_record, stamp_of, write_record
from tightloop.sandbox.collecting import Limits, collect, holdings
from tightloop.sandbox.locks import acquire
from tightloop.trace.clock import unix_s


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def bases_of(repository: Path, state: Path, count: int) -> list[Path]:
    """Bases of so many states, the first one used longest ago, a minute apart."""
    made = []
    for number in range(count):
        (repository / "lines").write_text(f"{number}\n")
        base = base_for(repository, state / "bases")
        used_s = unix_s() - 60 * (count - number)
        os.utime(stamp_of(base), (used_s, used_s))
        made.append(base)
    return made


def left(bases: list[Path]) -> list[bool]:
    return [base.is_dir() for base in bases]


def test_only_so_many_of_a_repository_stay(repository: Path, state: Path) -> None:
    """The ones used last; what a living workspace uses stays and counts."""
    bases = bases_of(repository, state, 5)
    _, fd = layouts.lay_out(state, "x", [bases[0]])
    removed = collect(state, Limits(num_per_repository=3))
    assert left(bases) == [True, False, False, True, True]
    assert {holding.directory for holding in removed} == {bases[1], bases[2]}
    assert [read_record(base) is None for base in bases] == [False, True, True, False, False]
    os.close(fd)
    collect(state, Limits(num_per_repository=0))
    assert left(bases) == [False] * 5


def test_what_is_old_goes(repository: Path, state: Path) -> None:
    """Unused for longer than the limit."""
    bases = bases_of(repository, state, 3)
    collect(state, Limits(max_age_s=90.0))
    assert left(bases) == [False, False, True]


def test_what_is_beyond_the_size_goes(repository: Path, state: Path) -> None:
    """Those used last are kept as long as there is room."""
    bases = bases_of(repository, state, 3)
    record = read_record(bases[0])
    assert record is not None
    collect(state, Limits(max_bytes=2 * record.size_bytes + 100))
    assert left(bases) == [False, True, True]


def test_what_belongs_to_a_lost_repository_goes(repository: Path, state: Path) -> None:
    bases = bases_of(repository, state, 1)
    repository.rename(repository.with_name("moved"))
    assert len(collect(state, Limits())) == 1
    assert left(bases) == [False]


def test_a_list_tells_all(repository: Path, state: Path) -> None:
    """The one used last first, and whether something uses it."""
    bases = bases_of(repository, state, 2)
    _, fd = layouts.lay_out(state, "x", [bases[0]])
    found = holdings(state)
    assert [(h.directory, h.is_used) for h in found] == [(bases[1], False), (bases[0], True)]
    assert [h.kind for h in found] == ["base", "base"]
    os.close(fd)
    assert holdings(state.parent / "nothing") == []
    assert collect(state.parent / "nothing", Limits()) == []


def test_left_overs_of_dead_processes_go_and_those_of_living_ones_stay(state: Path) -> None:
    """Half-made bases and environments, replaced environments, records of nothing."""
    bases, environments = state / "bases", state / "environments"
    dead, alive = "d" * 64, "a" * 64
    for key in (dead, alive):
        (bases / f"making-{key}-x").mkdir(parents=True)
        (environments / f"{key[:16]}-1234" / "view" / "name").mkdir(parents=True)
    write_record(bases / ("b" * 64), Record("/gone", None, 0))
    locks = [acquire(parent / f"{alive}.lock") for parent in (bases, environments)]
    collect(state, Limits())
    assert [p.name for p in bases.glob("making-*")] == [f"making-{alive}-x"]
    assert [p.name for p in environments.iterdir() if p.is_dir()] == [f"{alive[:16]}-1234"]
    assert list(bases.glob("*.json")) == []
    for fd in locks:
        assert fd is not None
        os.close(fd)
    collect(state, Limits())
    assert [p for p in (*bases.iterdir(), *environments.iterdir()) if p.is_dir()] == []
