"""710: what Codex CLI itself measures and exports about a server."""

import pytest

from tests.e2e.codex import Codex
from tests.e2e.collector import Collector
from tests.e2e.conftest import Serve
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import Home
from tests.e2e.test_codex import TWO_TOOLS, Script, check_both_tools

pytestmark = pytest.mark.timeout(120)

TIMINGS = (
    "responses_api_overhead",
    "responses_api_inference_time",
    "responses_api_engine_iapi_ttft",
    "responses_api_engine_service_ttft",
    "responses_api_engine_iapi_tbt",
    "responses_api_engine_service_tbt",
)


async def test_710_its_metrics_contain_our_overhead(
    serve: Serve, script: Script, home: Home
) -> None:
    """One value for each of the three answers; their sum is what our timing events said."""
    served = serve("--model", script(TWO_TOOLS))
    async with Relay(served.url) as relay, Collector() as collector:
        exporter = f'{{ otlp-http = {{ endpoint = "{collector.url}", protocol = "json" }} }}'
        done = await Codex(home, relay.url, relay.origin, metrics=exporter).exec()
        check_both_tools(done, home.project)
    told = [
        event["timing_metrics"]
        for event in relay.sockets[0].received
        if event["type"] == "responsesapi.websocket_timing"
    ]
    key = "responses_duration_excl_engine_and_client_tool_time_ms"
    figures = {name: collector.histogram(f"codex.{name}.duration_ms") for name in TIMINGS}
    # Codex rounds durations to whole milliseconds: a well-behaved server exports 0 or 1 here.
    assert figures["responses_api_overhead"] == (3, sum(round(figure[key]) for figure in told))
    assert {name: count for name, (count, _) in figures.items()} == dict.fromkeys(TIMINGS, 3)
