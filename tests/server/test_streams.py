"""What is kept of responses for those who come late or come back."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tightloop.server.streams import Journal, Streams


class Reader:
    """Collects what is written to it."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def write(self, events: Sequence[bytes]) -> None:
        self.events += events


EVENTS = [b"%d" % n for n in range(6)]


@given(st.integers(0, 6), st.integers(-1, 7), st.lists(st.integers(1, 3), max_size=6))
def test_a_late_reader_misses_nothing_and_sees_nothing_twice(
    arrives: int, after: int, sizes: list[int]
) -> None:
    """Whenever it comes, it has the events above the number it gave, in order."""
    journal, late, events = Journal("r"), Reader(), list(EVENTS)
    seen = 0
    while seen < arrives:
        journal.append([events[seen]])
        seen += 1
    journal.read(late.write, after)
    for size in [*sizes, 6]:
        batch = events[seen : seen + size]
        if batch:
            journal.append(batch)
        seen += len(batch)
    journal.end()
    expected = events[max(after + 1, 0) :] if after < arrives else events[arrives:]
    assert expected == late.events


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(-1, 7))
def test_an_ended_stream_is_read_as_a_running_one(events: list[bytes], after: int) -> None:
    """Packed or not, the events and their numbers are the same."""
    journal, reader = Journal("r"), Reader()
    journal.append(events)
    running = journal.events(after)
    journal.end()
    journal.read(reader.write, after)
    assert running == journal.events(after) == reader.events
    assert len(events) == journal.num_events
    assert not journal.has_readers


def test_the_last_reader_to_leave_is_noticed_once() -> None:
    left: list[int] = []
    journal, one, two = Journal("r", lambda: left.append(1)), Reader(), Reader()
    journal.read(one.write)
    journal.read(two.write)
    journal.leave(one.write)
    assert left == []
    journal.leave(two.write)
    journal.leave(two.write)
    assert left == [1]


def test_after_the_end_nobody_can_leave_early() -> None:
    left: list[int] = []
    journal, reader = Journal("r", lambda: left.append(1)), Reader()
    journal.read(reader.write)
    journal.end()
    journal.leave(reader.write)
    assert left == []
    assert not journal.has_readers


def test_a_journal_that_keeps_nothing_still_writes() -> None:
    journal, reader = Journal("r", keeps=False), Reader()
    journal.read(reader.write)
    journal.append(EVENTS)
    assert reader.events == EVENTS
    assert journal.events() == []


def test_the_end_is_told_once_also_to_those_who_ask_later() -> None:
    told: list[str] = []
    journal = Journal("r")
    journal.when_over(lambda: told.append("early"))
    journal.end()
    journal.when_over(lambda: told.append("late"))
    assert told == ["early", "late"]


def ended(streams: Streams, name: str, size: int) -> None:
    journal = Journal(name)
    streams.add(journal)
    journal.append([b"x" * size])
    journal.end()


def test_ended_journals_are_kept_within_both_limits() -> None:
    streams = Streams(max_ended=3, max_bytes=100)
    for n in range(5):
        ended(streams, f"r{n}", 10)
    assert [n for n in range(5) if streams.get(f"r{n}")] == [2, 3, 4]
    ended(streams, "large", 95 - 8)  # and where it ends
    assert streams.get("r4") is None
    assert streams.num_bytes == 95
    ended(streams, "too large", 101)
    assert streams.num_bytes == 0


def test_running_journals_are_always_kept() -> None:
    streams = Streams(max_ended=0, max_bytes=0)
    journal = Journal("r")
    streams.add(journal)
    journal.append([b"x" * 1000])
    assert streams.get("r") is journal
    journal.end()
    assert streams.get("r") is None


def test_a_forgotten_journal_takes_no_room() -> None:
    streams = Streams()
    ended(streams, "r", 10)
    streams.forget("r")
    streams.forget("r")
    assert streams.get("r") is None
    assert streams.num_bytes == 0


def test_who_no_longer_waits_for_the_end_is_not_kept() -> None:
    """A client may come and go a thousand times while one response is made."""
    told: list[str] = []
    journal = Journal("r")

    def call() -> None:
        told.append("x")

    journal.when_over(call)
    journal.not_when_over(call)
    journal.not_when_over(call)
    assert journal.num_waiting == 0
    journal.end()
    assert told == []


def test_a_reader_that_leaves_while_it_is_called_takes_nothing_from_the_others() -> None:
    journal, other = Journal("r"), Reader()

    def once(_events: Sequence[bytes]) -> None:
        journal.leave(once)

    journal.read(once)
    journal.read(other.write)
    journal.append(EVENTS[:1])
    journal.append(EVENTS[1:])
    assert other.events == EVENTS
