"""Experiment 1 on a real engine: llama.cpp's own HTTP server and tightloop, with the same model file.

Both hold the history from the turns before, so that what is left is parsing, rendering, tokenising,
finding the known prefix, and prefilling 256 bytes of new text. ``ttft`` is wall time to the first text;
``cpu`` is the whole server's, prefill and sixteen decoded tokens included. The model has three million
random weights: a small network, so that what stands around it shows.
"""

import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.lab.processes import NotStarted, Program, pause
from benchmarks.lab.progress import Progress
from benchmarks.lab.record import Experiment, Figure, Ratio, Row, this_machine, unpaired_ratio
from benchmarks.net.random_models import random_model
from benchmarks.peers.bodies import Bodies, create
from benchmarks.peers.client import HttpClient, WebSocketClient
from benchmarks.peers.field import Field
from benchmarks.peers.gateways import RESPONSES, Door, own_door, own_version
from benchmarks.peers.reply import BadReply, HttpReply, Reply, WebSocketReply, failure
from benchmarks.peers.series import Key, Series, compare, interleave, way_name
from benchmarks.peers.ways import SETTLE_S, TURNS, Way

NAME = "engine-round-trip"
MODEL = "random-3m"
NUM_CONTEXT = 32768
NEW_BYTES = 256
NUM_TOKENS = 16
SIZES, QUICK_SIZES = ("1k",), ("1k",)
"""Seven thousand tokens with this model's vocabulary; reading them once takes seconds."""

FULL_ROUNDS, QUICK_ROUNDS = 40, 4
NUM_WARMUP = 2
LLAMA, OURS = "llama.cpp server", "tightloop embedded"
FIGURES = {"ttft": "ms", "cpu": "ms"}
_TEXT = re.compile(rb'"(?:delta|content)": ?"[^"]')


def run(_field: Field, *, is_quick: bool) -> Experiment:
    """Measure both servers; neither has an upstream."""
    machine = this_machine()
    path = random_model(MODEL)
    sizes = QUICK_SIZES if is_quick else SIZES
    rounds = QUICK_ROUNDS if is_quick else FULL_ROUNDS
    doors: dict[str, Door] = {}
    missing: list[Row] = []
    try:
        for name, start in ((LLAMA, llama_server), (OURS, tightloop_server)):
            try:
                doors[name] = start(path)
            except NotStarted as error:
                missing.append(Row(name, {}, {}, missing=str(error)))
        num_ways = sum(Way.is_offered(door, api) for door in doors.values() for api in APIS)
        progress = Progress(NAME, len(sizes) * rounds * num_ways)
        found = {size: measure_size(doors, size, rounds, progress) for size in sizes}
        progress.end()
    finally:
        for door in doors.values():
            if door.program:
                door.program.end()
    return Experiment(
        name=NAME,
        title="Round trip on a real engine: llama.cpp's server and tightloop, same model file",
        settings={"rounds": rounds, "model": MODEL, "threads": 1, "new_bytes": NEW_BYTES},
        machine=machine,
        versions={LLAMA: f"xllamacpp {version('xllamacpp')}", OURS: own_version()},
        rows=[_row(size, *each) for size, ways in found.items() for each in ways.items()] + missing,
        ratios=ratios(found),
        notes=[
            "xllamacpp's server has no previous_response_id and no WebSocket, and closes a connection "
            "after five idle seconds or a hundred requests"
        ],
    )


APIS = ("chat", "responses", "websocket")


