"""Codex CLI as it comes from its registry, configured for one server."""

import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.e2e.stock_clients import Done, Home, installed, run

MODEL = "scripted"
OUTWARD_FEATURES = ("apps", "plugins")
"""Those that would look for something on other hosts at the start."""


@dataclass(frozen=True, slots=True)
class Codex:
    """One way to configure it. ``lite`` None takes the server's own catalog unchanged."""

    home: Home
    url: str
    origin: str
    model: str = MODEL
    websockets: bool = True
    lite: bool | None = False
    options: tuple[str, ...] = ()
    """Lines for the top of the configuration."""
    provider: tuple[str, ...] = ()
    """Lines for the end: they belong to the provider, or open tables of their own."""
    metrics: str = "none"
    catalog: dict[str, Any] = field(default_factory=dict)
    """Fields that differ from the server's catalog entry."""

    async def configure(self) -> dict[str, str]:
        """Write the home; the environment to run it with."""
        folder = self.home.home / "codex"
        folder.mkdir(exist_ok=True)
        options = list(self.options)
        if self.lite is not None:
            path = folder / "catalog.json"
            path.write_text(json.dumps(await self._own_catalog()), "utf-8")
            options.append(f"model_catalog_json = {json.dumps(str(path))}")
        provider = list(self.provider)
        if self.lite is None:
            provider.insert(0, f'model_catalog_url = "{self.url}/models"')
        lines = [
            f'model = "{self.model}"',
            'model_provider = "tightloop"',
            'approval_policy = "never"',
            'sandbox_mode = "danger-full-access"',
            "check_for_update_on_startup = false",
            *options,
            "[features]",
            *(f"{feature} = false" for feature in OUTWARD_FEATURES),
            "[analytics]",
            "enabled = false",
            "[feedback]",
            "enabled = false",
            "[otel]",
            'exporter = "none"',
            'trace_exporter = "none"',
            f"metrics_exporter = {self.metrics if self.metrics != 'none' else json.dumps('none')}",
            "[model_providers.tightloop]",
            'name = "tightloop"',
            f'base_url = "{self.url}"',
            'env_key = "TIGHTLOOP_API_KEY"',
            'wire_api = "responses"',
            f"supports_websockets = {str(self.websockets).lower()}",
            *provider,
        ]
        (folder / "config.toml").write_text("\n".join(lines) + "\n", "utf-8")
        return self.home.environment(
            self.origin, CODEX_HOME=str(folder), TIGHTLOOP_API_KEY="none needed"
        )

    async def _own_catalog(self) -> dict[str, Any]:
        """The server's catalog with Lite mode switched as this configuration wants it."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/models") as answer:
            catalog: dict[str, Any] = await answer.json()
        for entry in catalog["models"]:
            entry["use_responses_lite"] = self.lite
            entry.update(self.catalog)
        return catalog

    def argv(self, task: str = "go") -> list[str]:
        """``codex exec`` with one task."""
        return [program(), "exec", "--json", "--skip-git-repo-check", task]

    async def exec(self, task: str = "go") -> Done:
        """``codex exec`` to its end."""
        env = await self.configure()
        return await run(self.argv(task), self.home, env)


def program() -> str:
    """The installed program."""
    return installed("npm", "node_modules", ".bin", "codex")


def items(done: Done, kind: str) -> list[dict[str, Any]]:
    """The completed items of one type that ``codex exec --json`` printed."""
    return [
        line["item"]
        for line in done.lines
        if line["type"] == "item.completed" and line["item"]["type"] == kind
    ]


def usage(done: Done) -> dict[str, int]:
    """What it says the turn used."""
    ended: dict[str, int] = next(
        line["usage"] for line in done.lines if line["type"] == "turn.completed"
    )
    return ended
