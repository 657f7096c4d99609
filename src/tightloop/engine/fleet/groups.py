"""A served model and the members behind it: what must hold, what is told of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tightloop.engine.fleet.member import Member
from tightloop.engine.fleet.policy import ANSWERED_TIERS, PLAIN_NAMES, Policy
from tightloop.engine.interface import EngineError, ModelInfo


@dataclass(frozen=True, slots=True)
class ModelGroup:
    """A model's name and what stands behind it, in the order of preference where all else is equal.

    A group whose only member ``keeps_names`` stands for every model of that member's engine.
    """

    name: str
    members: Sequence[Member]
    policy: Policy = field(default_factory=Policy)

    @property
    def is_open(self) -> bool:
        """Whether its member says which models there are."""
        return self.members[0].spec.keeps_names


def check_labels(policy: Policy, group: ModelGroup) -> None:
    """Raises ValueError when ``policy`` names nothing that ``group`` has."""
    names = [member.name for member in group.members]
    tiers = sorted({member.spec.tier for member in group.members})
    known = names if policy.only else [*names, *tiers, *PLAIN_NAMES]
    for label in policy.labels:
        if label not in known:
            raise ValueError(
                f"policy {policy.name!r}: {label!r} is no backend of {group.name!r}; "
                f"choose from {', '.join(known)}"
            )


def check_groups(groups: Sequence[ModelGroup]) -> None:
    """Raises ``EngineError`` naming what two models, or two backends, have in common."""
    if not groups:
        raise EngineError("no model is configured")
    models: dict[str, ModelGroup] = {}
    members: dict[str, tuple[str, Member]] = {}
    for group in groups:
        if group.name in models:
            pair = [f"{_engines(models[group.name])}", f"{_engines(group)}"]
            raise EngineError(
                f"two models would be served as {group.name!r}: {pair[0]} and {pair[1]}; "
                "give one another name in a --config file"
            )
        models[group.name] = group
        for member in group.members:
            if member.name in members:
                other, _ = members[member.name]
                raise EngineError(
                    f"two backends are called {member.name!r}, one of {other!r} and one of "
                    f"{group.name!r}; give one another name"
                )
            members[member.name] = (group.name, member)
        try:
            check_labels(group.policy, group)
        except ValueError as error:
            raise EngineError(str(error)) from error


def name_tiers(group: ModelGroup) -> None:
    """A model with one tier has no other to set it off from."""
    if len({member.spec.tier for member in group.members}) > 1:
        for member in group.members:
            member.service_tier = ANSWERED_TIERS.get(member.spec.tier, "default")


def _engines(group: ModelGroup) -> str:
    return ", ".join(member.spec.engine or member.name for member in group.members)


def why_none_works(group: ModelGroup) -> str:
    """Each member's reason for not having started."""
    each = "; ".join(f"{m.name}: {m.start_error or 'not started'}" for m in group.members)
    return f"no backend of {group.name!r} works: {each}"


def why_none_may_be_asked(group: ModelGroup, now_ns: int) -> tuple[str, str]:
    """Why nobody can be asked now, and the code for it."""
    pauses = [member.breaker.pause_left_s(now_ns) for member in group.members if member.engine]
    if not pauses:
        return why_none_works(group), "engine_unavailable"
    # In words that Codex reads a pause from.
    pause_s = max(1, math.ceil(min(pauses)))
    text = f"every backend of {group.name!r} asked for a pause. Please try again in {pause_s}s."
    return text, "rate_limit_exceeded"


def describe(group: ModelGroup) -> ModelInfo:
    """One entry for all members: the widest window, as a member that is too small is passed over."""
    infos = [member.info for member in group.members if member.info is not None]
    if len(group.members) == 1:
        return replace(infos[0], name=group.name) if infos else ModelInfo(group.name)
    description = ", ".join(f"{member.name} ({member.spec.tier})" for member in group.members)
    return ModelInfo(
        group.name,
        description,
        max((info.context_window for info in infos), default=0),
        reads_images=any(info.reads_images for info in infos),
        prefills_early=any(info.prefills_early for info in infos),
    )