def llama_server(path: Path) -> Door:
    """See ``llama_server``, in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.peers.llama_server", str(path), str(NUM_CONTEXT)]
    door = own_door(Program(argv, has_commands=True))
    door.websocket = ""
    return door


def tightloop_server(path: Path) -> Door:
    """``tightloop serve`` with the model in its process."""
    argv = [
        *(sys.executable, "-m", "tightloop", "serve", "--model", str(path), "--port", "0"),
        *("--threads", "1", "--context", str(NUM_CONTEXT), "--json-ready"),
        *("--state-dir", str(path.parent / "state")),
    ]
    door = own_door(Program(argv, has_commands=True))
    door.model = door.websocket_model = path.stem
    return door


@dataclass(slots=True)
class EngineWay:
    """One server asked one way; ``measure`` asks once."""

    gateway: str
    api: str
    door: Door
    bodies: Bodies
    client: HttpClient | WebSocketClient
    previous: str = ""
    num_turns: int = 0

    def measure(self) -> dict[str, float]:
        """TTFT and CPU. Raises ``BadReply``."""
        if self.num_turns >= TURNS:
            self._open_conversation()
        self.num_turns += 1
        request = self.client.ready(self._body())
        program = self.door.program
        assert program is not None
        before_ns = program.cpu_ns()
        sent_ns, reply = self.client.ask(request)
        pause(SETTLE_S)
        spent_ns = program.cpu_ns() - before_ns
        first_ns = first_text_ns(reply)
        self._keep(reply)
        return {"ttft": (first_ns - sent_ns) / 1e6, "cpu": spent_ns / 1e6}

    def open(self) -> None:
        """The engine has read the history."""
        if self.api == "websocket":
            self._open_conversation()
        for _ in range(NUM_WARMUP):
            self.measure()

    def _open_conversation(self) -> None:
        """With the history alone, so that it does not grow beyond a few turns."""
        if self.api != "websocket":
            return
        opening = create(self.bodies.opening(max_output_tokens=NUM_TOKENS, temperature=0))
        reply = self.client.ask(self.client.ready(opening))[1]
        first_text_ns(reply)
        self._keep(reply)
        self.num_turns = 0

    def _body(self) -> bytes:
        if self.api == "chat":
            return self.bodies.chat(max_tokens=NUM_TOKENS, temperature=0)
        limit = {"max_output_tokens": NUM_TOKENS, "temperature": 0}
        if self.api == "responses":
            return self.bodies.responses(**limit)
        return create(self.bodies.following(self.previous, **limit))

    def _keep(self, reply: HttpReply | WebSocketReply) -> None:
        if isinstance(reply, WebSocketReply):
            last = list(reply.payload())[-1][1]
            found = re.search(rb'"id": ?"(resp_[^"]+)"', last)
            if found is None:
                raise BadReply(f"no response id in {last[:200]!r}")
            self.previous = found[1].decode()


def first_text_ns(reply: Reply) -> int:
    """When the first text had been read. Raises ``BadReply`` for an answer without any."""
    if isinstance(reply, HttpReply) and reply.status != 200:
        raise BadReply(f"status {reply.status}: {reply.text()}")
    if text := failure(reply):
        raise BadReply(text)
    for arrived_ns, piece in reply.payload():
        if _TEXT.search(piece):
            return arrived_ns
    raise BadReply("the answer has no text")


def measure_size(
    doors: dict[str, Door], size: str, rounds: int, progress: Progress
) -> dict[Key, Series]:
    """One way after the other: each server holds one conversation, as it would for one agent."""
    found: dict[Key, Series] = {}
    for api in APIS:
        wanted = [(name, door) for name, door in doors.items() if Way.is_offered(door, api)]
        opened = []
        for name, door in wanted:
            way = engine_way(name, door, api, size)
            opened.append(way)
            try:
                way.open()
            except (BadReply, OSError) as error:
                found.setdefault((name, api), Series()).errors[str(error)[:200]] += 1
                opened.pop().client.close()
        interleave(opened, rounds, EngineWay.measure, found, progress, f"{size} {api}")
        for way in opened:
            way.client.close()
    return found


def engine_way(name: str, door: Door, api: str, size: str) -> EngineWay:
    """Connected."""
    bodies = Bodies(size, door.model, new_bytes=NEW_BYTES)
    if api == "websocket":
        return EngineWay(name, api, door, bodies, WebSocketClient(door.port, RESPONSES))
    path = door.chat if api == "chat" else door.responses
    return EngineWay(name, api, door, bodies, HttpClient(door.port, path))


def _row(size: str, key: Key, series: Series) -> Row:
    params: dict[str, str | int | float | bool] = {"api": key[1], "history": size}
    if series.reason:
        return Row(key[0], params, {}, missing=series.reason)
    return Row(
        key[0],
        params,
        {name: Figure.of(series.known(name), unit) for name, unit in FIGURES.items()},
    )


def ratios(found: dict[str, dict[Key, Series]]) -> list[Ratio]:
    """llama.cpp's server over tightloop asked the same way, and over its WebSocket."""
    made: list[Ratio] = []
    for size, each in found.items():
        tight = (OURS, "websocket")
        for key in ((LLAMA, "chat"), (LLAMA, "responses")):
            for name in FIGURES:
                made += compare(name, key, (OURS, key[1]), each, size)
                made += compare_apart(name, key, tight, each, size)
    return made


def compare_apart(
    name: str, of: Key, over: Key, found: dict[Key, Series], label: str
) -> list[Ratio]:
    """Of two ways that were not measured in the same rounds: by their medians."""
    series = [found[key] for key in (of, over) if key in found and not found[key].reason]
    if len(series) < 2:
        return []
    values = [each.known(name) for each in series]
    return [unpaired_ratio(f"{name} {label}", way_name(of), way_name(over), *values)]
