"""Claude Code's settings.json."""

import json
from pathlib import Path

from tightloop.cli.connecting.claude import CLIENT
from tightloop.cli.connecting.interface import Target

TARGET = Target("http://127.0.0.1:8099/v1", "m", "MY_KEY")


def test_the_settings_name_the_root_and_the_model_for_every_size() -> None:
    """The base URL is without /v1; a size without a model would ask for a name not served."""
    recipe = CLIENT.recipe(TARGET)
    environment = json.loads(recipe.files[0].text)["env"]
    assert environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8099"
    models = {name: value for name, value in environment.items() if name.endswith("_MODEL")}
    assert len(models) == 5
    assert set(models.values()) == {"m"}


def test_the_key_is_a_bearer_token_and_nothing_else_is_sent() -> None:
    """A real Anthropic key in the environment must not reach this server."""
    recipe = CLIENT.recipe(TARGET)
    assert [setting.name for setting in recipe.settings] == ["ANTHROPIC_AUTH_TOKEN"]
    assert recipe.unset == ("ANTHROPIC_API_KEY",)
    assert "MY_KEY" not in recipe.files[0].text


def test_its_home_is_a_directory_of_its_own() -> None:
    """Where settings.json is read from."""
    assert [(s.name, s.value) for s in CLIENT.home(Path("/d"))] == [("CLAUDE_CONFIG_DIR", "/d")]
    assert CLIENT.arguments(TARGET, ["-p", "x"]) == ["-p", "x"]
