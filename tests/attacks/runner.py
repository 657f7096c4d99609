"""Starts the owners of all settings, two at a time, and keeps what they say."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

import tightloop
from tests.attacks import catalog
from tests.attacks.attack import BACKENDS, CONTROL, PATH, SETTINGS, Setting
from tests.attacks.ground import TESTS
from tests.sandbox.test_own_namespace import python_for_everybody

FIRST_ORDINARY_USER = 61234
"""User ids that nobody has, one per setting: nobody else's processes count against its limits."""
_PREFIXES = {
    "root": ["unshare", "-mn", "--"],
    "user": [],
    "mapped": ["unshare", "-Urmn", "--"],
}
"""Whoever can has mounts and a network of his own, to lay out a small world: far_network.py."""
AGENTS_SECRET = "hush-hush-key"
"""A variable of the process that owns the sandboxes."""
LIMIT_S = 900.0
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What one backend showed in one setting; ``error`` says why it showed nothing."""

    outcomes: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    error: str = ""


Answers = dict[tuple[Setting, str], Answer]


def run_settings(
    settings: Iterable[Setting], names: Iterable[str], path: str | None = None
) -> Answers:
    """All answers, by setting and backend. ``path`` replaces the PATH of the owners."""
    wanted = list(names)
    known = catalog.probes()
    answers: Answers = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = {}
        for setting in settings:
            here = [name for name in wanted if known[name].is_for(setting)]
            futures[setting] = pool.submit(_run_owner, setting, here, path)
        for setting, future in futures.items():
            for backend, answer in future.result().items():
                answers[setting, backend] = answer
    return answers


def _run_owner(setting: Setting, names: list[str], path: str | None) -> dict[str, Answer]:
    is_changing = os.geteuid() == 0 and setting.user != "root"
    user = FIRST_ORDINARY_USER + SETTINGS.index(setting) if is_changing else None
    python = python_for_everybody() if is_changing else sys.executable
    prefix = _PREFIXES[setting.user]
    sources = (
        TESTS.parent,
        *(Path(module.__file__ or "").parents[1] for module in (tightloop, msgspec, pytest)),
    )
    request = {"user": setting.user, "place": setting.place, "names": names}
    done = subprocess.run(
        [*prefix, python, "-B", "-m", "tests.attacks.owner"],
        cwd="/",
        input=json.dumps(request).encode(),
        env={
            "PATH": path or PATH,
            "PYTHONPATH": ":".join(map(str, sources)),
            "LANG": "C.UTF-8",
            "X_API_KEY": AGENTS_SECRET,
        },
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
        user=user,
        group=user,
        extra_groups=[] if is_changing else None,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        return dict.fromkeys((CONTROL, *BACKENDS), Answer(error=f"exit {done.returncode}: {said}"))
    return {
        backend: Answer(
            answer.get("outcomes", {}), tuple(answer.get("left", ())), answer.get("error", "")
        )
        for backend, answer in json.loads(done.stdout).items()
    }
