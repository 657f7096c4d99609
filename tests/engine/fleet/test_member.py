"""One backend: what is measured of it, and how it starts."""

import asyncio
from functools import partial

import pytest

from tests.engine.fleet.members import Backend
from tightloop.engine.admission import MAX_OVERTAKES
from tightloop.engine.fleet.fleet import Fleet
from tightloop.engine.fleet.groups import ModelGroup
from tightloop.engine.fleet.member import MAX_WAITING, Member, MemberSpec
from tightloop.engine.scripted import ScriptedEngine, echo_script
from tightloop.protocol.deltas import EngineTiming

S = 1_000_000_000


class Patient:
    """Waits for ever."""

    def __init__(self) -> None:
        self.calls = 0

    def admitted(self, member: Member) -> None:
        self.calls += 1


def test_nobody_waits_at_an_idle_backend() -> None:
    """Whatever was measured before: else it would never be asked again."""
    member = Backend("a").member
    for _ in range(20):
        member.note(EngineTiming(0, 3 * S, 3 * S, 4 * S))
    assert member.wait_s() == 0
    assert member.enter(Patient(), is_hurried=True)
    assert 2.9 < member.wait_s() < 3


def test_the_line_is_part_of_the_wait() -> None:
    """So many ahead, so long each, so many at once."""
    member = Backend("a", max_open=2).member
    for _ in range(60):
        member.note(EngineTiming(0, 0, 0, 4 * S))
    patients = [Patient() for _ in range(4)]
    assert [member.enter(one, is_hurried=True) for one in patients] == [True, True, False, False]
    assert round(member.wait_s(), 1) == 6.0  # three places must become free, one every 2 s
    standing = member.standing(0)
    assert standing.is_full
    assert standing.num_open == 4
    member.leave()
    assert [one.calls for one in patients] == [0, 0, 1, 0]


def test_background_work_in_line_is_overtaken_a_bounded_number_of_times() -> None:
    """However many interactive requests keep coming."""
    member = Backend("a", max_open=1).member
    first, batch = Patient(), [Patient() for _ in range(2)]
    assert member.enter(first, is_hurried=True)
    for one in batch:
        assert not member.enter(one, is_hurried=False)
    order = []
    for _ in range(2 * (MAX_OVERTAKES + 1)):
        member.enter(hurried := Patient(), is_hurried=True)
        before = [one.calls for one in batch]
        member.leave()
        order.append("hurried" if before == [one.calls for one in batch] else "batch")
        assert hurried.calls <= 1
    assert order == [*["hurried"] * MAX_OVERTAKES, "batch"] * 2
    assert [one.calls for one in batch] == [1, 1]


def test_a_line_has_an_end() -> None:
    member = Backend("a", max_open=1).member
    for _ in range(MAX_WAITING + 1):
        assert not member.is_crowded
        member.enter(Patient(), is_hurried=False)
    assert member.is_crowded


async def test_a_member_that_does_not_start_says_why() -> None:
    """An engine that is made anew each time; other errors than the engine's own count, too."""
    backend = Backend("a")
    backend.start_errors = ["no file"]
    member = backend.member
    assert not member.standing(0).is_available
    assert not await member.start()
    assert str(member.start_error) == "no file"
    assert await member.start()
    assert member.start_error is None
    assert member.info is not None
    await member.close()
    await member.close()

    def broken() -> None:
        raise OSError("disk gone")

    odd = Member(member.spec, broken)  # type: ignore[arg-type]
    assert not await odd.start()
    assert str(odd.start_error) == "OSError: disk gone"


class Stubborn(ScriptedEngine):
    """Waits for ever when it starts, where it is told to; and cannot be closed without a complaint."""

    def __init__(self, *, starts: bool) -> None:
        super().__init__(echo_script)
        self.closed = 0
        self._starts = starts

    async def start(self) -> None:
        if not self._starts:
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed += 1
        raise RuntimeError("it is jammed")


def _same(engine: Stubborn) -> Stubborn:
    return engine


async def test_a_start_that_is_broken_off_leaves_no_engine() -> None:
    engine = Stubborn(starts=False)
    start = asyncio.create_task(Member(MemberSpec("a"), lambda: engine).start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert engine.closed == 1


async def test_a_member_that_cannot_be_closed_does_not_keep_others_open() -> None:
    engines = [Stubborn(starts=True), Stubborn(starts=True)]
    members = [
        Member(MemberSpec(f"m{number}"), partial(_same, engine))
        for number, engine in enumerate(engines)
    ]
    fleet = Fleet([ModelGroup("m", members)])
    await fleet.start()
    await fleet.close()
    assert [engine.closed for engine in engines] == [1, 1]
