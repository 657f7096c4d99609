"""The random-weight models of the experiments, made when they are first needed and then kept."""

from importlib import resources
from pathlib import Path
from typing import Final

from benchmarks.net.gguf_file import Shape, Tokenizer, num_parameters, read_tokenizer, write_random

CACHE: Final = Path("build/benchmark-models")
"""Below the directory of the repository; git ignores it."""

SHAPES: Final = {
    "random-3m": Shape(width=192, layers=4, heads=3, inner=512),
    "random-30m": Shape(width=512, layers=8, heads=8, inner=1408),
    "random-500m": Shape(width=1280, layers=25, heads=20, inner=3456, num_context=8192),
}
"""Widths and depths of common small models; two vocabulary matrices of 3,072 tokens come on top."""


def random_model(name: str, cache: Path = CACHE) -> Path:
    """The file of a model of ``SHAPES``. Raises KeyError for another name."""
    shape = SHAPES[name]
    target = cache / f"{name}.gguf"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        write_random(partial, name, shape, tokenizer())
        partial.replace(target)
    return target


def parameters(name: str) -> int:
    """How many parameters the model has."""
    return num_parameters(SHAPES[name], len(tokenizer().tokens))


def tokenizer() -> Tokenizer:
    """The bundled network's vocabulary: byte pairs of Python source."""
    bundled = resources.files("tightloop.models").joinpath("patchling.gguf")
    with resources.as_file(bundled) as path:
        return read_tokenizer(path)
