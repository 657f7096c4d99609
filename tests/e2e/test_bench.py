"""8xx: ``bench turn`` against real servers."""

import json

from tests.e2e.conftest import Serve, run


def test_800_both_transports_of_our_own_server(serve: Serve) -> None:
    """Every way is measured; the WebSocket sends one tool output, HTTP everything."""
    served = serve("--model", "scripted")
    done = run("bench", "turn", "--url", served.url, "--history", "10k", "--rounds", "3", "--json")
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    assert whole["failed"] == 0
    found = whole["histories"]["10k"]
    assert list(found) == ["ws", "http", "http-new"]
    for figures in found.values():
        assert figures["turns"] == 3
        assert figures["ttft_ms"]["median"] > 0
        assert figures["round_trip_overhead_ms"]["median"] > 0
    assert found["ws"]["request_bytes"]["median"] < 8_000
    assert found["http"]["request_bytes"]["median"] > 40_000


def test_801_chat_completions_and_the_table(serve: Serve) -> None:
    """For endpoints without the Responses API."""
    served = serve("--model", "scripted")
    words = ["--api", "chat", "--history", "1k", "--rounds", "2"]
    done = run("bench", "turn", "--url", served.url, *words)
    assert done.returncode == 0, done.stderr
    assert "Chat kept, resend" in done.stdout
    assert "Chat new, resend" in done.stdout
