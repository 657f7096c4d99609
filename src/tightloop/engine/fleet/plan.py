"""What a fleet is to be: from a TOML file, or from engines' names on a command line.

``docs/serving.md`` shows a file with everything in it. Nothing is started here.
"""

import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tightloop.engine.fleet.breaker import BreakerSettings
from tightloop.engine.fleet.member import MemberSpec
from tightloop.engine.fleet.policy import FAST, Parameters, Policy, Price, parse_policy
from tightloop.engine.fleet.settings_table import ConfigError, Table
from tightloop.engine.interface import EngineError
from tightloop.engine.registry import (
    EngineOptions,
    check_key_env,
    check_name,
    option_names,
    served_name,
    serves_all,
)

MAX_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One backend: what the fleet needs to know, and how its engine is made."""

    spec: MemberSpec
    options: EngineOptions


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model's name, how one of its backends is picked, and what they are."""

    name: str
    policy: Policy
    members: tuple[MemberPlan, ...]


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """All models, the default one first."""

    models: tuple[ModelPlan, ...]
    takes_policies: bool = False
    decision_log: Path | None = None
    breaker: BreakerSettings = field(default_factory=BreakerSettings)


def plan_of_names(names: Sequence[str], options: EngineOptions) -> FleetPlan:
    """Each engine as a model of its own. Raises ``EngineError`` for a name that there is not."""
    models = []
    for name in names:
        check_name(name)
        called = served_name(name)
        spec = MemberSpec(called, name, keeps_names=serves_all(name))
        models.append(ModelPlan(called, Policy(), (MemberPlan(spec, options),)))
    return FleetPlan(tuple(models))


def read_plan(path: Path) -> FleetPlan:
    """The plan in a file. Raises ``ConfigError`` naming the place of what is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        values = tomllib.loads(data.decode(), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return plan_of(Table(path.name, values), path.parent)


def plan_of(table: Table, folder: Path) -> FleetPlan:
    """The plan in a decoded file; relative paths in it begin at ``folder``."""
    routing = table.table("routing")
    parameters = _parameters(routing)
    policy = _policy(routing, "latency-first", parameters)
    takes_policies = routing.flag("requests_may_choose", False)
    log = routing.text("decision_log", None)
    routing.end()
    breaker = _breaker(table.table("breaker"))
    models = tuple(_model(one, policy, folder) for one in table.tables("model"))
    table.end()
    if not models:
        raise table.error("it names no model; write one below a line [[model]]")
    return FleetPlan(models, takes_policies, folder / log if log else None, breaker)


def _parameters(table: Table) -> Parameters:
    known = Parameters()
    return Parameters(
        long_output_tokens=table.integer("long_output_tokens", known.long_output_tokens),
        usual_output_tokens=table.integer("usual_output_tokens", known.usual_output_tokens),
        usual_context_tokens=table.integer("usual_context_tokens", known.usual_context_tokens),
        spill_wait_s=float(table.number("spill_wait_s", known.spill_wait_s)),
        affinity_wait_s=float(table.number("affinity_wait_s", known.affinity_wait_s)),
    )


def _policy(table: Table, default: str, parameters: Parameters) -> Policy:
    try:
        return parse_policy(table.text("policy", default), parameters)
    except ValueError as error:
        raise table.error(str(error)) from error


def _breaker(table: Table) -> BreakerSettings:
    known = BreakerSettings()
    settings = BreakerSettings(
        max_consecutive=table.integer("max_consecutive", known.max_consecutive),
        max_error_rate=float(table.number("max_error_rate", known.max_error_rate)),
        min_requests=table.integer("min_requests", known.min_requests),
        window_s=float(table.number("window_s", known.window_s)),
        pause_s=float(table.number("pause_s", known.pause_s)),
        max_pause_s=float(table.number("max_pause_s", known.max_pause_s)),
    )
    table.end()
    if not 0 < settings.max_error_rate <= 1:
        raise table.error(
            f"max_error_rate must be above 0 and at most 1, got {settings.max_error_rate}"
        )
    return settings


def _model(table: Table, policy: Policy, folder: Path) -> ModelPlan:
    if "engine" in table and "member" in table:
        raise table.error("it has an engine of its own and members; give it one or the other")
    chosen = _policy(table, policy.name, policy.parameters)
    if "engine" in table:
        plan = _only_member(table, folder)
        return ModelPlan(plan.spec.name, chosen, (plan,))
    name = table.text("name")
    members = tuple(_member(one, folder) for one in table.tables("member"))
    table.end()
    if not members:
        raise table.error(
            "it has no engine; write engine = ..., or members, each below [[model.member]]"
        )
    return ModelPlan(name, chosen, members)


def _only_member(table: Table, folder: Path) -> MemberPlan:
    """A model that is one backend; without a name of its own it has its engine's."""
    plan = _member(table, folder, is_named=False)
    if plan.spec.keeps_names and "name" in table:
        raise table.error("an engine that serves every model of a host gives them their names")
    return plan


