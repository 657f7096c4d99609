"""Codex CLI: one ``config.toml``; WebSocket mode, tools sent once, compaction by the server.

Source: behaviour of Codex 0.169, measured. The catalogue comes from the server by
``model_catalog_url``: only for a model in it Codex has its patch tool, and an own file would go stale.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import ConfigFile, Recipe, Setting, Target, key_setting

_CONFIG = """\
# Codex with tightloop. Where there is a config.toml already, the next three settings belong above
# its first [section], the rest below.
model = {model}
model_provider = "tightloop"
# Nothing leaves this machine unasked.
check_for_update_on_startup = false

[model_providers.tightloop]
name = "tightloop"
base_url = {url}
env_key = {key_variable}
wire_api = "responses"
# WebSocket mode: only new input is sent. Without it, all of it every time.
supports_websockets = true
# What the models can do. Without it, Codex has no patch tool.
model_catalog_url = {catalog}

[model_providers.tightloop.capabilities]
# The server sums up long conversations, in the same warm session.
remote_compaction = "v2"

[features]
# Read model_catalog_url.
api_key_model_discovery = true
# These two ask other hosts at every start.
apps = false
plugins = false

[analytics]
enabled = false

[feedback]
enabled = false

[otel]
exporter = "none"
trace_exporter = "none"
metrics_exporter = {metrics}
"""


class Codex:
    """The ``codex`` command, and everything else that reads its configuration."""

    name = "codex"
    title = "Codex CLI"
    program = "codex"
    install = "npm install -g @openai/codex"

    def recipe(self, target: Target) -> Recipe:
        text = _CONFIG.format(
            model=_string(target.model),
            url=_string(target.url),
            key_variable=_string(target.key_variable),
            catalog=_string(f"{target.url}/models"),
            metrics=_metrics(target.otel_url),
        )
        why = "names the server and turns WebSocket mode on"
        return Recipe(
            files=(ConfigFile("config.toml", "~/.codex/config.toml", text, why),),
            settings=(_key(target),),
            example=("exec", "make the failing test pass"),
            notes=(
                "Codex sends its tools once and only new input afterwards; Esc and a new message"
                " stop the running response at once.",
                "Sandbox and approvals stay as you have them: this changes the model's server only.",
            ),
        )

    def home(self, directory: Path) -> Sequence[Setting]:
        return (Setting("CODEX_HOME", str(directory), "configuration, sessions and caches"),)

    def arguments(self, target: Target, words: Sequence[str]) -> list[str]:
        return list(words)


def _key(target: Target) -> Setting:
    return key_setting(target.key_variable, target, "env_key: Codex does not start without one")


def _string(text: str) -> str:
    """A TOML basic string. Its escapes are JSON's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _metrics(otel_url: str | None) -> str:
    if otel_url is None:
        return '"none"'
    endpoint = _string(f"{otel_url.rstrip('/')}/v1/metrics")
    return f'{{ otlp-http = {{ endpoint = {endpoint}, protocol = "json" }} }}'


CLIENT = Codex()
