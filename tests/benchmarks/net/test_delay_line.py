import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.net.delay_line import BACKLOG_S, DelayLine

GAPS = st.lists(st.integers(0, 5_000_000), min_size=1, max_size=40)


@given(GAPS, st.integers(0, 100_000_000))
@settings(max_examples=50)
def test_every_packet_goes_out_exactly_after_the_delay(gaps: list[int], delay_ns: int) -> None:
    """In order, none lost, none a nanosecond early or late."""
    line, now_ns, came = DelayLine(delay_ns), 0, []
    for number, gap in enumerate(gaps):
        now_ns += gap
        line.push(now_ns, bytes([number]))
        came.append(now_ns)
    for number, at_ns in enumerate(came):
        due_ns = at_ns + delay_ns
        assert due_ns == line.due_ns()
        assert line.pop(due_ns - 1) is None
        assert bytes([number]) == line.pop(due_ns)
    assert line.due_ns() is None
    assert (len(gaps), len(gaps), 0) == (line.num_packets, line.num_bytes, line.num_dropped)


def test_a_bottleneck_lets_packets_leave_one_after_the_other() -> None:
    """1000 bytes at a megabyte a second take a millisecond each; the delay comes on top."""
    line = DelayLine(5_000_000, bytes_per_s=1e6)
    for _ in range(3):
        line.push(0, bytes(1000))
    due = []
    while (at_ns := line.due_ns()) is not None:
        line.pop(at_ns)
        due.append(at_ns)
    assert due == [6_000_000, 7_000_000, 8_000_000]


def test_an_idle_bottleneck_is_free_again() -> None:
    line = DelayLine(0, bytes_per_s=1e6)
    line.push(0, bytes(1000))
    line.push(10_000_000, bytes(1000))
    line.pop(1_000_000)
    assert line.due_ns() == 11_000_000


def test_a_full_queue_drops_what_comes_and_counts_it() -> None:
    """The queue holds what the bottleneck sends in ``BACKLOG_S``, and the packet it is sending."""
    line = DelayLine(0, bytes_per_s=1e6)
    num_kept = int(BACKLOG_S * 1e6 / 1000) + 1
    for _ in range(num_kept + 5):
        line.push(0, bytes(1000))
    assert (num_kept, 5) == (line.num_packets, line.num_dropped)


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative, got -1"):
        DelayLine(-1)
