"""Follow-up turns of an agent loop against any OpenAI-compatible endpoint, measured from outside.

Each variant (a transport and a way to use it) holds a conversation of its own that starts with the
same history and then grows turn by turn, as an agent's does. The variants take turns in random order,
so that a drift of the endpoint's load does not pass for a difference between them. A turn that
fails costs its variant the conversation; the next one opens another, which is not measured.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp

from tightloop.bench.bugs import BenchError
from tightloop.bench.chat_line import ChatLine
from tightloop.bench.conversations import (
    ChatConversation,
    Conversation,
    Lost,
    ResponsesConversation,
    Sample,
    Watched,
)
from tightloop.bench.history import BYTES_PER_TOKEN, NEW_BYTES
from tightloop.client.http import HttpTransport
from tightloop.client.transport import TransportError
from tightloop.client.websocket import WebSocketTransport
from tightloop.protocol.errors import ApiError

VARIANTS = ("ws", "http", "http-new")
NUM_WARMUP = 2
TOOLS_TOKENS = 200

Progress = Callable[[str, int, int], None]
"""Told the variant, the size and the number of the request that comes next."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. ``histories`` are nominal tokens; ``variants`` are from ``VARIANTS``.

    ``run_mark`` is another for every run: the texts follow from it and the seed, and an endpoint must not
    know them from the run before.
    """

    url: str
    model: str
    api: str = "responses"
    variants: tuple[str, ...] = VARIANTS
    histories: tuple[int, ...] = (1_000, 10_000, 50_000)
    rounds: int = 10
    seed: int = 1
    run_mark: str = ""
    max_output_tokens: int = 128
    api_key: str | None = field(default=None, repr=False)

    @property
    def num_requests(self) -> int:
        """How many requests a run without failures sends."""
        return len(self.histories) * len(self.variants) * (1 + NUM_WARMUP + self.rounds)

    @property
    def num_input_tokens(self) -> int:
        """About how many input tokens these are; a host counts the context of every turn."""
        grown = NEW_BYTES // BYTES_PER_TOKEN + self.max_output_tokens
        turns = range(1 + NUM_WARMUP + self.rounds)
        sizes = (TOOLS_TOKENS + size + turn * grown for size in self.histories for turn in turns)
        return len(self.variants) * sum(sizes)


@dataclass(slots=True)
class Series:
    """The measured turns of one variant at one size; None stands for a turn that failed."""

    samples: list[Sample | None] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    num_lost: int = 0


@dataclass(slots=True)
class TurnResult:
    """A whole run: per size, per variant. ``skipped`` says why a variant was left out."""

    plan: Plan
    series: dict[int, dict[str, Series]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    num_requests: int = 0
    num_failed: int = 0

    @property
    def is_mostly_failed(self) -> bool:
        """Whether more than half of the requests failed."""
        return 2 * self.num_failed > self.num_requests


async def first_model(url: str, api_key: str | None) -> str:
    """The model that the endpoint lists first. Raises BenchError."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=15)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as client,
            client.get(f"{url}/models") as response,
        ):
            if response.status in (401, 403):
                raise BenchError(f"{url} refused the key with status {response.status}")
            listed = await response.json(content_type=None)
        return str(listed["data"][0]["id"])
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise BenchError(f"{_unreached(url, error)}; is the server running?") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchError(f"{url}/models lists no model; name one with --model") from error


async def run_turns(plan: Plan, on_progress: Progress = lambda *_: None) -> TurnResult:
    """Measure everything in ``plan``. Raises BenchError when not even the first request works."""
    run = _Run(plan, on_progress)
    for size in plan.histories:
        await run.measure(size)
    return run.result


@dataclass(slots=True)
class _Side:
    """One variant at one size: its connection, and its conversation while it has one."""

    name: str
    line: Watched | ChatLine
    conversation: Conversation | None = None
    has_answered: bool = False


