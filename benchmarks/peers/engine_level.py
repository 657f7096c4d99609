"""Experiment 1 on a real engine: llama.cpp's own HTTP server and tightloop, with the same model file.

Both hold the history from the turns before, so that what is left is parsing, rendering, tokenising,
finding the known prefix, and prefilling 256 bytes of new text. ``ttft`` is wall time to the first text;
``cpu`` is the whole server's, prefill and sixteen decoded tokens included. The models have three and
thirty million random weights: small networks, so that what stands around them shows. ``reconnected``
counts the turns that found their connection closed.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.lab.processes import NotStarted, Program, pause
from benchmarks.lab.progress import Progress
from benchmarks.lab.record import Experiment, Figure, Ratio, Row, this_machine, unpaired_ratio
from benchmarks.net.random_models import random_model
from benchmarks.peers.bodies import Bodies, create
from benchmarks.peers.client import HttpClient, WebSocketClient, num_reconnected
from benchmarks.peers.field import Field
from benchmarks.peers.gateways import RESPONSES, Door, own_door, own_version
from benchmarks.peers.reply import BadReply, HttpReply, Reply, failure
from benchmarks.peers.series import Key, Series, compare, interleave, way_name
from benchmarks.peers.ways import SETTLE_S, Way

NAME = "engine-round-trip"
NUM_CONTEXT = 32768
NEW_BYTES = 256
NUM_TOKENS = 16
QUICK_ROUNDS = 2
NUM_WARMUP = 2

LLAMA, OURS = "llama.cpp server", "tightloop embedded"
FIGURES = {"ttft": "ms", "cpu": "ms", "reconnected": "%"}
_TEXT = re.compile(rb'"(?:delta|content)": ?"[^"]')


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and a history of about so many of its tokens."""

    model: str
    history: str
    num_bytes: int
    rounds: int

    @property
    def label(self) -> str:
        """As ratios name it."""
        return f"{self.model} {self.history}"

    @property
    def params(self) -> dict[str, str | int | float | bool]:
        """As rows name it."""
        return {"model": self.model, "history": self.history}


CASES = (
    Case("random-3m", "1k", 2_000, 40),
    Case("random-3m", "8k", 20_000, 30),
    Case("random-30m", "1k", 2_000, 12),
)
"""One thread reads 8k tokens with the model of 30 million in half a minute, for each way: too long."""


def run(_field: Field, *, is_quick: bool) -> Experiment:
    """Measure both servers; neither has an upstream."""
    machine = this_machine()
    cases = [replace(CASES[0], rounds=QUICK_ROUNDS)] if is_quick else list(CASES)
    missing: list[Row] = []
    found: dict[Case, dict[Key, Series]] = {}
    num_ways = 2 * len(APIS) - 1
    progress = Progress(NAME, sum(case.rounds for case in cases) * num_ways)
    for case in cases:
        found[case] = {}
        for api in APIS:
            with servers(case.model, missing) as doors:
                found[case] |= measure_api(doors, case, api, progress)
    progress.end()
    return Experiment(
        name=NAME,
        title="Round trip on a real engine: llama.cpp's server and tightloop, same model file",
        settings={
            "rounds": ", ".join(f"{case.label}: {case.rounds}" for case in cases),
            "threads": 1,
            "new_bytes": NEW_BYTES,
        },
        machine=machine,
        versions={LLAMA: f"xllamacpp {version('xllamacpp')}", OURS: own_version()},
        rows=[_row(case, *each) for case, ways in found.items() for each in ways.items()] + missing,
        ratios=ratios(found),
        notes=[
            "xllamacpp's server has no previous_response_id and no WebSocket, and closes the connection "
            "after each streamed answer; its time contains connecting anew",
            "every turn on a WebSocket follows the same response, as every full resend has the same history",
            "a WebSocket is measured after, not in the rounds of, the ways over HTTP: its ratios compare medians",
        ],
    )


APIS = ("chat", "responses", "websocket")


