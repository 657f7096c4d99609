"""``--status``, ``--stop`` and ``--warm-again``: for every background process of a project.

A project may have several: one per interpreter, policy and set of harmless variables.
"""

import _socket
import json
import os
import select
import sys
from pathlib import Path
from typing import Any

from tightloop.cli.testing.asked import STATUS, STOP, Asked, place_mark
from tightloop.cli.testing.link import MAX_MESSAGE_BYTES, Gone, Unusable, connect, peer
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.verdicts import ShutOff
from tightloop.sandbox.warm_commands import read_warm_tables, shut_off_of

_END_LIMIT_S = 20.0
CANNOT_DO = 125
"""As ``near.CANNOT_RUN``."""


def manage(state: str, request: Asked, *, is_json: bool) -> int:
    """Do what the request wants, say what was done; 0, or 125 and why it cannot be done."""
    try:
        _manage(state, request, is_json=is_json)
    except (Unusable, SandboxError, OSError) as error:
        _say(str(error))
        return CANNOT_DO
    return 0


def _manage(state: str, request: Asked, *, is_json: bool) -> None:
    root = Path(request.root)
    shut_off = ShutOff(Path(state).parent)
    if request.action == STATUS:
        found = _all_of(state, request)
        reason = shut_off.reason(root)
        if is_json:
            print(json.dumps({"root": str(root), "warm_is_off": reason, "processes": found}))
        else:
            _show(root, found, reason)
    elif request.action == STOP:
        found = _all_of(state, request)
        num_ended = sum(one["has_ended"] for one in found)
        _say(f"{num_ended} background process{'' if num_ended == 1 else 'es'} of {root} ended")
        for one in found:
            if not one["has_ended"]:
                _say(
                    f"{one['pid']} ends when its last run has: Ctrl-C there, or kill -9 {one['pid']}"
                )
    else:
        _allow(root, shut_off if request.verb == "test" else None, Path(state).parent)


def _allow(root: Path, tests: ShutOff | None, state_dir: Path) -> None:
    """Test runs, or without them the project's warm commands."""
    if tests is not None:
        found = [("warm runs", tests)]
    else:
        found = [
            (f"warm answers of {name}", shut_off_of(state_dir, name, table))
            for name, table in read_warm_tables(root).items()
        ]
    for what, shut_off in found:
        was_off = shut_off.turn_on(root)
        _say(f"{what} are allowed in {root}" if was_off else f"{what} were not off in {root}")


def _say(text: str) -> None:
    print(f"tightloop: {text}", file=sys.stderr)


def _show(root: Path, found: list[dict[str, Any]], reason: str) -> None:
    if not found:
        print(f"no background process for {root}: the first run starts one")
    for one in found:
        print(
            f"{one['pid']}: {one['python']}, policy {one['policy']}, {one['isolation']}, "
            f"{one['runs']} runs in {one['age_s'] / 60:.0f} min"
            f"{', busy' if one['is_busy'] else ''}; "
            f"{one['last_check'] or 'no check so far'}; ends after {one['idle_min']} idle min"
        )
    if reason:
        print(f"warm runs are off: {reason}; 'tightloop test --warm-again' allows them again")


def _all_of(state: str, request: Asked) -> list[dict[str, Any]]:
    """What each living process answers; files of dead ones are removed."""
    mark = place_mark(request.root)
    try:
        listing = sorted(os.listdir(state))
    except FileNotFoundError:
        return []
    answers = []
    for name in listing:
        if not (name.startswith(f"{mark}-") and name.endswith(".sock")):
            continue
        try:
            connection = connect(state, name.removesuffix(".sock"))
        except Gone:
            continue
        try:
            pid, _ = peer(connection)
            answer = _exchange(connection, request)
            if request.action == STATUS and not answer:
                continue  # of another version of tightloop: it ends by being asked
            answers.append(answer)
        except OSError:
            continue
        finally:
            connection.close()
        if request.action == STOP:
            answers[-1] |= {"pid": pid, "has_ended": _wait_for_end(pid)}
    return answers


def _wait_for_end(pid: int) -> bool:
    """Whether the process and its sandbox are gone; they may take too long for anybody to wait."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        return bool(select.select([pidfd], [], [], _END_LIMIT_S)[0])
    finally:
        os.close(pidfd)


def _exchange(connection: _socket.socket, request: Asked) -> dict[str, Any]:
    connection.send(request.encode())
    said: dict[str, Any] = {}
    while message := connection.recv(MAX_MESSAGE_BYTES):
        if message[:1] == b"o":
            said = json.loads(message[1:])
        elif message[:1] == b"x":
            break
    return said
