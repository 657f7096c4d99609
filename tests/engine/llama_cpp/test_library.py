"""The library is found, checked and refused with a reason."""

import importlib.util
from types import SimpleNamespace

from tightloop.engine.llama_cpp.library import (
    SPARE_BYTES,
    ContextParams160,
    ContextParams168,
    ModelParams,
    context_default_problems,
    find_library,
    load_library,
)


def test_layouts_have_the_documented_sizes_and_spare_room() -> None:
    import ctypes

    assert ctypes.sizeof(ModelParams) - SPARE_BYTES == 80
    assert ctypes.sizeof(ContextParams160) - SPARE_BYTES == 160
    assert ctypes.sizeof(ContextParams168) - SPARE_BYTES == 168


def test_the_installed_library_passes_its_check() -> None:
    library = load_library()
    assert context_default_problems(library.context_params()) == []
    assert library.model_params().n_gpu_layers == 0


def test_a_wrong_layout_is_noticed_and_described() -> None:
    """Read through the other layout, the four true booleans read false."""
    library = load_library()
    wrong = ContextParams160 if library.context_layout is ContextParams168 else ContextParams168
    function = library.handle.llama_context_default_params
    function.restype = wrong
    problems = context_default_problems(function())
    function.restype = library.context_layout
    assert any(problem.startswith("offload_kqv is False") for problem in problems)


def test_a_foreign_default_is_named() -> None:
    params = SimpleNamespace(**{name: 0 for name, *_ in ContextParams168._fields_})
    assert "n_ctx is 0, expected 512" in context_default_problems(params)


def test_the_library_is_found_without_importing_its_package() -> None:
    package, version, path = find_library()
    assert path.is_file()
    assert version
    assert importlib.util.find_spec(package) is not None
