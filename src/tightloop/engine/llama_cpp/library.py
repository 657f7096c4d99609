"""Finds llama.cpp's shared library and binds the C functions that the backend uses.

Two installed packages can supply it: ``llama_cpp`` (llama-cpp-python, compiled on this machine,
faster) is preferred, else the object inside the ``xllamacpp`` wheel. Neither is imported as a
Python module. That xllamacpp exports the C functions is an accident of its linking, verified on
Linux x86-64; the checks below turn any surprise into an ``EngineError`` instead of a crash.

Layouts were read in the headers of llama.cpp b11549 and of llama-cpp-python 0.3.36. Every struct
carries 64 spare bytes at its end: the library returns them through a hidden pointer, so a layout
that is too short would let it write past our buffer before the self-check could notice.
"""

import ctypes
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from ctypes import c_bool, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightloop.engine.interface import EngineError

SPARE_BYTES = 64
_SPARE = ("spare", ctypes.c_uint8 * SPARE_BYTES)
_REMEDY = (
    "install the version this program was built for (pip install 'tightloop' --force-reinstall), "
    "or the compiled one (pip install 'tightloop[native]')"
)


class ModelParams(ctypes.Structure):
    """``llama_model_params``, 80 bytes, the same in every supported version."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
        _SPARE,
    )


def _fields(kind: type, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


_CONTEXT_HEAD: list[tuple[str, Any]] = [
    *_fields(c_uint32, "n_ctx n_batch n_ubatch n_seq_max n_rs_seq"),
    *_fields(c_uint32, "n_outputs_max n_outputs_max_per_seq"),
    *_fields(c_int32, "n_threads n_threads_batch ctx_type rope_scaling_type pooling_type"),
    *_fields(c_int32, "attention_type flash_attn_type"),
    *_fields(c_float, "rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor"),
    *_fields(c_float, "yarn_beta_fast yarn_beta_slow"),
    ("yarn_orig_ctx", c_uint32),
    ("defrag_thold", c_float),
    *_fields(c_void_p, "cb_eval cb_eval_user_data"),
    *_fields(c_int32, "type_k type_v"),
]
_CONTEXT_TAIL: list[tuple[str, Any]] = [
    *_fields(c_void_p, "abort_callback abort_callback_data"),
    *_fields(c_bool, "embeddings offload_kqv no_perf op_offload swa_full kv_unified"),
    ("samplers", c_void_p),
    ("n_samplers", c_size_t),
    ("ctx_other", c_void_p),
    _SPARE,
]


class ContextParams160(ctypes.Structure):
    """``llama_context_params`` of llama-cpp-python 0.3.36, 160 bytes."""

    _fields_ = (*_CONTEXT_HEAD, *_CONTEXT_TAIL)


class ContextParams168(ctypes.Structure):
    """``llama_context_params`` of llama.cpp b11549, 168 bytes: has ``moe_cache_size``."""

    _fields_ = (*_CONTEXT_HEAD, ("moe_cache_size", c_size_t), *_CONTEXT_TAIL)


ContextLayout = type[ContextParams160] | type[ContextParams168]

LAYOUTS: dict[tuple[str, str], ContextLayout] = {
    ("xllamacpp", "2026.10.11549"): ContextParams168,
    ("llama_cpp", "0.3.36"): ContextParams160,
}
"""The layout of each version that was checked by hand; other versions are tried and checked."""


class Batch(ctypes.Structure):
    """``llama_batch``: ``pos``, ``seq_id`` and ``logits`` run parallel to ``token``."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


