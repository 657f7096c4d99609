"""Which models a host has: asked of it, never written down here. They come and go by the month."""

from dataclasses import dataclass
from typing import Any, Final

from tightloop.engine.interface import EngineError, ModelInfo
from tightloop.engine.remote.host import Host, said
from tightloop.engine.remote.upstream import Reply, UpstreamError, read_whole
from tightloop.trace.clock import Clock

PATH: Final = "/models"
MAX_BYTES: Final = 8 << 20

FRESH_S: Final = 300.0
"""A list older than this is asked for again when somebody looks at it."""

_WINDOW_KEYS: Final = (
    "context_window",
    "context_length",
    "max_model_len",
    "max_context_length",
    "n_ctx",
    "n_ctx_train",
)
"""Where hosts write it: Groq and this project, OpenRouter, vLLM and SGLang, Cerebras, llama.cpp."""

_INNER_KEYS: Final = ("meta", "limits", "top_provider")
_MAX_WINDOW: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One entry of a host's list; ``context_window`` is 0 where it does not say."""

    name: str
    owner: str = ""
    context_window: int = 0


def read_listing(payload: object) -> list[ListedModel]:
    """The models in a decoded list, in its order; what is no entry is left out. Never raises."""
    inner = payload
    if isinstance(payload, dict):
        inner = payload["data"] if "data" in payload else payload.get("models")
    entries = [entry for entry in _list(inner) if isinstance(entry, dict)]
    # This project's servers, and Codex's, say more in a second list.
    beside = _list(payload.get("models")) if isinstance(payload, dict) else []
    windows: dict[Any, int] = {}
    for entry in beside:
        if isinstance(entry, dict) and _is_name(entry.get("slug")):
            windows[entry["slug"]] = _window(entry)
    found: dict[str, ListedModel] = {}
    for entry in entries:
        name = next((entry[key] for key in ("id", "slug", "name") if _is_name(entry.get(key))), "")
        owner = entry.get("owned_by")
        if name and name not in found:
            window = _window(entry) or windows.get(name, 0)
            found[name] = ListedModel(name, owner if isinstance(owner, str) else "", window)
    return list(found.values())


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _window(entry: dict[str, Any]) -> int:
    places: list[Any] = [entry, *(entry.get(key) for key in _INNER_KEYS)]
    for place in places:
        if not isinstance(place, dict):
            continue
        for key in _WINDOW_KEYS:
            value = place.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_WINDOW:
                return value
    return 0


class Catalog:
    """The models of one host that are served: the one that was named, or all that it lists."""

    def __init__(self, host: Host, model: str | None, clock: Clock) -> None:
        """``model`` None: all of them."""
        self._host = host
        self._model = model
        self._clock = clock
        self._listed: dict[str, ListedModel] = {}
        self._asked_ns = 0

    @property
    def is_stale(self) -> bool:
        """Whether the list should be asked for again; true before it was."""
        age_s = (self._clock.now_ns() - self._asked_ns) / 1e9
        return self._asked_ns == 0 or age_s > FRESH_S

    def models(self) -> list[ModelInfo]:
        """What is known now, in the host's order."""
        if self._model is not None:
            listed = self._listed.get(self._model) or ListedModel(self._model)
            return [self._info(listed)]
        return [self._info(listed) for listed in self._listed.values()]

    def route(self, wanted: str) -> str:
        """The model to ask for. Raises ``EngineError`` naming those there are."""
        if self._model is not None:
            return self._model
        if wanted not in self._listed:
            names = ", ".join(list(self._listed)[:20]) or "none"
            raise EngineError(
                f"{self._host.address} has no model {wanted[:200]!r}; it lists {names}",
                code="model_not_found",
            )
        return wanted

    async def refresh(self) -> None:
        """The list is up to date. Raises ``EngineError`` when the host gives none."""
        self._asked_ns = self._clock.now_ns()
        try:
            reply = await self._host.upstream.get(PATH, {})
            await self.take(reply)
        except (UpstreamError, TimeoutError) as error:
            raise EngineError(
                f"{self._host.base_url}{PATH} cannot be reached: {error}", code="upstream_error"
            ) from error

    async def take(self, reply: Reply) -> None:
        """Read the list in ``reply``. Raises ``EngineError`` when it is none, or empty."""
        try:
            payload = said(await read_whole(reply, MAX_BYTES))
            await reply.finish()
        finally:
            reply.close()
        where = f"{self._host.base_url}{PATH}"
        if reply.status != 200:
            hint = f"; set a valid key in {self._host.key_env}" if reply.status == 401 else ""
            raise EngineError(f"{where} answered {reply.status}{hint}", code="upstream_error")
        listed = read_listing(payload)
        if not listed:
            raise EngineError(
                f"{where} lists no models; name one, as in remote:MODEL@{self._host.base_url}",
                code="model_not_found",
            )
        self._asked_ns = self._clock.now_ns()
        self._listed = {model.name: model for model in listed}
        self._host.learn_owners(frozenset(model.owner for model in listed))

    def _info(self, listed: ListedModel) -> ModelInfo:
        return ModelInfo(
            listed.name,
            f"{listed.name} at {self._host.address}",
            self._host.options.context_window or listed.context_window,
            # Whether it reads images only the host can tell, and it does when it is asked.
            reads_images=True,
            prefills_early=self._host.options.warms_up,
        )