class _Run:
    def __init__(self, plan: Plan, on_progress: Progress) -> None:
        self.result = TurnResult(plan)
        self._plan = plan
        self._on_progress = on_progress
        self._rng = random.Random(plan.seed)
        self._texts = random.Random(f"{plan.seed} {plan.run_mark}")
        self._num_answered = 0

    async def measure(self, size: int) -> None:
        sides = [
            _Side(name, self._line(name))
            for name in self._plan.variants
            if name not in self.result.skipped
        ]
        try:
            await self._measure(size, sides)
        finally:
            for side in sides:
                await side.line.close()

    async def _measure(self, size: int, wanted: list[_Side]) -> None:
        sides = [side for side in wanted if await self._can_connect(side)]
        if not sides:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.result.skipped.items())
            raise BenchError(f"{self._plan.url} can be measured in none of these ways: {reasons}")
        found = {side.name: Series() for side in sides}
        self.result.series[size] = found
        for number in range(-1 - NUM_WARMUP, self._plan.rounds):
            for side in self._rng.sample(sides, len(sides)):
                if side.name in self.result.skipped:
                    continue
                sample = await self._turn(side, size, found[side.name])
                if number >= 0:
                    found[side.name].samples.append(sample)

    async def _turn(self, side: _Side, size: int, series: Series) -> Sample | None:
        """One request: the opening one where there is no conversation, else a measured turn."""
        try:
            if side.conversation is None:
                await self._open(side, size)
                return None
            return await self._follow(side, size)
        except Lost:
            series.num_lost += 1
        except (ApiError, TransportError, TimeoutError) as error:
            self._fail(side, size, error)
        return None

    async def _open(self, side: _Side, size: int) -> None:
        conversation = self._conversation(side)
        self._count(side.name, size)
        await conversation.open(size * BYTES_PER_TOKEN)
        side.conversation = conversation
        side.has_answered = True
        self._num_answered += 1

    async def _follow(self, side: _Side, size: int) -> Sample:
        assert side.conversation is not None
        self._count(side.name, size)
        sample = await side.conversation.follow(self._texts)
        self._num_answered += 1
        return sample

    def _is_dead_websocket(self, side: _Side, error: Exception) -> bool:
        """Whether the connection broke before its first answer, and there are others to measure.

        Some gateways accept the upgrade whatever stands behind them.
        """
        if side.name != "ws" or side.has_answered or not isinstance(error, TransportError):
            return False
        return len(self._plan.variants) > 1

    def _count(self, name: str, size: int) -> None:
        self.result.num_requests += 1
        self._on_progress(name, size, self.result.num_requests)

    def _fail(self, side: _Side, size: int, error: Exception) -> None:
        series = self.result.series[size][side.name]
        self.result.num_failed += 1
        side.conversation = None
        text = _in_words(error, self._plan.url)
        series.errors[text] += 1
        if self._is_dead_websocket(side, error):
            self.result.skipped["ws"] = f"its WebSocket opens and then breaks: {text}"
            del self.result.series[size]["ws"]
        elif not self._num_answered:  # nothing has worked yet: rather say so than go on
            raise BenchError(f"{text}{_advice(error, self._plan)}") from error

    async def _can_connect(self, side: _Side) -> bool:
        """Whether this variant exists there; a refused upgrade is a finding, not an error."""
        if side.name != "ws" or not isinstance(side.line, Watched):
            return True
        try:
            await side.line.connect()
        except ApiError as error:
            if error.status in (401, 403):
                raise BenchError(f"{error}{_advice(error, self._plan)}") from error
            self.result.skipped["ws"] = f"no WebSocket mode ({error.status})"
            return False
        except TransportError as error:
            status = getattr(error.__cause__, "status", None)
            if status is None:
                text = _unreached(self._plan.url, error.__cause__ or error)
                raise BenchError(f"{text}; is the server running?") from error
            self.result.skipped["ws"] = f"no WebSocket mode ({status})"
            return False
        return True

    def _line(self, name: str) -> Watched | ChatLine:
        plan = self._plan
        is_kept = name == "http"
        if plan.api == "chat":
            return ChatLine(plan.url, plan.api_key, reuse_connection=is_kept)
        if name == "ws":
            return Watched(WebSocketTransport(plan.url, plan.api_key))
        return Watched(HttpTransport(plan.url, plan.api_key, reuse_connection=is_kept))

    def _conversation(self, side: _Side) -> Conversation:
        model, limit = self._plan.model, self._plan.max_output_tokens
        if isinstance(side.line, ChatLine):
            return ChatConversation(side.line, model, limit)
        return ResponsesConversation(side.line, model, limit)


def size_name(num_tokens: int) -> str:
    """A nominal size as the command line writes it, e.g. ``10k``."""
    return f"{num_tokens // 1000}k" if num_tokens and num_tokens % 1000 == 0 else str(num_tokens)


def _unreached(url: str, error: BaseException) -> str:
    """That no connection came about, and the system's reason."""
    reason = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else None
    return f"cannot reach {url}: {reason or error}"


def _in_words(error: Exception, url: str) -> str:
    if isinstance(error.__cause__, aiohttp.ClientConnectorError):
        return _unreached(url, error.__cause__)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ApiError):
        code = f" {error.code}" if error.code else ""
        return f"status {error.status}{code}: {error.message}"
    return str(error)


def _advice(error: Exception, plan: Plan) -> str:
    """What to do about the first request's failure."""
    if not isinstance(error, ApiError):
        is_refused = isinstance(error.__cause__, aiohttp.ClientConnectorError)
        return "; is the server running?" if is_refused else ""
    if error.status in (401, 403):
        return "; name the variable with the key with --api-key-env"
    if error.code == "model_not_found":
        return f"; {plan.url}/models lists what can be asked with --model"
    if error.status in (404, 405, 501) and plan.api == "responses":
        return f"; if {plan.url} has no Responses API, try --api chat"
    return ""


def known(samples: Sequence[Sample | None]) -> list[Sample]:
    """The turns that were answered."""
    return [sample for sample in samples if sample is not None]