_POINTER = c_void_p
_SIGNATURES: dict[str, tuple[Any, Sequence[Any]]] = {
    "llama_backend_init": (None, ()),
    "llama_model_load_from_file": (_POINTER, (c_char_p, ModelParams)),
    "llama_model_free": (None, (_POINTER,)),
    "llama_model_get_vocab": (_POINTER, (_POINTER,)),
    "llama_model_n_ctx_train": (c_int32, (_POINTER,)),
    "llama_model_n_embd": (c_int32, (_POINTER,)),
    "llama_model_n_layer": (c_int32, (_POINTER,)),
    "llama_model_n_head": (c_int32, (_POINTER,)),
    "llama_model_n_head_kv": (c_int32, (_POINTER,)),
    "llama_model_n_params": (c_uint64, (_POINTER,)),
    "llama_model_meta_count": (c_int32, (_POINTER,)),
    "llama_model_meta_key_by_index": (c_int32, (_POINTER, c_int32, c_char_p, c_size_t)),
    "llama_model_meta_val_str_by_index": (c_int32, (_POINTER, c_int32, c_char_p, c_size_t)),
    "llama_vocab_n_tokens": (c_int32, (_POINTER,)),
    "llama_vocab_is_eog": (c_bool, (_POINTER, c_int32)),
    "llama_vocab_get_add_bos": (c_bool, (_POINTER,)),
    "llama_vocab_bos": (c_int32, (_POINTER,)),
    "llama_tokenize": (
        c_int32,
        (_POINTER, c_char_p, c_int32, _POINTER, c_int32, c_bool, c_bool),
    ),
    "llama_token_to_piece": (c_int32, (_POINTER, c_int32, c_char_p, c_int32, c_int32, c_bool)),
    "llama_free": (None, (_POINTER,)),
    "llama_n_ctx": (c_uint32, (_POINTER,)),
    "llama_get_memory": (_POINTER, (_POINTER,)),
    "llama_memory_seq_rm": (c_bool, (_POINTER, c_int32, c_int32, c_int32)),
    "llama_memory_seq_cp": (None, (_POINTER, c_int32, c_int32, c_int32, c_int32)),
    "llama_memory_seq_pos_max": (c_int32, (_POINTER, c_int32)),
    "llama_decode": (c_int32, (_POINTER, Batch)),
    "llama_get_logits": (_POINTER, (_POINTER,)),
    "llama_get_logits_ith": (_POINTER, (_POINTER, c_int32)),
    "llama_state_seq_get_size": (c_size_t, (_POINTER, c_int32)),
    "llama_state_seq_get_data": (c_size_t, (_POINTER, _POINTER, c_size_t, c_int32)),
    "llama_state_seq_set_data": (c_size_t, (_POINTER, _POINTER, c_size_t, c_int32)),
    "llama_set_abort_callback": (None, (_POINTER, _POINTER, _POINTER)),
    "llama_version": (c_char_p, ()),
}


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded and checked llama.cpp. ``calls`` holds the bound C functions by name."""

    package: str
    version: str
    path: Path
    context_layout: ContextLayout
    calls: dict[str, Callable[..., Any]]
    handle: ctypes.CDLL

    def model_params(self) -> ModelParams:
        """The library's own defaults, with everything on the CPU."""
        params: ModelParams = self.calls["llama_model_default_params"]()
        params.n_gpu_layers = 0
        return params

    def context_params(self) -> Any:
        """The library's own defaults for a context."""
        return self.calls["llama_context_default_params"]()


def find_library() -> tuple[str, str, Path]:
    """(package, version, path) of the shared library. Raises ``EngineError`` when there is none."""
    for package, distribution, patterns in (
        ("llama_cpp", "llama-cpp-python", ("lib/libllama.so", "lib/libllama.dylib", "libllama.so")),
        ("xllamacpp", "xllamacpp", ("xllamacpp.abi3.so", "xllamacpp*.so", "xllamacpp*.pyd")),
    ):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for pattern in patterns:
                for path in sorted(Path(folder).glob(pattern)):
                    return package, importlib.metadata.version(distribution), path
    raise EngineError(
        "no llama.cpp library found: neither llama_cpp nor xllamacpp is installed for "
        f"{sys.executable}; {_REMEDY}",
        code="engine_unavailable",
    )


