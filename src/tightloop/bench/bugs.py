"""The held-out bugs: real functions of packages the bundled model never saw, each with one bug.

``bugbank.json.gz`` is built by ``training/bank.py``. Every bug is a module with one mutated
function and a pytest file that fails on it and passes on the original. Where each function comes
from, and its licence, stands in its record.
"""

import gzip
import os
import random
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec


class BenchError(Exception):
    """A benchmark cannot run here; the text says why."""


MODULE, TESTS = "target.py", "test_target.py"


class Bug(msgspec.Struct, frozen=True):
    """One bug. ``module`` is the original text of target.py, ``buggy_module`` what is given.

    ``kind`` names the mutation; ``first_line`` and ``num_lines`` say where the function stands in
    ``buggy_module`` (1-based); ``path`` and ``qualname`` where it came from.
    """

    id: str
    kind: str
    distribution: str
    version: str
    licence: str
    path: str
    qualname: str
    first_line: int
    num_lines: int
    module: str
    buggy_module: str
    tests: str


class _Bank(msgspec.Struct, frozen=True):
    format: int
    bugs: list[Bug]


def load_bugs() -> list[Bug]:
    """All held-out bugs shipped with the package, in their fixed order."""
    packed = resources.files("tightloop.bench").joinpath("bugbank.json.gz").read_bytes()
    return msgspec.json.decode(gzip.decompress(packed), type=_Bank).bugs


class CardFigures(msgspec.Struct, frozen=True):
    """What the bundled model's card says of it; ``pass_at`` maps k to a share of ``num_bugs``."""

    num_bugs: int
    num_parameters: int
    pass_at: dict[str, float]


def card_figures() -> CardFigures:
    """The figures of the evaluation on all held-out bugs, as ``training/card.py`` wrote them."""
    text = resources.files("tightloop.models").joinpath("patchling.json").read_bytes()
    return msgspec.json.decode(text, type=CardFigures)


def choose(bugs: Sequence[Bug], num: int, seed: int) -> list[Bug]:
    """``num`` bugs drawn at random without regard to their kind, functions first unrepeated.

    Raises ValueError when there are fewer.
    """
    if num > len(bugs):
        raise ValueError(f"there are {len(bugs)} bugs, {num} were asked for")
    shuffled = random.Random(seed).sample(list(bugs), len(bugs))
    seen: set[tuple[str, str]] = set()
    fresh: list[Bug] = []
    repeated: list[Bug] = []
    for bug in shuffled:
        key = (bug.path, bug.qualname)
        (repeated if key in seen else fresh).append(bug)
        seen.add(key)
    return [*fresh, *repeated][:num]


def write_repository(bug: Bug, directory: Path) -> None:
    """``directory`` is a git repository with the buggy module and its failing tests, committed.

    git sees neither the caller's ``GIT_*`` variables, which could name another repository, nor
    the user's configuration (signing, hooks, templates). Raises BenchError when it fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MODULE).write_text(bug.buggy_module, encoding="utf-8")
    (directory / TESTS).write_text(bug.tests, encoding="utf-8")
    identity = ["-c", "user.name=tightloop", "-c", "user.email=demo@localhost"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", bug.id]):
        try:
            subprocess.run(
                ["git", *command], cwd=directory, check=True, capture_output=True, env=environment
            )
        except FileNotFoundError as error:
            raise BenchError("git is not on the PATH; the demo needs it: install git") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise BenchError(f"git {command[-1]} failed: {said}") from error
