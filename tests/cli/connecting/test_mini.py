"""mini-swe-agent's variables."""

from pathlib import Path

from tightloop.cli.connecting.interface import Target
from tightloop.cli.connecting.mini import CLIENT

TARGET = Target("http://127.0.0.1:8099/v1", "m", "MY_KEY")


def test_litellm_finds_the_server_by_either_name() -> None:
    """Old and new versions read different variables."""
    settings = {setting.name: setting.value for setting in CLIENT.recipe(TARGET).settings}
    assert settings["OPENAI_BASE_URL"] == settings["OPENAI_API_BASE"] == TARGET.url
    assert settings["MSWEA_CONFIGURED"] == "true"


def test_the_model_is_an_argument_in_front_of_the_persons_words() -> None:
    """So that words can name another one."""
    assert CLIENT.arguments(TARGET, ["-t", "x"]) == ["-m", "openai/m", "-t", "x"]
    assert [setting.name for setting in CLIENT.home(Path("/d"))] == ["MSWEA_GLOBAL_CONFIG_DIR"]
