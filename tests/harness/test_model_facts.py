"""Prices and windows: from the configuration, else from a server's list."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tightloop.agent.limits import Price
from tightloop.agent.turn import Limits
from tightloop.client.scripted import ScriptedTransport
from tightloop.harness.backend import Backend, UsageError
from tightloop.harness.model_facts import completed, limits_table, price_of, window_of
from tightloop.harness.model_list import context_window
from tightloop.harness.settings import Settings
from tightloop.sandbox.policies import PolicyError

CONFIG = """
[limits.models."a/b"]
context_window = 4096
input_usd = 0.1
output_usd = 2
"""


def settings_of(tmp_path: Path, config: str, limits: Limits | None = None) -> Settings:
    path = tmp_path / "config.toml"
    path.write_text(config)
    return Settings(repo=tmp_path, state_dir=tmp_path, config=path, limits=limits or Limits())


def backend_of(model: str, window: int | None = None) -> Backend:
    return Backend(ScriptedTransport([]), model, "scripted", context_window=window)


def test_a_price_is_exactly_what_was_written(tmp_path: Path) -> None:
    """Cached input costs as much as other input unless the user says otherwise."""
    limits, window = completed(settings_of(tmp_path, CONFIG), backend_of("a/b", 99))
    assert limits.price == Price(Decimal("0.1"), Decimal("0.1"), Decimal(2))
    assert window.num_tokens == 4096


def test_a_model_that_is_not_configured_is_as_its_server_says(tmp_path: Path) -> None:
    limits, window = completed(settings_of(tmp_path, CONFIG), backend_of("other", 99))
    assert (limits.price, window.num_tokens) == (None, 99)


@pytest.mark.parametrize("budget", ["cost_usd", "conversation_cost_usd"])
def test_a_budget_of_money_needs_a_price(tmp_path: Path, budget: str) -> None:
    """The refusal says where to write it."""
    settings = settings_of(tmp_path, CONFIG, Limits(**{budget: Decimal(1)}))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r'\[limits\.models\."other"\] with input_usd'):
        completed(settings, backend_of("other"))
    assert completed(settings, backend_of("a/b"))[0].price is not None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"models": {"m": {"input_usd": 1}}}, "belong together"),
        ({"models": {"m": {"input_usd": -1, "output_usd": 1}}}, "below 0"),
        ({"models": {"m": {"context_window": 0}}}, "above 0"),
        ({"models": {"m": {"window": 5}}}, "window"),
        ({"models": {"m": {"input_usd": "dear", "output_usd": 1}}}, "limits"),
        ({"mod_els": {}}, "mod_els"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        limits_table({"limits": table})


def test_nothing_is_known_of_nothing() -> None:
    table = limits_table({})
    assert (price_of(table, "m"), window_of(table, "m")) == (None, None)


@pytest.mark.parametrize(
    ("listed", "window"),
    [
        ({"models": [{"slug": "m", "context_window": 5}], "data": [{"id": "m"}]}, 5),
        ({"data": [{"id": "x"}, {"id": "m", "max_model_len": 6}]}, 6),
        ({"data": [{"id": "m", "context_length": 7}]}, 7),
        ({"data": [{"id": "m", "meta": {"n_ctx": 8, "n_ctx_train": 9}}]}, 8),
        ({"data": [{"id": "m", "top_provider": {"context_length": 10}}]}, 10),
        ({"data": [{"id": "m", "context_window": True}]}, None),
        ({"data": [{"id": "m", "context_window": "big"}, None]}, None),
        ([], None),
        (None, None),
    ],
)
def test_windows_in_lists(listed: object, window: int | None) -> None:
    assert context_window(listed, "m") == window
