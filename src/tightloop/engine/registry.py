"""Engines by name. The one place that knows which ones there are; heavy imports happen inside."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tightloop.engine.interface import Engine, EngineError, ModelFamily, ModelInfo, TokenBackend

if TYPE_CHECKING:
    from tightloop.engine.sequence_pool import SequencePool

DEFAULT = "patchling"
CHOICES = (
    ("patchling", "the bundled demo model: repairs one-line bugs that pytest shows"),
    ("PATH.gguf", "a local model file"),
    ("hf:OWNER/REPO/FILE.gguf@REVISION", "a model file on the Hugging Face hub"),
    (
        "vllm:DIRECTORY",
        "a model in Hugging Face form, served by vLLM (install it beside tightloop)",
    ),
    ("remote:MODEL@https://HOST/v1", "an OpenAI-compatible endpoint"),
    ("scripted", "echoes, without a model: for trying out clients"),
    ("scripted:PATH.json", "gives the answers of a script file"),
)
"""Every form of an engine's name, and what it is."""


DEFAULT_KEY_ENV = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What can be set besides the name; None leaves a choice to the engine.

    ``api_key_env`` names the environment variable that holds a remote endpoint's key. A local
    engine that is not told its threads takes what suits ``num_cores``, None: all of the machine.
    ``has_drafts`` lets a local chat model check drafts where its own figures say that it pays.
    ``warm_bytes`` and ``saved_bytes`` limit what conversations that are not being answered take in a
    local model's context, and saved beside it; see ``SequencePool``.
    """

    num_context: int | None = None
    num_sequences: int = 32
    num_threads: int | None = None
    max_candidates: int = 8
    api_key_env: str = DEFAULT_KEY_ENV
    num_cores: int | None = None
    has_drafts: bool = True
    warm_bytes: int | None = None
    saved_bytes: int | None = None


def create_engine(spec: str = DEFAULT, options: EngineOptions | None = None) -> Engine:
    """The engine that ``spec`` names, not started. Raises ``EngineError`` listing the choices."""
    options = options or EngineOptions()
    kind = _kind(spec)
    return _FACTORIES[kind](spec, options)


def check_name(spec: str) -> None:
    """Return when ``spec`` has the form of an engine's name; else ``EngineError`` with the choices."""
    if _kind(spec) == "remote":
        from tightloop.engine.remote import parse_remote_name

        parse_remote_name(spec)


def check_key_env(name: str) -> None:
    """Return when ``name`` can be the variable with a key; else ``EngineError``, without the name."""
    from tightloop.engine.remote import options

    options.check_key_env(name)


def check_files(spec: str) -> str:
    """What is to be known of the engine's files, "" where they are all here; nothing is fetched.

    Raises ``EngineError`` for a local one that is missing or cannot be a model.
    """
    kind = _kind(spec)
    if kind in ("patchling", "file"):
        from tightloop.engine.model_files import check

        return check(spec)
    folder = spec.removeprefix("vllm:")
    if kind == "vllm" and not Path(folder).is_dir():
        raise EngineError(f"there is no directory {folder!r} with a model", code="model_not_found")
    return ""


def is_local(spec: str) -> bool:
    """Whether the engine computes in this process."""
    return _kind(spec) in ("patchling", "file")


def option_names(spec: str) -> tuple[str, ...]:
    """The fields of ``EngineOptions`` that have an effect on the engine."""
    return _OPTIONS[_kind(spec)]


def serves_all(spec: str) -> bool:
    """Whether the engine serves every model of a host, which are known once it has started."""
    if _kind(spec) != "remote":
        return False
    from tightloop.engine.remote import parse_remote_name

    return parse_remote_name(spec).is_all


def served_name(spec: str) -> str:
    """The name under which the engine serves its model; ``spec`` itself where it serves many."""
    kind = _kind(spec)
    if kind == "scripted":
        return kind
    if kind != "remote":
        return model_name(spec)
    from tightloop.engine.remote import parse_remote_name

    target = parse_remote_name(spec)
    return spec if target.is_all else target.model


def _kind(spec: str) -> str:
    if spec == "patchling":
        return spec
    if spec == "scripted" or spec.startswith("scripted:"):
        return "scripted"
    if spec.startswith("remote:"):
        return "remote"
    if spec.startswith("vllm:") and spec != "vllm:":
        return "vllm"
    if spec.startswith("hf:") or spec.endswith(".gguf"):
        return "file"
    listed = "\n".join(f"  {name}  {text}" for name, text in CHOICES)
    raise EngineError(
        f"there is no engine {spec!r}; choose one of\n{listed}", code="model_not_found"
    )


