"""An OpenTelemetry collector on loopback for metrics in OTLP over HTTP, JSON encoding."""

from typing import Any

import orjson
from aiohttp import web


class Collector:
    """``async with Collector()``; ``url`` is for the exporter."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Collector":
        """Listen on a free port."""
        application = web.Application(client_max_size=1 << 28)
        application.router.add_post("/v1/metrics", self._take)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/metrics"
        return self

    async def __aexit__(self, *_details: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.bodies.append(orjson.loads(await request.read()))
        return web.Response(body=b"{}", content_type="application/json")

    def histogram(self, name: str) -> tuple[int, float]:
        """How many values one histogram has taken and their sum, over all exports."""
        count, total = 0, 0.0
        for metric in self._metrics():
            if metric["name"] == name:
                for point in metric["histogram"]["dataPoints"]:
                    count += int(point["count"])
                    total += float(point["sum"])
        return count, total

    def names(self) -> set[str]:
        """The names of all metrics seen."""
        return {metric["name"] for metric in self._metrics()}

    def _metrics(self) -> list[dict[str, Any]]:
        return [
            metric
            for body in self.bodies
            for resource in body["resourceMetrics"]
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
        ]
