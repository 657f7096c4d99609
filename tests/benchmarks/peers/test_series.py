from benchmarks.lab.progress import Progress
from benchmarks.peers.per_token import of_tokens
from benchmarks.peers.reply import BadReply, Token
from benchmarks.peers.round_trip import add_differences, has_floor, ratios
from benchmarks.peers.series import Key, Series, compare, interleave, overs
from benchmarks.peers.ways import Sample


class Way:
    def __init__(self, gateway: str) -> None:
        self.gateway, self.api = gateway, "chat"


def test_rounds_stay_aligned_when_one_fails() -> None:
    """So that ratios and differences compare what was measured together."""
    calls: dict[str, int] = {"a": 0, "b": 0}

    def measure(way: Way) -> dict[str, float]:
        calls[way.gateway] += 1
        if way.gateway == "b" and calls["b"] == 1:
            raise BadReply("no\nanswer")
        return {"ttft": float(calls[way.gateway])}

    found: dict[Key, Series] = {}
    interleave([Way("a"), Way("b")], 3, measure, found, Progress("trial", 6), "trial")
    assert found["a", "chat"].values == {"ttft": [1.0, 2.0, 3.0]}
    assert found["b", "chat"].values == {"ttft": [None, 2.0, 3.0]}
    assert found["b", "chat"].errors == {"no answer": 1}
    assert found["b", "chat"].reason == ""
    (ratio,) = compare("ttft", ("a", "chat"), ("b", "chat"), found, "1k")
    assert (ratio.median, ratio.num, ratio.name) == (1.0, 2, "ttft 1k")


def test_a_way_that_mostly_failed_has_its_reason() -> None:
    series = Series()
    assert series.reason == "no round was measured"
    series.add({"ttft": 1.0})
    for _ in range(2):
        series.add(None)
        series.errors["refused"] += 1
    assert series.reason == "refused"
    assert series.known("ttft") == [1.0]


def test_what_is_added_is_the_difference_to_the_same_round() -> None:
    own, direct = Series(), Series()
    for value, floor in ((10.0, 4.0), (20.0, None), (30.0, 5.0)):
        own.add({"ttft": value})
        direct.add(None if floor is None else {"ttft": floor})
    add_differences(own, direct)
    assert own.values["added"] == [6.0, None, 25.0]


def test_nothing_is_taken_off_where_the_direct_way_is_another() -> None:
    """Without an upstream, and on cores of its own."""
    names = ("nginx", "tightloop", "tightloop, pinned", "tightloop scripted")
    assert [name for name in names if has_floor(name)] == ["nginx", "tightloop"]


def test_a_tokens_cost_is_without_the_requests() -> None:
    """Eleven tokens for 30 us more than one, 1 ms apart, each 50 us under way."""
    tokens = [Token(number * 1_000_000, number * 1_000_000 + 50_000) for number in range(11)]
    short = Sample(0, tokens[:1], 100_000, 10)
    found = of_tokens(short, Sample(0, tokens, 130_000, 10), has_cpu=True)
    assert found == {"transit": 50.0, "transit p99": 50.0, "delivered": 1000.0, "cpu": 3.0}
    assert "cpu" not in of_tokens(short, Sample(0, tokens, 0, 10), has_cpu=False)


def test_a_peer_is_compared_with_its_like_and_with_the_tight_paths() -> None:
    """Each once; our own ways with themselves on a WebSocket."""
    tight, tighter = ("tightloop", "websocket"), ("tightloop ws", "websocket")
    assert overs(("nginx", "chat")) == [("tightloop", "chat"), tight, tighter]
    assert overs(("litellm", "websocket")) == [tight, tighter]
    assert overs(("tightloop scripted", "chat")) == [("tightloop scripted", "websocket")]
    assert overs(("tightloop, pinned", "websocket")) == [tight]
    found: dict[Key, Series] = {}
    for key, value in ((("nginx", "chat"), 1.0), (tight, 2.0), (tighter, 4.0)):
        found[key] = Series()
        for _ in range(5):
            found[key].add({"ttft": value, "cpu": value, "added": value})
    made = {(each.name, each.of, each.over): each.median for each in ratios({"1k": found})}
    assert made["added 1k", "nginx, chat", "tightloop, websocket"] == 0.5
    assert made["cpu 1k", "nginx, chat", "tightloop ws, websocket"] == 0.25
    assert {of for _, of, _ in made} == {"nginx, chat"}
    assert len(made) == 6  # our own chat was not measured
