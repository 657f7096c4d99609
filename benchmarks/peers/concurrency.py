"""Experiment 6: many streams at a time, and a thousand idle sessions.

Each stream is paced; ``late`` is the time from when a token was due upstream until the client had
read it, over the tokens of the middle of the streams, so that requests are not in it. ``delivered`` is
the share of the tokens due. A gateway that delivers much less is not asked for more streams. For the
idle sessions, ``memory`` is what the resident memory of a fresh process grew by, per open conversation.
"""

import math
import random
from collections.abc import Sequence

from benchmarks.lab.processes import NotStarted, pause
from benchmarks.lab.progress import Progress
from benchmarks.lab.record import Experiment, Figure, Machine, Ratio, Row, this_machine
from benchmarks.peers.bodies import Bodies, create
from benchmarks.peers.client import WebSocketClient, checked
from benchmarks.peers.crowd import SIZE, WINDOW_S, num_tokens, stream
from benchmarks.peers.field import Field
from benchmarks.peers.gateways import Door
from benchmarks.peers.reply import BadReply
from benchmarks.peers.series import OURS, Key, Series, compare, missing_rows, one_line, overs, warm
from benchmarks.peers.ways import Way
from tightloop.trace.clock import now_ns

NAME = "concurrency"
RATE = 50.0
LEVELS, QUICK_LEVELS = (1, 4, 16, 64, 256), (1, 8)
FULL_ROUNDS, QUICK_ROUNDS = 3, 1
SESSIONS, QUICK_SESSIONS = 1000, 50
SESSIONS_LIMIT_S = 60.0
NUM_WARMUP = 10
MIN_SHARE = 0.7
WAYS = (
    ("direct", "chat"),
    ("direct", "websocket"),
    ("nginx", "chat"),
    ("vllm-router", "chat"),
    ("agentic-api", "websocket"),
    ("litellm", "chat"),
    ("litellm", "websocket"),
    ("tightloop", "chat"),
    ("tightloop", "websocket"),
    ("tightloop ws", "websocket"),
    ("tightloop scripted", "websocket"),
)
FIGURES = {"late p50": "ms", "late p99": "ms", "cpu": "us/token", "delivered": "%", "rss": "MB"}


def run(field: Field, *, is_quick: bool) -> Experiment:
    """Measure everything that is up."""
    machine = this_machine()
    levels = QUICK_LEVELS if is_quick else LEVELS
    rounds = QUICK_ROUNDS if is_quick else FULL_ROUNDS
    keys = [key for key in WAYS if key[0] in field.doors]
    progress = Progress(NAME, len(levels) * rounds * len(keys) + len(keys))
    found: dict[int, dict[Key, Series]] = {0: warmed(field, keys)}
    for level in levels:
        before = found[max(found)]
        found[level] = measure_level(field, keys, level, rounds, before, progress)
    del found[0]
    num_sessions = QUICK_SESSIONS if is_quick else SESSIONS
    idle = idle_rows(field, [key for key in keys if key[1] == "websocket"], num_sessions, progress)
    progress.end()
    return experiment(field, found, idle, machine, rounds)


def warmed(field: Field, keys: Sequence[Key]) -> dict[Key, Series]:
    """Each way has answered; the series of one that does not says why."""
    field.pace(1000.0, 1)
    found: dict[Key, Series] = {}
    for gateway, api in keys:
        way = Way(gateway, field.doors[gateway], api, SIZE)
        if warm(way, 1, found):
            found[gateway, api] = Series()
        way.close()
    return found


def measure_level(
    field: Field,
    keys: Sequence[Key],
    level: int,
    rounds: int,
    before: dict[Key, Series],
    progress: Progress,
) -> dict[Key, Series]:
    """All ways with ``level`` streams, unless they could not cope with fewer."""
    found = {key: Series() for key in keys}
    field.pace(RATE, num_tokens(RATE, level))
    rng = random.Random(level)
    for _ in range(rounds):
        for key in rng.sample(keys, len(keys)):
            progress.step(f"{level} streams")
            series = found[key]
            if reason := overload(before[key]):
                series.errors[reason] += 1
                continue
            try:
                series.add(figures(field.doors[key[0]], key[1], level))
            except BadReply as error:
                series.add(None)
                series.errors[one_line(error)] += 1
    return found


