"""Full collections wait until nobody waits for a token."""

import gc

import pytest

from tightloop.server.collecting import DUE, NEVER_IDLE, IdleCollections, without_collections


class CountingCollector:
    """Says what it is told to say, and counts."""

    def __init__(self) -> None:
        self.count = DUE
        self.threshold = (700, 10, 10)
        self.num_collected = 0
        self.is_frozen = False
        self.is_enabled = True

    def enable(self) -> None:
        self.is_enabled = True

    def disable(self) -> None:
        self.is_enabled = False

    def isenabled(self) -> bool:
        return self.is_enabled

    def collect(self) -> int:
        self.num_collected += 1
        self.count = 0
        return 0

    def freeze(self) -> None:
        self.is_frozen = True

    def unfreeze(self) -> None:
        self.is_frozen = False

    def get_count(self) -> tuple[int, int, int]:
        return 0, 0, self.count

    def get_threshold(self) -> tuple[int, int, int]:
        return self.threshold

    def set_threshold(self, young: int, middle: int, full: int, /) -> None:
        self.threshold = (young, middle, full)


@pytest.mark.parametrize(
    ("idle", "collected"),
    [
        ([True, True], [False, True]),
        ([True, False, True, True], [False, False, False, True]),
        ([False, False, False], [False, False, False]),
    ],
)
def test_a_full_collection_waits_for_two_idle_looks(
    idle: list[bool], collected: list[bool]
) -> None:
    """A server between two turns of one client is idle for a moment only."""
    looks = iter(idle)
    collections = IdleCollections(lambda: next(looks), CountingCollector())
    assert collected == [collections.look() for _ in idle]


def test_nothing_is_collected_before_it_is_due() -> None:
    collector = CountingCollector()
    collections = IdleCollections(lambda: True, collector)
    assert [collections.look() for _ in range(3)] == [False, True, False]
    collector.count = DUE - 1
    assert not collections.look()
    collector.count = DUE
    assert collections.look()


async def test_the_process_is_left_as_it_was_found() -> None:
    """The young generations keep their thresholds; the full one is the server's until it stops."""
    collector = CountingCollector()
    collections = IdleCollections(lambda: True, collector)
    collections.start()
    assert (
        collector.threshold,
        collector.is_frozen,
        collector.num_collected,
    ) == ((700, 10, NEVER_IDLE), True, 0)
    collections.stop()
    collections.stop()
    assert (collector.threshold, collector.is_frozen) == ((700, 10, 10), False)


def test_a_stop_without_a_start_changes_nothing() -> None:
    """A server that could not start is stopped too."""
    before = gc.get_threshold()
    IdleCollections(lambda: True).stop()
    assert before == gc.get_threshold()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_imports_are_not_interrupted_and_nothing_else_is_changed(is_enabled: bool) -> None:
    """Also when they fail, and where somebody has switched collections off for good."""
    collector = CountingCollector()
    collector.is_enabled = is_enabled
    seen: list[bool] = []

    def imported() -> None:
        with without_collections(collector):
            seen.append(collector.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        imported()
    assert [*seen, collector.isenabled()] == [False, is_enabled]
