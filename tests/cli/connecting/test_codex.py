"""Codex's config.toml."""

import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tightloop.cli.connecting.codex import CLIENT
from tightloop.cli.connecting.interface import Target

URL = "http://127.0.0.1:8099/v1"


def config(model: str = "m", *, otel_url: str | None = None) -> dict[str, Any]:
    (file,) = CLIENT.recipe(Target(URL, model, "MY_KEY", otel_url=otel_url)).files
    return tomllib.loads(file.text)


def test_websocket_mode_compaction_and_the_catalogue_are_on() -> None:
    """The four settings that make Codex fast, and the key by its variable."""
    provider = config()["model_providers"]["tightloop"]
    assert provider == {
        "name": "tightloop",
        "base_url": URL,
        "env_key": "MY_KEY",
        "wire_api": "responses",
        "supports_websockets": True,
        "model_catalog_url": f"{URL}/models",
        "capabilities": {"remote_compaction": "v2"},
    }
    features = {"api_key_model_discovery": True, "apps": False, "plugins": False}
    assert config()["features"] == features


def test_nothing_is_sent_elsewhere_unasked() -> None:
    """Analytics, feedback, update checks and telemetry are off."""
    read = config()
    assert read["check_for_update_on_startup"] is False
    assert read["analytics"] == read["feedback"] == {"enabled": False}
    assert set(read["otel"].values()) == {"none"}


def test_metrics_go_to_the_collector_that_is_named() -> None:
    """Only metrics: prompts could be in the others."""
    read = config(otel_url="http://127.0.0.1:4318/")["otel"]
    endpoint = "http://127.0.0.1:4318/v1/metrics"
    assert read["metrics_exporter"] == {"otlp-http": {"endpoint": endpoint, "protocol": "json"}}
    assert read["exporter"] == read["trace_exporter"] == "none"


def test_sandbox_and_approvals_are_the_users() -> None:
    """A model's server is no reason to loosen them."""
    assert config().keys().isdisjoint({"sandbox_mode", "approval_policy"})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_model_name_is_quoted(name: str) -> None:
    """Quotes, backslashes and control characters included."""
    assert config(name)["model"] == name


def test_its_home_is_a_directory_of_its_own() -> None:
    """Words are passed on as they are."""
    (home,) = CLIENT.home(Path("/state/codex"))
    assert (home.name, home.value) == ("CODEX_HOME", "/state/codex")
    assert CLIENT.arguments(Target(URL, "m", "K"), ["exec", "x"]) == ["exec", "x"]