def _scripted(spec: str, _options: EngineOptions) -> Engine:
    from tightloop.engine.script_file import load_engine
    from tightloop.engine.scripted import ScriptedEngine

    path = spec.removeprefix("scripted").removeprefix(":")
    return load_engine(Path(path)) if path else ScriptedEngine(counts_input=True)


def _remote(spec: str, options: EngineOptions) -> Engine:
    from tightloop.engine.remote import create_remote

    return create_remote(spec, api_key_env=options.api_key_env)


def _local(spec: str, options: EngineOptions) -> Engine:
    from tightloop.engine.shelf import SAVED_BYTES
    from tightloop.engine.token_engine import TokenEngine

    def load() -> TokenBackend:
        from tightloop.engine.llama_cpp.backend import LlamaCppBackend
        from tightloop.engine.model_files import resolve

        return LlamaCppBackend(
            resolve(spec),
            # The bundled network sees one function at a time; the option is for what its policy reads.
            num_context=None if spec == DEFAULT else options.num_context,
            num_sequences=options.num_sequences,
            num_threads=options.num_threads,
            num_cores=options.num_cores,
        )

    def family(pool: "SequencePool") -> ModelFamily:
        if is_patchling(pool.metadata):
            from tightloop.engine.families.patchling import PatchlingFamily

            return PatchlingFamily(
                pool, max_candidates=options.max_candidates, window=_patchling_window(options)
            )
        from tightloop.engine.families.chat import ChatFamily

        return ChatFamily(pool, has_drafts=options.has_drafts)

    saved_bytes = SAVED_BYTES if options.saved_bytes is None else options.saved_bytes
    return TokenEngine(
        load,
        family,
        name=model_name(spec),
        describe=_describer(spec, options),
        warm_bytes=options.warm_bytes,
        saved_bytes=saved_bytes,
    )


def _vllm(spec: str, options: EngineOptions) -> Engine:
    from tightloop.engine.token_engine import TokenEngine

    def load() -> TokenBackend:
        from tightloop.engine.vllm.backend import VllmBackend
        from tightloop.engine.vllm.vllm_host import VllmHost

        limit = {} if options.num_context is None else {"max_model_len": options.num_context}
        return VllmBackend(VllmHost(spec.removeprefix("vllm:"), options=limit))

    def family(pool: "SequencePool") -> ModelFamily:
        from tightloop.engine.families.chat import ChatFamily

        return ChatFamily(pool)

    return TokenEngine(load, family, name=model_name(spec), describe=_describer(spec, options))


_LOCAL_OPTIONS = (
    "num_context",
    "num_threads",
    "num_sequences",
    "has_drafts",
    "warm_bytes",
    "saved_bytes",
)
_OPTIONS: dict[str, tuple[str, ...]] = {
    "patchling": _LOCAL_OPTIONS,
    "file": _LOCAL_OPTIONS,
    "vllm": ("num_context",),
    "remote": ("api_key_env",),
    "scripted": (),
}
_FACTORIES: dict[str, Callable[[str, EngineOptions], Engine]] = {
    "patchling": _local,
    "file": _local,
    "vllm": _vllm,
    "remote": _remote,
    "scripted": _scripted,
}


def model_name(spec: str) -> str:
    """The name under which a local model is served: that of its file, without ending, or directory."""
    place = spec.removeprefix("vllm:").rstrip("/").removeprefix("hf:")
    file = place.partition("@")[0].rpartition("/")[2]
    return file.removesuffix(".gguf")


def is_patchling(metadata: dict[str, str]) -> bool:
    """Whether a model file says that it is the patch model, which is decoded its own way."""
    return metadata.get("general.name", "").lower().startswith("patchling")


def _patchling_window(options: EngineOptions) -> int:
    from tightloop.engine.families.patchling import WINDOW

    return options.num_context or WINDOW


def _describer(spec: str, options: EngineOptions) -> Callable[[TokenBackend], ModelInfo]:
    def describe(backend: TokenBackend) -> ModelInfo:
        metadata = backend.metadata
        keys = ("general.name", "general.architecture", "general.license", "general.description")
        details = {key: metadata[key] for key in keys if key in metadata}
        is_bundled = is_patchling(metadata)
        text = dict(CHOICES)["patchling"] if is_bundled else ""
        window = _patchling_window(options) if is_bundled else backend.context_window
        return ModelInfo(
            name=model_name(spec),
            description=text or metadata.get("general.name", ""),
            context_window=window,
            num_parameters=getattr(backend, "num_parameters", None),
            details=details,
            prefills_early=not is_bundled,
        )

    return describe
