"""One timer looks after everybody who must not be silent for long."""

import asyncio

from tightloop.server.heartbeats import TICKS, Heartbeats


class Member:
    """Notes how long a silence it was asked about."""

    def __init__(self, enough: int = 1) -> None:
        self.asked: list[float] = []
        self.has_enough = asyncio.Event()
        self._enough = enough

    def beat_after(self, silence_s: float) -> None:
        self.asked.append(silence_s)
        if len(self.asked) >= self._enough:
            self.has_enough.set()


async def test_each_member_is_asked_again_and_again() -> None:
    """About a silence that is not over before the time at the next look."""
    beats = Heartbeats(0.004)
    first, second = Member(3), Member(3)
    beats.add(first)
    beats.add(second)
    await first.has_enough.wait()
    await second.has_enough.wait()
    silence_s = first.asked[0]
    assert silence_s + 0.004 / TICKS <= 0.004 + 1e-9
    assert {silence_s} == {*first.asked, *second.asked}


async def test_the_timer_runs_out_when_nobody_is_there() -> None:
    """And runs again for the next one; who has left is not asked."""
    beats = Heartbeats(0.0)
    assert not beats.is_ticking
    gone, member = Member(), Member()
    beats.add(gone)
    beats.remove(gone)
    beats.remove(gone)
    later: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.0, later.set_result, None)
    await later
    assert not beats.is_ticking
    assert gone.asked == []
    beats.add(member)
    await member.has_enough.wait()
    beats.remove(member)


async def test_who_leaves_while_others_are_asked_may() -> None:
    beats = Heartbeats(0.0)
    other = Member(2)

    class Leaver(Member):
        def beat_after(self, silence_s: float) -> None:
            super().beat_after(silence_s)
            beats.remove(self)

    leaver = Leaver()
    beats.add(leaver)
    beats.add(other)
    await other.has_enough.wait()
    assert len(leaver.asked) == 1
    beats.remove(other)
