"""The words in which a client is described."""

import subprocess

from tightloop.cli.connecting.interface import Setting, Target, key_setting

TARGET = Target("http://127.0.0.1:8099/v1", "m", "MY_KEY")


def shell_value(setting: Setting, **environment: str) -> str:
    script = f'{setting.in_shell()}; printf %s "${setting.name}"'
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_value_means_the_same_in_a_shell_as_in_a_process() -> None:
    """Whatever characters a model's name has."""
    for value in ("http://[::1]:1/v1", 'it\'s "$HOME" `x`\\', ""):
        setting = Setting("NAME", value, "a reason")
        assert shell_value(setting) == value
        assert setting.among({}) == value


def test_a_key_is_referred_to_and_never_shown() -> None:
    """The client gets the variable's value; without one, a word that keyless servers ignore."""
    setting = key_setting("OPENAI_API_KEY", TARGET, "a reason")
    assert setting.in_shell() == 'export OPENAI_API_KEY="${MY_KEY:-unused}"'
    for environment, expected in (
        ({"MY_KEY": "s3"}, "s3"),
        ({"MY_KEY": ""}, "unused"),
        ({}, "unused"),
    ):
        assert setting.among(environment) == expected
        assert shell_value(setting, **environment) == expected


def test_anthropic_clients_want_the_root() -> None:
    """They add /v1 themselves."""
    assert TARGET.root == "http://127.0.0.1:8099"