def overload(series: Series) -> str:
    """Why more streams make no sense; "" when they do."""
    if not series.num and not series.errors:
        return ""
    if series.reason:
        return series.reason
    share = min(series.known("delivered"))
    if share < 100 * MIN_SHARE:
        return f"delivered only {share:.0f} % with fewer streams"
    return ""


def figures(door: Door, api: str, level: int) -> dict[str, float]:
    """One crowd of streams."""
    found = stream(door, api, level, RATE)
    late = sorted(found.lateness_us)
    values = {
        "late p50": late[len(late) // 2] / 1e3,
        "late p99": late[math.ceil(0.99 * len(late)) - 1] / 1e3,
        "delivered": 100 * found.share,
    }
    if door.program:
        values |= {"cpu": found.cpu_us, "rss": door.program.rss_bytes() / 1e6}
    return values


def idle_rows(field: Field, keys: Sequence[Key], num_wanted: int, progress: Progress) -> list[Row]:
    """What an open, idle conversation costs each gateway in memory."""
    field.pace(0.0, 1)
    made = []
    for gateway, api in keys:
        progress.step("idle sessions")
        if field.doors[gateway].program is None:
            continue
        params: dict[str, str | int | float | bool] = {"api": api, "streams": "idle"}
        try:
            with field.fresh(gateway) as door:
                way = Way(gateway, door, api, SIZE)
                way.warm_up(NUM_WARMUP, 1)
                way.close()
                made.append(Row(gateway, params, memory(door, num_wanted)))
        except (BadReply, NotStarted, OSError) as error:
            made.append(Row(gateway, params, {}, missing=one_line(error)))
    return made


def memory(door: Door, num_wanted: int) -> dict[str, Figure]:
    """Open conversations until there are ``num_wanted`` or time is up; then look at the memory."""
    program = door.program
    assert program is not None
    clients: list[WebSocketClient] = []
    deadline_ns = now_ns() + round(SESSIONS_LIMIT_S * 1e9)
    try:
        open_session(door, -1).close()
        program.find_family()
        before = program.rss_bytes()
        while len(clients) < num_wanted and now_ns() < deadline_ns:
            clients.append(open_session(door, len(clients)))
        pause(0.5)
        grown = program.rss_bytes() - before
    finally:
        num = len(clients)
        for client in clients:
            client.close()
    pause(0.5)
    return {
        "sessions": Figure.of([num], "open"),
        "memory": Figure.of([grown / 1e3 / num], "kB/session"),
        "rss": Figure.of([(before + grown) / 1e6], "MB"),
    }


def open_session(door: Door, number: int) -> WebSocketClient:
    """A conversation with a history of its own and one answer."""
    client = WebSocketClient(door.port, door.websocket, door.key)
    body = create(Bodies(SIZE, door.websocket_model, number).opening())
    checked(client.ask(client.ready(body))[1], 1)
    return client


def experiment(
    field: Field,
    found: dict[int, dict[Key, Series]],
    idle: list[Row],
    machine: Machine,
    rounds: int,
) -> Experiment:
    """The record of it."""
    rows = [_row(level, *each) for level, ways in found.items() for each in ways.items()]
    return Experiment(
        name=NAME,
        title="Concurrency: lateness, CPU per token and memory",
        settings={"rounds": rounds, "rate_per_s": RATE, "window_s": WINDOW_S, "history": SIZE},
        machine=machine,
        versions=field.versions,
        rows=rows + idle + missing_rows(field),
        ratios=ratios(found),
        notes=["client, upstream and gateway share the machine's cores"],
    )


def _row(level: int, key: Key, series: Series) -> Row:
    params: dict[str, str | int | float | bool] = {"api": key[1], "streams": level}
    if series.reason:
        return Row(key[0], params, {}, missing=series.reason)
    known = {name: series.known(name) for name in FIGURES}
    return Row(
        key[0],
        params,
        {name: Figure.of(values, FIGURES[name]) for name, values in known.items() if values},
    )


def ratios(found: dict[int, dict[Key, Series]]) -> list[Ratio]:
    """CPU per token and lateness of every peer over our gateway's; see ``overs``."""
    return [
        ratio
        for level, each in found.items()
        for key in each
        if key[0] not in OURS
        for over in overs(key)
        for name in ("cpu", "late p99")
        for ratio in compare(name, key, over, each, f"{level} streams")
    ]
