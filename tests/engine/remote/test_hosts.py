"""What hosts know, and the key of a conversation."""

from dataclasses import replace

import pytest

from tests.engine.collecting import request
from tightloop.engine.interface import Node
from tightloop.engine.remote.hosts import (
    HOST_KINDS,
    MAX_KEY_CHARS,
    MAX_KEYS_KEPT,
    ConversationKeys,
    affinity_fields,
    affinity_headers,
    kind_of_owner,
    kind_of_url,
)


@pytest.mark.parametrize(
    ("hostname", "kind"),
    [
        ("api.openai.com", "openai"),
        ("API.Cerebras.ai", "cerebras"),
        ("groq.com", "groq"),
        ("openai.com.evil.example", None),
        ("127.0.0.1", None),
        ("localhost", None),
    ],
)
def test_public_hosts_are_known_by_name(hostname: str, kind: str | None) -> None:
    found = kind_of_url(hostname)
    assert (found.name if found else None) == kind


def test_others_are_known_by_what_they_list() -> None:
    vllm = kind_of_owner(frozenset({"vllm"}))
    assert vllm is HOST_KINDS["vllm"]
    assert kind_of_owner(frozenset({"vllm", "sglang"})) is None
    assert kind_of_owner(frozenset({"somebody"})) is None
    assert kind_of_owner(frozenset()) is None


def test_a_conversation_has_one_key() -> None:
    """All turns and forks of it, and no other conversation; also for who asks first at the end."""
    first = request("one", name="r1")
    keys = ConversationKeys()
    key = keys.of(first)
    root = Node("r1", None, first.items)
    second = request("two", name="r2", parent=root)
    third = request("three", name="r3", parent=Node("r2", root, second.items))
    assert keys.of(second) == key == keys.of(third) == ConversationKeys().of(third)
    assert keys.of(request("one", name="other")) != key
    assert "r1" not in key
    assert len(key) <= MAX_KEY_CHARS


def test_keys_that_were_forgotten_are_made_again() -> None:
    keys = ConversationKeys()
    first = request("one", name="r1")
    key = keys.of(first)
    for n in range(MAX_KEYS_KEPT):
        keys.of(request(name=f"other {n}"))
    assert keys.of(request("two", name="r2", parent=Node("r1", None, first.items))) == key


def test_the_client_s_key_comes_first() -> None:
    assert ConversationKeys().of(replace(request(), cache_key="mine")) == "mine"
    assert len(ConversationKeys().of(replace(request(), cache_key="x" * 99))) <= MAX_KEY_CHARS


@pytest.mark.parametrize(
    ("kind", "fields", "headers"),
    [
        ("other", {}, {}),
        ("openai", {"prompt_cache_key": "k", "service_tier": "flex"}, {}),
        ("cerebras", {"prompt_cache_key": "k", "service_tier": "flex"}, {}),
        ("groq", {"service_tier": "flex"}, {}),
        ("vllm", {"session_id": "k"}, {}),
        ("sglang", {"session_id": "k"}, {}),
        ("dynamo", {}, {"x-dynamo-session-id": "k"}),
        ("fireworks", {}, {"x-session-affinity": "k"}),
    ],
)
def test_each_host_gets_what_it_knows(
    kind: str, fields: dict[str, str], headers: dict[str, str]
) -> None:
    asked = replace(request(), service_tier="flex")
    assert affinity_fields(HOST_KINDS[kind], asked, "k") == fields
    assert affinity_headers(HOST_KINDS[kind], "k") == headers


def test_a_key_that_is_no_header_is_made_one() -> None:
    (value,) = affinity_headers(HOST_KINDS["dynamo"], "a\r\nX-Evil: ü").values()
    assert value.isalnum()
