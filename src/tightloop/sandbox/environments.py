"""Environments: what a set-up left, kept as a layer that workspaces are laid over.

The set-up runs at ``environments/<key>-<random>/view/<name>``, with network and secrets.
What it added stays exactly there, so absolute paths in it hold, and lies between the base and the
work of later workspaces, which have neither. ``<key>.json`` names the one that counts; a new run
makes a new directory, because the old one may be in use.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tightloop.sandbox import layers, mounts, overlay
from tightloop.sandbox.bases import Record, TreeState, lock_of, read_record, stamp_of, write_record
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.layouts import USES
from tightloop.sandbox.locks import acquire
from tightloop.sandbox.set_up import SetUp, SetUpFailed, environment_key, read_set_up
from tightloop.sandbox.virtual_environment import NAME, editable_directories, own_layer
from tightloop.trace.clock import unix_s


@dataclass(frozen=True, slots=True)
class Environment:
    """A layer of files that the repository's tree lacks.

    ``readable`` must stay readable inside the sandbox; ``root`` is what the repository is called
    in the layer's absolute paths.
    """

    layer: Path
    readable: tuple[Path, ...]
    root: Path

    def variables(self, view: Path) -> dict[str, str]:
        """What commands in ``view`` need so that they import its sources and no others."""
        places = editable_directories(self.layer / NAME, self.root)
        joined = ":".join(os.path.normpath(view / place) for place in places)
        return {"PYTHONPATH": joined} if joined else {}


@dataclass(frozen=True, slots=True)
class Found:
    """The environment for a state, if there is one; ``note`` tells a person why there is none."""

    environment: Environment | None = None
    note: str = ""


def find_environment(state: TreeState, base: Path, state_dir: Path) -> Found:
    """What a set-up left for this state, else the repository's own virtual environment.

    Nothing is run. Raises SandboxError for a ``.tightloop.toml`` that cannot be understood.
    """
    set_up = chosen_set_up(state.repository, state_dir)
    note = ""
    if set_up is not None:
        key = environment_key(set_up, state)
        directory, why_not = _current(state_dir / "environments", key)
        if directory is not None:
            stamp_of(directory.parent.parent).touch()
            return Found(Environment(directory, (directory,), directory))
        note = f"{why_not}: run 'tightloop repo preload {state.repository}'"
    layer = own_layer(state.repository, base, state_dir / "links")
    if layer is None:
        return Found(note=note)
    place = state.repository / NAME
    return Found(Environment(layer, (place,), state.repository), note)


def _current(environments: Path, key: str) -> tuple[Path | None, str]:
    """The directory that counts for the key, or why there is none."""
    record = read_record(environments / key)
    if record is None:
        return None, "the set-up has not been run for this state of the repository"
    place = environments / record.directory
    if not place.is_dir():
        return None, "what the set-up made has been collected"
    if record.expires_s <= unix_s():
        return None, "what the set-up made has expired"
    return place / "view" / Path(record.repository).name, ""


def chosen_set_up(repository: Path, state_dir: Path) -> SetUp | None:
    """What the user chose for the repository, else what the repository says."""
    try:
        return msgspec.json.decode(_choice(repository, state_dir).read_bytes(), type=SetUp)
    except FileNotFoundError:
        return read_set_up(repository)


def choose_set_up(repository: Path, state_dir: Path, set_up: SetUp | None) -> None:
    """From now on this counts for the repository; None: what the repository says counts again."""
    path = _choice(repository, state_dir)
    if set_up is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half_written = path.with_suffix(f".{secrets.token_hex(4)}")
    half_written.write_bytes(msgspec.json.encode(set_up))
    half_written.rename(path)


def _choice(repository: Path, state_dir: Path) -> Path:
    digest = TreeState(repository, None).key
    return state_dir / "set-ups" / f"{digest[:32]}.json"


async def make_environment(
    state: TreeState,
    base: Path,
    state_dir: Path,
    set_up: SetUp,
    values: Mapping[str, str],
    *,
    is_again: bool = False,
    isolation: str | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> tuple[Record, bool]:
    """The environment for this state exists; its record, and whether it was made just now.

    With ``is_again`` it is made although there is one.
    ``values`` are the secrets that the commands see. Waits for another process that makes the
    same one. Raises SetUpFailed when a command fails, or when a secret is left in a file.
    """
    environments = state_dir / "environments"
    environments.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = environment_key(set_up, state)
    lock = lock_of(environments / key)
    fd = await asyncio.to_thread(acquire, lock)
    assert fd is not None
    try:
        if not is_again and _current(environments, key)[0] is not None:
            record = read_record(environments / key)
            assert record is not None
            return record, False
        making = _Making(environments / f"{key[:16]}-{secrets.token_hex(4)}", state, base)
        try:
            await making.run(set_up, values, isolation, on_output)
            record = await asyncio.to_thread(making.finish, set_up, dict(values))
            write_record(environments / key, record)
        except BaseException:
            await asyncio.to_thread(making.drop)
            raise
    finally:
        lock.unlink(missing_ok=True)
        os.close(fd)
    return record, True


class _Making:
    """One run of a set-up, from an empty layer to a record."""

    def __init__(self, place: Path, state: TreeState, base: Path) -> None:
        self.place = place
        self.state = state
        self.base = base
        self.view = place / "view" / state.repository.name
        self.upper, self.work = place / "upper", place / "work"
        for directory in (self.view, self.upper, self.work):
            directory.mkdir(parents=True)
        (place / USES).write_text(f"{base}\n")
        self.is_mounted = False

    async def run(
        self,
        set_up: SetUp,
        values: Mapping[str, str],
        isolation: str | None,
        on_output: Callable[[bytes], None] | None,
    ) -> None:
        """Every command has succeeded, one after the other, in one sandbox."""
        await asyncio.to_thread(self._show)
        policy = Policy(self.view, allow_network=True, environment=values, warm_tests=False)
        sandbox = await open_sandbox(policy, kind=isolation, secrets=values.values())
        try:
            for number, script in enumerate(set_up.commands, 1):
                command = Command(script=script, timeout_s=set_up.timeout_s)
                result = await sandbox.run(command, on_output)
                if result.exit_code != 0:
                    how = (
                        "ran out of time" if result.timed_out else f"ended with {result.exit_code}"
                    )
                    tail = result.output[-2000:].strip()
                    raise SetUpFailed(
                        f"set-up command {number} of {len(set_up.commands)} {how}: "
                        f"{script!r}\n{tail}"
                    )
        finally:
            await sandbox.close()

    def _show(self) -> None:
        try:
            overlay.mount(self.base, self.upper, self.work, self.view)
            self.is_mounted = True
        except OSError:
            layers.copy_tree(self.base, self.view)

    def finish(self, set_up: SetUp, values: dict[str, str]) -> Record:
        """What was added lies at ``view``; raises SetUpFailed when it holds a secret."""
        layer = self.upper if self.is_mounted else self.view
        mounts.unmount(self.view)
        lost = layers.keep_what_is_new(layer, self.base)
        leaks = [f"{name} in {path!r}" for name, path in layers.files_with(values, layer)]
        if leaks:
            raise SetUpFailed(
                f"the set-up left a secret in its result: {', '.join(leaks[:5])}; let its commands "
                "remove it, since everything that runs later could read it"
            )
        if self.is_mounted:
            self.view.rmdir()
            layer.rename(self.view)
        layers.hide_from_git(self.view, self.base)
        layers.remove_tree(self.work)
        shutil.rmtree(self.upper, ignore_errors=True)
        (self.place / USES).unlink()
        size_bytes, num_files = layers.size_of(self.view)
        taken_back = f"the set-up changed files of the project, which it cannot: {', '.join(lost)}"
        now_s = unix_s()
        stamp_of(self.place).touch()
        return Record(
            *(str(self.state.repository), self.state.commit, now_s, 0, size_bytes, num_files),
            directory=self.place.name,
            expires_s=now_s + round(set_up.keep_hours * 3600),
            notes=(taken_back,) if lost else (),
        )

    def drop(self) -> None:
        """As if it had never begun."""
        mounts.unmount(self.view)
        layers.remove_tree(self.place)