def _member(table: Table, folder: Path, *, is_named: bool = True) -> MemberPlan:
    engine = _located(table.text("engine"), folder)
    try:
        check_name(engine)
    except EngineError as error:
        raise table.error(str(error)) from error
    if is_named and serves_all(engine):
        raise table.error(f"a member serves one model; name it in the engine, got {engine!r}")
    name = table.text("name") if is_named else table.text("name", served_name(engine))
    spec = MemberSpec(
        name=name,
        engine=engine,
        tier=table.text("tier", FAST),
        price=_price(table.table("price")),
        max_open=table.integer("max_concurrency", None) or 0,
        first_token_timeout_s=_seconds(table, "first_token_timeout_s"),
        keeps_names=serves_all(engine),
    )
    plan = MemberPlan(spec, _options(table, engine))
    table.end()
    return plan


def _price(table: Table) -> Price:
    """US dollars for a million tokens; input from a cache costs what other input does, unless said."""
    fresh = table.number("input", Decimal(0))
    price = Price(fresh, table.number("cached", fresh), table.number("output", Decimal(0)))
    table.end()
    return price


def _seconds(table: Table, name: str) -> float | None:
    value = table.number(name, None)
    if value is not None and value == 0:
        raise table.error(f"{name} must be above 0")
    return None if value is None else float(value)


_KNOWN: Final = EngineOptions()
_OPTIONS: Final[dict[str, Callable[[Table], Any]]] = {
    "num_context": lambda table: table.integer("context", None),
    "num_threads": lambda table: table.integer("threads", None),
    "num_sequences": lambda table: table.integer("sequences", _KNOWN.num_sequences),
    "has_drafts": lambda table: table.choice("drafts", ("auto", "off"), "auto") == "auto",
    "warm_bytes": lambda table: _bytes(table, "warm_memory_mb"),
    "saved_bytes": lambda table: _bytes(table, "saved_memory_mb"),
    "api_key_env": lambda table: _variable(table, "key_env"),
}
"""How a field of the engine's options is read."""


def _options(table: Table, engine: str) -> EngineOptions:
    """How the engine is made. What has no effect on it is refused."""
    return EngineOptions(**{name: _OPTIONS[name](table) for name in option_names(engine)})


def _bytes(table: Table, name: str) -> int | None:
    value: int | None = table.integer(name, None, least=0)
    return None if value is None else value * 1_000_000


def _variable(table: Table, name: str) -> str:
    value: str = table.text(name, _KNOWN.api_key_env)
    try:
        check_key_env(value)
    except EngineError as error:
        raise table.error(str(error)) from error
    return value


def _located(engine: str, folder: Path) -> str:
    """The engine's name with its file's path made absolute."""
    kind, colon, rest = engine.partition(":")
    if kind == "scripted" and rest:
        return f"{kind}{colon}{folder / rest}"
    if engine.endswith(".gguf") and not engine.startswith("hf:"):
        return str(folder / os.path.expanduser(engine))
    return engine
