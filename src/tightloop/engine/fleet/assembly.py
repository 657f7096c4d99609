"""From a plan to a fleet, and to the table that shows it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tightloop.engine.fleet.decisions import DecisionLog
from tightloop.engine.fleet.fleet import Fleet
from tightloop.engine.fleet.groups import ModelGroup, check_groups
from tightloop.engine.fleet.member import Member
from tightloop.engine.fleet.plan import FleetPlan, MemberPlan, ModelPlan
from tightloop.engine.interface import EngineError
from tightloop.engine.registry import EngineOptions, check_files, create_engine, is_local
from tightloop.trace.clock import Clock


def build_fleet(plan: FleetPlan, *, clock: Clock | None = None) -> Fleet:
    """The fleet, not started; its decision log is open.

    Raises ``EngineError`` for names that collide and for a log that cannot be written.
    """
    groups = [_group(model, plan) for model in divide_cores(plan).models]
    check_groups(groups)  # before a file is made
    return Fleet(
        groups, takes_policies=plan.takes_policies, recorder=_recorder(plan, clock), clock=clock
    )


def _group(model: ModelPlan, plan: FleetPlan) -> ModelGroup:
    members = [
        Member(one.spec, partial(create_engine, one.spec.engine, one.options), plan.breaker)
        for one in model.members
    ]
    return ModelGroup(model.name, members, model.policy)


def _recorder(plan: FleetPlan, clock: Clock | None) -> DecisionLog | None:
    if plan.decision_log is None:
        return None
    try:
        return DecisionLog(plan.decision_log, clock=clock)
    except OSError as error:
        raise EngineError(
            f"cannot write the decision log {plan.decision_log}: {error.strerror}"
        ) from error


def divide_cores(plan: FleetPlan) -> FleetPlan:
    """Local engines that were not told their threads get equal shares of the cores.

    Each has a thread of its own that computes; together they would otherwise want the machine
    as many times as there are engines.
    """
    local = [one for model in plan.models for one in model.members if is_local(one.spec.engine)]
    if len(local) < 2:
        return plan
    from tightloop.engine.llama_cpp.fit import physical_cores

    share = max(1, physical_cores() // len(local))
    models = tuple(
        replace(model, members=tuple(_sharing(one, share) for one in model.members))
        for model in plan.models
    )
    return replace(plan, models=models)


def _sharing(member: MemberPlan, share: int) -> MemberPlan:
    if not is_local(member.spec.engine) or member.options.num_threads is not None:
        return member
    return replace(member, options=replace(member.options, num_cores=share))


def table_of(plan: FleetPlan) -> str:
    """The plan as text for a person, everything resolved; engines are made to see whether they can be.

    Raises ``EngineError`` as ``build_fleet`` does, and for an engine that cannot be made.
    """
    plan = divide_cores(plan)
    check_groups([_group(model, plan) for model in plan.models])
    if plan.decision_log is not None and plan.decision_log.is_dir():
        raise EngineError(f"cannot write the decision log {plan.decision_log}: it is a directory")
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    rows.append(("model", "backend", "tier", "price in/cached/out", "at once", "engine", "options"))
    for model in plan.models:
        for one in model.members:
            note = _look_at(one)
            if note and note not in notes:
                notes.append(note)
            rows.append(_row(model, one))
    lines = _aligned(rows)
    for model in plan.models:
        lines.append(f"policy of {model.name}: {model.policy.name}")
    chosen = "may" if plan.takes_policies else "may not"
    lines.append(f"requests {chosen} name their policy in metadata (tightloop.tier_policy)")
    lines.append(f"decision log: {plan.decision_log or 'none'}")
    return "\n".join([*lines, *notes])


def _look_at(one: MemberPlan) -> str:
    """What is to be known of its files. Raises ``EngineError`` with the backend's name."""
    create_engine(one.spec.engine, one.options)
    try:
        return check_files(one.spec.engine)
    except EngineError as error:
        raise EngineError(f"{one.spec.name}: {error}", code=error.code) from error


def _row(model: ModelPlan, one: MemberPlan) -> tuple[str, ...]:
    spec, price = one.spec, one.spec.price
    prices = f"{price.input_usd}/{price.cached_usd}/{price.output_usd}"
    at_once = str(spec.max_open or "-")
    return (model.name, spec.name, spec.tier, prices, at_once, spec.engine, _options(one))


def _options(one: MemberPlan) -> str:
    known, options = EngineOptions(), one.options
    words = {
        "context": (options.num_context, known.num_context),
        "threads": (options.num_threads, known.num_threads),
        "cores": (options.num_cores, known.num_cores),
        "sequences": (options.num_sequences, known.num_sequences),
        "drafts": ("auto" if options.has_drafts else "off", "auto"),
        "warm_bytes": (options.warm_bytes, known.warm_bytes),
        "saved_bytes": (options.saved_bytes, known.saved_bytes),
        "key_env": (options.api_key_env, known.api_key_env),
        "first_token_timeout_s": (one.spec.first_token_timeout_s, None),
    }
    return " ".join(f"{name}={value}" for name, (value, usual) in words.items() if value != usual)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
