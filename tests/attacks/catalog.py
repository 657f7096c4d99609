"""All attacks there are: the declarations of this package's modules, by number."""

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType

import tests.attacks
from tests.attacks.attack import Attack, ByTest, Probe, Prop

NUMBERS = tuple(
    f"{letter}{number}"
    for letter, last in (("F", 21), ("N", 12), ("P", 16), ("S", 4), ("W", 8), ("A", 4))
    for number in range(1, last + 1)
)
"""Files, network, processes, secrets, warm processes, agent."""

_NOT_DECLARING = {"__main__", "conftest"}


def declared() -> list[Attack | ByTest]:
    """Every attack, in the order of the list; a number declared twice is there twice."""
    found: list[Attack | ByTest] = []
    for module in _modules():
        found += getattr(module, "ATTACKS", ())
        for value in vars(module).values():
            mark = getattr(value, "attack", None)
            if isinstance(mark, ByTest) and value.__module__ == module.__name__:
                found.append(mark)
    return sorted(found, key=lambda attack: NUMBERS.index(attack.number))


def props() -> list[Prop]:
    """What all modules want to be on the host."""
    return [prop for module in _modules() for prop in getattr(module, "PROPS", ())]


def probes() -> dict[str, Probe]:
    """By ``F1 in the home directory`` and the like."""
    found: dict[str, Probe] = {}
    for attack in declared():
        for probe in attack.probes if isinstance(attack, Attack) else ():
            name = f"{attack.number} {probe.name}"
            assert name not in found, f"{name!r} is declared twice"
            found[name] = probe
    return found


def _modules() -> Sequence[ModuleType]:
    names = [info.name for info in pkgutil.iter_modules(tests.attacks.__path__)]
    return [
        importlib.import_module(f"tests.attacks.{name}")
        for name in sorted(names)
        if name not in _NOT_DECLARING
    ]
