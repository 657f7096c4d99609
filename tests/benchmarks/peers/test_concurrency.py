from benchmarks.peers.concurrency import overload, ratios
from benchmarks.peers.crowd import RAMP_S, WINDOW_S, late, num_tokens, ramp_s
from benchmarks.peers.reply import Token
from benchmarks.peers.series import Series


def test_lateness_counts_from_when_a_token_was_due() -> None:
    """The upstream's own lateness is in it; tokens outside the window are not."""
    tokens = [Token(1000, 1500), Token(2_001_000, 2_001_900), Token(3_400_000, 3_500_000)]
    assert late(tokens, 1000.0, 0, 10_000_000) == [0.5, 1000.9, 1499.0]
    assert late(tokens, 1000.0, 2_000_000, 3_000_000) == [1000.9]
    assert late([], 1000.0, 0, 1) == []


def test_no_stream_ends_before_the_window() -> None:
    for num in (1, 256):
        assert num_tokens(50.0, num) / 50.0 > ramp_s(num) + WINDOW_S
    assert ramp_s(1) == RAMP_S
    assert ramp_s(256) > 2 * RAMP_S


def test_what_cannot_cope_is_not_asked_for_more() -> None:
    series = Series()
    assert overload(series) == ""  # warmed up only
    series.add({"delivered": 99.0})
    assert overload(series) == ""
    series.add({"delivered": 40.0})
    assert overload(series) == "delivered only 40 % with fewer streams"
    failed = Series()
    failed.errors["refused"] += 1
    assert overload(failed) == "refused"


def test_a_peer_is_compared_with_ours_asked_alike_and_on_a_websocket() -> None:
    keys = (("nginx", "chat"), ("tightloop", "chat"), ("tightloop", "websocket"))
    found = {key: Series() for key in keys}
    for series in found.values():
        series.add({"cpu": 10.0, "late p99": 1.0})
    made = {(each.name, each.of, each.over) for each in ratios({4: found})}
    assert made == {
        (f"{name} 4 streams", "nginx, chat", f"tightloop, {api}")
        for name in ("cpu", "late p99")
        for api in ("chat", "websocket")
    }