@contextlib.contextmanager
def servers(model: str, missing: list[Row]) -> Iterator[dict[str, Door]]:
    """Both with that model; a row in ``missing`` for one that does not start. Ended with the block."""
    path = random_model(model)
    doors: dict[str, Door] = {}
    try:
        for name, start in ((LLAMA, llama_server), (OURS, tightloop_server)):
            try:
                doors[name] = start(path)
            except NotStarted as error:
                row = Row(name, {"model": model}, {}, missing=str(error))
                missing += [row] if row not in missing else []
        yield doors
    finally:
        for door in doors.values():
            if door.program:
                door.program.end()


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
    """One server asked one way; ``measure`` asks once. Every turn goes on from the same history."""

    gateway: str
    api: str
    door: Door
    bodies: Bodies
    client: HttpClient | WebSocketClient
    parent: str = ""

    def measure(self) -> dict[str, float]:
        """TTFT and CPU. Raises ``BadReply``."""
        request = self.client.ready(self._body())
        num_before = num_reconnected(self.client)
        program = self.door.program
        assert program is not None
        before_ns = program.cpu_ns()
        sent_ns, reply = self.client.ask(request)
        pause(SETTLE_S)
        spent_ns = program.cpu_ns() - before_ns
        first_ns = first_text_ns(reply)
        is_reconnected = num_reconnected(self.client) > num_before
        return {
            "ttft": (first_ns - sent_ns) / 1e6,
            "cpu": spent_ns / 1e6,
            "reconnected": 100.0 * is_reconnected,
        }

    def open(self) -> None:
        """The engine has read the history."""
        if self.api == "websocket":
            opening = self.bodies.opening(max_output_tokens=NUM_TOKENS, temperature=0, store=True)
            self.parent = response_id(self.client.ask(self.client.ready(create(opening)))[1])
        for _ in range(NUM_WARMUP):
            self.measure()

    def _body(self) -> bytes:
        if self.api == "chat":
            return self.bodies.chat(max_tokens=NUM_TOKENS, temperature=0)
        limit = {"max_output_tokens": NUM_TOKENS, "temperature": 0}
        if self.api == "responses":
            return self.bodies.responses(**limit)
        return create(self.bodies.following(self.parent, **limit))


def response_id(reply: Reply) -> str:
    """Of a whole answer with text. Raises ``BadReply``."""
    first_text_ns(reply)
    last = list(reply.payload())[-1][1]
    found = re.search(rb'"id": ?"(resp_[^"]+)"', last)
    if found is None:
        raise BadReply(f"no response id in {last[:200]!r}")
    return found[1].decode()


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


def measure_api(
    doors: dict[str, Door], case: Case, api: str, progress: Progress
) -> dict[Key, Series]:
    """Both servers in turn. They are new for each API and hold one conversation, as for one agent.

    What an engine holds for others costs it time: attention goes over every cell in use.
    """
    found: dict[Key, Series] = {}
    wanted = [(name, door) for name, door in doors.items() if Way.is_offered(door, api)]
    opened = []
    for name, door in wanted:
        way = engine_way(name, door, api, case.num_bytes)
        opened.append(way)
        try:
            way.open()
        except (BadReply, OSError) as error:
            found.setdefault((name, api), Series()).errors[str(error)[:200]] += 1
            opened.pop().client.close()
    interleave(opened, case.rounds, EngineWay.measure, found, progress, f"{case.label} {api}")
    for way in opened:
        way.client.close()
    return found


def engine_way(name: str, door: Door, api: str, num_bytes: int) -> EngineWay:
    """Connected."""
    bodies = Bodies(num_bytes, door.model, new_bytes=NEW_BYTES)
    if api == "websocket":
        return EngineWay(name, api, door, bodies, WebSocketClient(door.port, RESPONSES))
    path = door.chat if api == "chat" else door.responses
    return EngineWay(name, api, door, bodies, HttpClient(door.port, path))


def _row(case: Case, key: Key, series: Series) -> Row:
    params: dict[str, str | int | float | bool] = {"api": key[1], **case.params}
    if series.reason:
        return Row(key[0], params, {}, missing=series.reason)
    return Row(
        key[0],
        params,
        {name: Figure.of(series.known(name), unit) for name, unit in FIGURES.items()},
    )


def ratios(found: dict[Case, dict[Key, Series]]) -> list[Ratio]:
    """llama.cpp's server over tightloop asked the same way, and over its WebSocket."""
    made: list[Ratio] = []
    for case, each in found.items():
        tight = (OURS, "websocket")
        for key in ((LLAMA, "chat"), (LLAMA, "responses")):
            for name in ("ttft", "cpu"):
                made += compare(name, key, (OURS, key[1]), each, case.label)
                made += compare_apart(name, key, tight, each, case.label)
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
