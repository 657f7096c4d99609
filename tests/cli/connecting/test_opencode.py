"""opencode's opencode.json."""

import json
from pathlib import Path
from typing import Any

from tightloop.cli.connecting.interface import Target
from tightloop.cli.connecting.opencode import CLIENT


def config(context_window: int) -> dict[str, Any]:
    target = Target("http://127.0.0.1:8099/v1", "a/b.gguf", "MY_KEY", context_window)
    read: dict[str, Any] = json.loads(CLIENT.recipe(target).files[0].text)
    return read


def test_the_provider_speaks_the_responses_api() -> None:
    """A model name may have slashes: only the first one parts it from the provider."""
    read = config(32768)
    assert read["model"] == read["small_model"] == "tightloop/a/b.gguf"
    provider = read["provider"]["tightloop"]
    assert provider["npm"] == "@ai-sdk/openai"
    assert provider["options"] == {
        "baseURL": "http://127.0.0.1:8099/v1",
        "apiKey": "{env:MY_KEY}",
    }
    assert list(provider["models"]) == ["a/b.gguf"]


def test_limits_fit_the_window() -> None:
    """opencode sums up when input and output no longer fit it."""
    limits = [
        config(window)["provider"]["tightloop"]["models"]["a/b.gguf"]["limit"]
        for window in (4096, 200_000)
    ]
    assert limits == [{"context": 4096, "output": 1024}, {"context": 200_000, "output": 8192}]


def test_its_home_is_a_directory_of_its_own() -> None:
    """The file by its name, everything else by the XDG variables."""
    home = {setting.name: setting.value for setting in CLIENT.home(Path("/d"))}
    assert home["OPENCODE_CONFIG"] == "/d/opencode.json"
    assert home["XDG_DATA_HOME"] == "/d/data"
    assert CLIENT.arguments(Target("u", "m", "K"), ["run", "x"]) == ["run", "x"]
