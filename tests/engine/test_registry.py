"""Engines by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.collecting import ask, request
from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.interface import EngineError
from tightloop.engine.registry import (
    CHOICES,
    EngineOptions,
    check_name,
    create_engine,
    is_local,
    is_patchling,
    model_name,
    served_name,
    serves_all,
)


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(EngineError, match="there is no engine 'gpt-9'") as caught:
        create_engine("gpt-9")
    for name, _ in CHOICES:
        assert name in str(caught.value)


async def test_scripted() -> None:
    engine = create_engine("scripted")
    await engine.start()
    assert (await ask(engine, request("hi"))).text == "echo: hi"
    await engine.close()


async def test_a_script_file(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text('{"answers": [[{"text": "from the file"}]]}')
    engine = create_engine(f"scripted:{path}")
    assert (await ask(engine, request("hi"))).text == "from the file"
    with pytest.raises(EngineError):
        create_engine(f"scripted:{tmp_path / 'none.json'}")


async def test_a_local_file_is_served_as_a_chat_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    engine = create_engine(str(path), EngineOptions(num_context=1024, num_sequences=2))
    await engine.start()
    (info,) = engine.models()
    assert (info.name, info.context_window) == ("tiny", 1024)
    assert info.num_parameters == 116928
    answer = await ask(engine, request(max_output_tokens=2))
    await engine.close()
    assert answer.finished.usage.output_tokens <= 2


async def test_the_bundled_model_s_context_is_what_its_policy_reads() -> None:
    """The network keeps its own, which is too small for any conversation."""
    engine = create_engine("patchling", EngineOptions(num_context=300))
    await engine.start()
    (info,) = engine.models()
    answer = await ask(engine, request("long " * 400))
    await engine.close()
    assert info.context_window == 300
    assert answer.finished.error_code == "context_length_exceeded"


async def test_a_missing_file_is_told_by_start() -> None:
    engine = create_engine("/nowhere/m.gguf")
    with pytest.raises(EngineError, match=r"there is no model file '/nowhere/m\.gguf'"):
        await engine.start()
    await engine.close()


def test_remote_names_are_checked_at_once() -> None:
    assert create_engine("remote:a/b@c@http://h:1/v1").models()[0].name == "a/b@c"
    with pytest.raises(EngineError, match="write remote:MODEL@https://HOST/v1"):
        create_engine("remote:model")


def test_names_of_models() -> None:
    assert model_name("patchling") == "patchling"
    assert model_name("/a/b/Qwen-0.5B.gguf") == "Qwen-0.5B"
    assert model_name("hf:o/r/sub/x-q4.gguf@main") == "x-q4"
    assert is_patchling({"general.name": "patchling"})
    assert not is_patchling({})


def test_importing_the_registry_loads_no_engine() -> None:
    """Heavy libraries come with the engine that needs them."""
    code = (
        "import sys, tightloop.engine.registry\n"
        "heavy = {'aiohttp', 'jinja2', 'numpy', 'xllamacpp', 'llama_cpp', 'huggingface_hub', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_bundled_model_explains_itself_and_starts_a_repair() -> None:
    engine = create_engine()
    await engine.start()
    (info,) = engine.models()
    answer = await ask(engine, request("hello"))
    await engine.close()
    assert info.name == "patchling"
    assert info.num_parameters is not None
    assert info.num_parameters < 10_000_000
    assert "demo model" in info.description
    assert "demo model" in answer.text


@pytest.mark.parametrize(
    ("spec", "name", "local", "all_of_them"),
    [
        ("patchling", "patchling", True, False),
        ("/x/coder.gguf", "coder", True, False),
        ("hf:o/r/f.gguf@main", "f", True, False),
        ("vllm:/x/coder/", "coder", False, False),
        ("scripted:/x/s.json", "scripted", False, False),
        ("remote:a/b@https://h/v1", "a/b", False, False),
        ("remote:*@https://h/v1", "remote:*@https://h/v1", False, True),
    ],
)
def test_what_a_name_says_before_anything_is_made(
    spec: str, name: str, local: bool, all_of_them: bool
) -> None:
    """Under which name it is served, whether it computes here, whether it is several models."""
    check_name(spec)
    assert (served_name(spec), is_local(spec), serves_all(spec)) == (name, local, all_of_them)


@pytest.mark.parametrize("spec", ["gpt-9", "remote:x", "vllm:", ""])
def test_a_name_without_a_form_is_refused(spec: str) -> None:
    with pytest.raises(EngineError, match=r"choose one of|does not name"):
        check_name(spec)


async def test_without_vllm_its_engine_says_what_to_install() -> None:
    engine = create_engine("vllm:/nowhere")
    with pytest.raises(EngineError, match="install the package vllm") as refused:
        await engine.start()
    assert refused.value.code == "engine_unavailable"
