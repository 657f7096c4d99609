"""Every client that can be named is there, and describes itself completely."""

import pytest

from tightloop.cli.connecting.interface import Target
from tightloop.cli.connecting.registry import CLIENTS, client_named

TARGET = Target("http://127.0.0.1:8099/v1", "some-model", "MY_KEY", 4096)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_names_the_server_the_model_and_the_key(name: str) -> None:
    """Somewhere in what is set up: without one of them it would talk to somebody else."""
    client = client_named(name)
    recipe = client.recipe(TARGET)
    files = " ".join(file.text for file in recipe.files)
    settings = " ".join(setting.in_shell() for setting in recipe.settings)
    typed = " ".join(client.arguments(TARGET, recipe.example))
    assert client.name == name
    assert "http://127.0.0.1:8099" in files + settings
    assert "some-model" in files + settings + typed
    assert "MY_KEY" in settings
    assert all(file.why and file.place for file in recipe.files)
    assert all(setting.why for setting in recipe.settings)
    assert client.title
    assert client.install


def test_an_unknown_client_is_a_key_error() -> None:
    """The command line refuses it before."""
    with pytest.raises(KeyError):
        client_named("emacs")