def load_library() -> Library:
    """llama.cpp, loaded, bound, self-checked and silent. Raises ``EngineError`` with a remedy."""
    package, version, path = find_library()
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(
            f"cannot load {path}: {error}; {_REMEDY}", code="engine_unavailable"
        ) from error
    calls = {name: _bind(handle, path, name, *spec) for name, spec in _SIGNATURES.items()}
    layout = _checked_layout(handle, path, package, version)
    calls["llama_model_default_params"] = _bind(
        handle, path, "llama_model_default_params", ModelParams, ()
    )
    calls["llama_context_default_params"] = _bind(
        handle, path, "llama_context_default_params", layout, ()
    )
    calls["llama_init_from_model"] = _bind(
        handle, path, "llama_init_from_model", _POINTER, (_POINTER, layout)
    )
    # The callback outlives every Library object, and the log may be written by worker threads:
    # so a C function that ignores its arguments (int abs(int)), not a Python one.
    silence = ctypes.cast(ctypes.CDLL(None).abs, c_void_p)
    _bind(handle, path, "llama_log_set", None, (c_void_p, c_void_p))(silence, None)
    _check_model_defaults(calls["llama_model_default_params"](), package, version)
    calls["llama_backend_init"]()
    return Library(package, version, path, layout, calls, handle)


def _bind(
    handle: ctypes.CDLL, path: Path, name: str, result: Any, arguments: Sequence[Any]
) -> Callable[..., Any]:
    try:
        function = getattr(handle, name)
    except AttributeError as error:
        raise EngineError(
            f"{path} does not export {name}: this build cannot be driven from Python; {_REMEDY}",
            code="engine_unavailable",
        ) from error
    function.restype = result
    function.argtypes = list(arguments)
    bound: Callable[..., Any] = function
    return bound


def _checked_layout(handle: ctypes.CDLL, path: Path, package: str, version: str) -> ContextLayout:
    known = LAYOUTS.get((package, version))
    candidates: list[ContextLayout] = [known] if known else [ContextParams168, ContextParams160]
    findings = []
    for layout in candidates:
        defaults = _bind(handle, path, "llama_context_default_params", layout, ())()
        problems = context_default_problems(defaults)
        if not problems:
            return layout
        findings.append(f"{layout.__name__}: {', '.join(problems)}")
    raise EngineError(
        f"the layout of llama_context_params in {package} {version} is not one this program "
        f"knows ({'; '.join(findings)}); {_REMEDY}",
        code="engine_unavailable",
    )


def context_default_problems(params: Any) -> list[str]:
    """What differs from the defaults that every supported version documents; empty when sound."""
    expected: dict[str, object] = {
        "n_ctx": 512,
        "n_batch": 2048,
        "n_ubatch": 512,
        "n_seq_max": 1,
        "n_threads": 4,
        "n_threads_batch": 4,
        "ctx_type": 0,
        "rope_scaling_type": -1,
        "pooling_type": -1,
        "attention_type": -1,
        "flash_attn_type": -1,
        "type_k": 1,
        "type_v": 1,
        "embeddings": False,
        "offload_kqv": True,
        "no_perf": True,
        "op_offload": True,
        "swa_full": True,
        "kv_unified": False,
    }
    return _differences(params, expected)


def _check_model_defaults(params: ModelParams, package: str, version: str) -> None:
    expected: dict[str, object] = {
        "n_gpu_layers": -1,
        "split_mode": 1,
        "vocab_only": False,
        "check_tensors": False,
        "use_extra_bufts": True,
        "no_host": False,
        "no_alloc": False,
    }
    problems = _differences(params, expected)
    if problems:
        raise EngineError(
            f"the layout of llama_model_params in {package} {version} is not one this program "
            f"knows ({', '.join(problems)}); {_REMEDY}",
            code="engine_unavailable",
        )


def _differences(params: Any, expected: dict[str, object]) -> list[str]:
    return [
        f"{name} is {getattr(params, name)!r}, expected {value!r}"
        for name, value in expected.items()
        if getattr(params, name) != value
    ]
