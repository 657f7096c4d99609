"""Names of remote models with their options."""

import pytest

from tightloop.engine.interface import EngineError
from tightloop.engine.remote import RemoteOptions, create_remote, parse_options, parse_remote_name


def test_names_of_remote_models() -> None:
    named = parse_remote_name("remote:org/model@x@https://api.example.com/v1/")
    assert (named.model, named.base_url) == ("org/model@x", "https://api.example.com/v1")
    assert named.options == RemoteOptions()
    assert not named.is_all
    for bad in ("remote:model", "remote:@https://h/v1", "remote:m@ftp://h", "remote:m@https://"):
        with pytest.raises(EngineError, match="does not name a remote model"):
            parse_remote_name(bad)


@pytest.mark.parametrize("spec", ["remote:*@https://h/v1", "remote:https://h/v1"])
def test_a_host_without_a_model_is_all_of_its_models(spec: str) -> None:
    named = parse_remote_name(spec)
    assert (named.is_all, named.base_url) == (True, "https://h/v1")


def test_a_websocket_address_asks_for_the_websocket() -> None:
    named = parse_remote_name("remote:m@wss://h/v1#gzip=on")
    assert named.base_url == "https://h/v1"
    assert named.options == RemoteOptions(api="responses-ws", gzip="on")
    assert parse_remote_name("remote:m@ws://h:1/v1").base_url == "http://h:1/v1"


def test_every_option_can_be_given() -> None:
    text = (
        "api=auto&gzip=off&http=2&warm=4&host_kind=vllm&warms_up=yes&key_env=A_KEY"
        "&sends_reasoning=on&context_window=9000&congestion=bbr&max_sockets=8&idle_s=2.5"
    )
    assert parse_options(text) == RemoteOptions(
        "auto", "off", "2", 4, "vllm", True, "A_KEY", True, 9000, "bbr", 8, 2.5
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("speed=9", "no option 'speed'; there are api, gzip"),
        ("api=grpc", "api must be one of chat, responses, responses-ws, auto, got 'grpc'"),
        ("host_kind=x", "host_kind must be one of other, openai"),
        ("warms_up=maybe", "warms_up must be yes or no, got 'maybe'"),
        ("warm=many", "warm must be a number, got 'many'"),
        ("warm=-1", "warm must be 0 or more, got '-1'"),
        ("idle_s=nan", "idle_s must be 1.0 or more"),
    ],
)
def test_a_bad_option_is_named(text: str, complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint) as raised:
        parse_remote_name(f"remote:m@https://h/v1#{text}")
    assert raised.value.code == "invalid_value"


def test_an_engine_from_a_name() -> None:
    engine = create_remote("remote:m@https://h/v1#key_env=B_KEY&context_window=5", api_key_env="A")
    assert (engine.host.key_env, engine.host.base_url) == ("B_KEY", "https://h/v1")
    assert engine.models()[0].context_window == 5
    assert create_remote("remote:m@https://h/v1", api_key_env="A").host.key_env == "A"


@pytest.mark.parametrize("url", ["https://[::1/v1", "https://h:99999/v1", "https://h:ab/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(EngineError, match="does not name a remote model"):
        parse_remote_name(f"remote:m@{url}")


@pytest.mark.parametrize(
    "rest",
    [
        "u:s3cret@h/v1",
        "s3cret@h/v1",
        "h/v1?key=s3cret",
        "h/v1#key_env=sk-s3cret",
    ],
)
def test_secrets_in_a_name_are_refused_and_not_repeated(rest: str) -> None:
    """The name is shown in tables, the address to every client."""
    with pytest.raises(EngineError) as raised:
        parse_remote_name(f"remote:m@https://{rest}")
    assert "s3cret" not in str(raised.value)


def test_a_key_in_the_place_of_its_variable_is_not_repeated() -> None:
    with pytest.raises(EngineError, match="names the variable") as raised:
        create_remote("remote:m@https://h/v1", api_key_env="sk-s3cret")
    assert "s3cret" not in str(raised.value)
