"""How an attack is declared.

An ``Attack`` has its number from the list in ``catalog.py`` and one probe or more. A probe is a
function that says exactly what came of it:

- a plain function of a module in ``tests/attacks/inside`` runs as a command in the sandbox (and,
  as the control, in no isolation), in a process of its own. It gets the values of the ground and
  returns its outcome; None means ``ok``, an OSError means the name of its errno.
- a coroutine function runs in the process that owns the sandboxes and gets the ``Ground``.

The control has to end as ``control`` says, which is a success of the attack; else the test is in
error whatever the sandbox did. Attacks that fit neither form are test functions of this package
that bear ``by_test``.
"""

import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.attacks.ground import Ground

Values = Mapping[str, Any]
Inside = Callable[[Values], str | None]
Outside = Callable[[Ground], Awaitable[str]]
TestFunction = TypeVar("TestFunction", bound=Callable[..., object])

USERS = ("root", "user", "mapped")
"""uid 0; an ordinary user; an ordinary user who is uid 0 in a user namespace of his own."""
PLACES = ("plain", "overlay")
BACKENDS = ("bubblewrap", "landlock")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
"""Where the owners of settings find programs."""
CONTROL = "none"


@dataclass(frozen=True, slots=True)
class Setting:
    """Who runs the agent, and whether the workspace is a directory or an overlay mounted first."""

    user: str
    place: str

    def __str__(self) -> str:
        return f"{self.user}-{self.place}"


SETTINGS = (
    Setting("root", "plain"),
    Setting("root", "overlay"),
    Setting("user", "plain"),
    Setting("user", "overlay"),
    Setting("mapped", "overlay"),
)


@dataclass(frozen=True, slots=True)
class By:
    """An outcome that differs by user or by place; what is not named is as ``other``."""

    other: str
    root: str | None = None
    user: str | None = None
    mapped: str | None = None
    overlay: str | None = None

    def at(self, setting: Setting) -> str:
        """The outcome in one setting; the user counts before the place."""
        by_user = {"root": self.root, "user": self.user, "mapped": self.mapped}[setting.user]
        if by_user is not None:
            return by_user
        if setting.place == "overlay" and self.overlay is not None:
            return self.overlay
        return self.other


Outcome = str | By


def outcome_at(outcome: Outcome, setting: Setting) -> str:
    """What is expected in one setting."""
    return outcome if isinstance(outcome, str) else outcome.at(setting)


@dataclass(frozen=True, slots=True)
class Probe:
    """One way to try an attack, and exactly what must come of it.

    ``trace`` names a file that the attack leaves on the host: an ``ok`` without it is counted as
    ``private``, any other outcome with it as ``escaped``. ``users`` and ``places`` are where the
    control can succeed, or where a run says something that the others do not. ``gap`` says why
    a success inside is known and where it is told. ``program`` must be there for the probe to run.
    """

    name: str
    run: Inside | Outside
    bubblewrap: Outcome
    landlock: Outcome
    control: Outcome = "ok"
    users: tuple[str, ...] = USERS
    places: tuple[str, ...] = PLACES
    trace: Callable[[Ground], Path] | None = None
    gap: str = ""
    program: str = ""

    def expected(self, backend: str, setting: Setting) -> str:
        """The outcome for a backend, or for the control, in a setting."""
        outcomes = {
            "bubblewrap": self.bubblewrap,
            "landlock": self.landlock,
            CONTROL: self.control,
        }
        return outcome_at(outcomes[backend], setting)

    def is_for(self, setting: Setting) -> bool:
        """Whether the probe runs there."""
        is_there = setting.user in self.users and setting.place in self.places
        return is_there and not self.is_missing

    @property
    def is_missing(self) -> bool:
        """Whether this machine lacks what the probe needs."""
        return bool(self.program) and shutil.which(self.program, path=PATH) is None


@dataclass(frozen=True, slots=True)
class Attack:
    """One number of the list. ``platform``: another one than Linux, so it cannot run here."""

    number: str
    what: str
    probes: tuple[Probe, ...] = ()
    platform: str = ""


@dataclass(frozen=True, slots=True)
class ByTest:
    """An attack that is one test function of this package; ``result`` is for the table."""

    number: str
    what: str
    result: str


def by_test(number: str, what: str, result: str) -> Callable[[TestFunction], TestFunction]:
    """The test function is an attack of the list; its control is its own affair."""

    def mark(function: TestFunction) -> TestFunction:
        function.attack = ByTest(number, what, result)  # type: ignore[attr-defined]
        return function

    return mark


Prop = Callable[[Ground], AbstractContextManager[Mapping[str, Any]]]
"""Something of the host that attacks aim at (a service, a process); gives values for probes.

A module with probes lists its props as ``PROPS``. Names are shared by all modules.
"""


def available_settings() -> tuple[Setting, ...]:
    """Those that this process can be in or get into."""
    return tuple(one for one in SETTINGS if os.geteuid() == 0 or one.user != "root")
