"""What the user knows of a model: its context window, and what its tokens cost.

As the user says it in the configuration; else its server may list the window (``model_list``)::

    [limits.models."gpt-oss-120b"]
    context_window = 131072
    input_usd = 0.35      # per million tokens
    cached_usd = 0.35
    output_usd = 0.75
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from tightloop.agent.compaction import Window
from tightloop.agent.limits import Price
from tightloop.agent.turn import Limits
from tightloop.harness.backend import Backend, UsageError
from tightloop.harness.settings import Settings
from tightloop.sandbox.policies import PolicyError, read_tables


class ModelTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table ``[limits.models.NAME]``. ``cached_usd`` is as ``input_usd`` if it is left out."""

    context_window: int | None = None
    input_usd: Decimal | None = None
    cached_usd: Decimal | None = None
    output_usd: Decimal | None = None


class LimitsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[limits]``."""

    models: dict[str, ModelTable] = {}


def limits_table(tables: Mapping[str, Any]) -> LimitsTable:
    """The table of a configuration. Raises PolicyError naming the key."""
    given = tables.get("limits", {})
    try:
        table = msgspec.convert(_as_decimals(given), LimitsTable)
    except msgspec.ValidationError as error:
        raise PolicyError(f"[limits] of the configuration: {error}") from error
    for name, model in table.models.items():
        if model.context_window is not None and model.context_window < 1:
            raise PolicyError(f"[limits.models.{name!r}]: context_window must be above 0")
        prices = (model.input_usd, model.cached_usd, model.output_usd)
        if any(price is not None and price < 0 for price in prices):
            raise PolicyError(f"[limits.models.{name!r}]: a price must not be below 0")
        if (model.input_usd is None) != (model.output_usd is None):
            raise PolicyError(
                f"[limits.models.{name!r}]: input_usd and output_usd belong together; "
                "one of them is missing"
            )
    return table


def price_of(table: LimitsTable, model: str) -> Price | None:
    """What the model's tokens cost; None when nobody said."""
    known = table.models.get(model)
    if known is None or known.input_usd is None or known.output_usd is None:
        return None
    cached = known.input_usd if known.cached_usd is None else known.cached_usd
    return Price(known.input_usd, cached, known.output_usd)


def window_of(table: LimitsTable, model: str) -> int | None:
    """The model's context window as the user set it."""
    known = table.models.get(model)
    return None if known is None else known.context_window


def _as_decimals(value: Any) -> Any:
    """Numbers with a fraction as TOML writes them, not as the nearest binary ones."""
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, dict):
        return {key: _as_decimals(inner) for key, inner in value.items()}
    return value


def completed(settings: Settings, backend: Backend) -> tuple[Limits, Window]:
    """The limits of a conversation with its model's price, and the model's window.

    Raises UsageError for a budget of money without a price, PolicyError for a wrong configuration.
    """
    table = limits_table(read_tables(settings.config))
    limits = settings.limits
    if limits.price is None:
        limits = replace(limits, price=price_of(table, backend.model))
    wants_price = limits.cost_usd is not None or limits.conversation_cost_usd is not None
    if wants_price and limits.price is None:
        raise UsageError(
            f"--max-cost: no price of {backend.model!r} is known; put a table "
            f'[limits.models."{backend.model}"] with input_usd, cached_usd and output_usd '
            "(US dollars per million tokens) into the configuration, or limit tokens instead"
        )
    return limits, Window(window_of(table, backend.model) or backend.context_window)
