"""Lists of models, in the shapes in which hosts send them."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given

from tests import strategies
from tightloop.engine.interface import EngineError
from tightloop.engine.remote.catalog import FRESH_S, Catalog, ListedModel, read_listing
from tightloop.engine.remote.host import Host
from tightloop.engine.remote.options import RemoteOptions
from tightloop.engine.remote.upstream import Take, UpstreamError
from tightloop.trace.clock import ManualClock


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"data": [{"id": "a", "owned_by": "o"}]}, ListedModel("a", "o")),
        ({"data": [{"id": "a", "max_model_len": 8}]}, ListedModel("a", "", 8)),
        ({"data": [{"id": "a", "context_length": 8}]}, ListedModel("a", "", 8)),
        ({"data": [{"id": "a", "context_window": 8}]}, ListedModel("a", "", 8)),
        ({"data": [{"id": "a", "meta": {"n_ctx_train": 8}}]}, ListedModel("a", "", 8)),
        ({"data": [{"id": "a", "limits": {"max_context_length": 8}}]}, ListedModel("a", "", 8)),
        (
            {"data": [{"id": "a"}], "models": [{"slug": "a", "context_window": 8}]},
            ListedModel("a", "", 8),
        ),
        ({"models": [{"name": "a"}]}, ListedModel("a")),
        ([{"id": "a", "owned_by": 3, "context_length": -1}], ListedModel("a")),
    ],
)
def test_models_are_read_from_any_list(payload: object, expected: ListedModel) -> None:
    assert read_listing(payload) == [expected]


def test_odd_entries_are_left_out() -> None:
    entries = [None, 3, {"id": ""}, {"id": 3}, {"id": "a"}, {"id": "a", "context_length": 9}]
    assert read_listing({"data": entries, "models": [{"slug": []}]}) == [ListedModel("a")]


@given(strategies.json_values)
def test_anything_is_a_list_of_something(payload: object) -> None:
    assert isinstance(read_listing(payload), list)
    assert isinstance(read_listing({"data": [payload], "models": [payload]}), list)


class OneReply:
    """An answer that is here at once."""

    headers: Mapping[str, str] = {}

    def __init__(self, payload: object, status: int) -> None:
        self.status = status
        self._body = orjson.dumps(payload)

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._body

    async def pour(self, take: Take) -> None:
        take(self._body)

    async def finish(self) -> None:
        """Nothing more comes."""

    def close(self) -> None:
        """Nothing to stop."""


class Lists:
    """An upstream that answers every GET with one payload, or an error."""

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        self.status = 200

    async def warm(self, num: int, path: str) -> list[Any]:
        return []

    async def get(self, path: str, headers: Mapping[str, str]) -> OneReply:
        if isinstance(self.payload, Exception):
            raise self.payload
        return OneReply(self.payload, self.status)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> OneReply:
        raise AssertionError("nothing is posted here")

    async def close(self) -> None:
        """Nothing is open."""


def catalog(payload: Any, model: str | None = None) -> tuple[Catalog, Lists, ManualClock]:
    host = Host("https://host.example/v1", RemoteOptions(), "A_KEY")
    host.upstream = lists = Lists(payload)
    clock = ManualClock(1)
    return Catalog(host, model, clock), lists, clock


async def test_a_list_is_fresh_for_a_while() -> None:
    known, lists, clock = catalog({"data": [{"id": "old"}]})
    assert known.is_stale
    await known.refresh()
    assert not known.is_stale
    clock.advance_s(FRESH_S + 1)
    assert known.is_stale
    lists.payload = {"data": [{"id": "new"}]}
    await known.refresh()
    assert [info.name for info in known.models()] == ["new"]
    assert known.route("new") == "new"
    with pytest.raises(EngineError, match="has no model 'old'; it lists new"):
        known.route("old")


async def test_a_list_that_fails_leaves_the_last_one() -> None:
    known, lists, clock = catalog({"data": [{"id": "m"}]})
    await known.refresh()
    failures: list[Any] = [UpstreamError("gone"), TimeoutError(), {"data": []}, "text"]
    for payload in failures:
        lists.payload = payload
        with pytest.raises(EngineError, match=r"https://host\.example/v1/models"):
            await known.refresh()
    lists.status, lists.payload = 401, {}
    with pytest.raises(EngineError, match="answered 401; set a valid key in A_KEY"):
        await known.refresh()
    assert [info.name for info in known.models()] == ["m"]
    clock.advance_s(1)
    assert not known.is_stale  # a host that is down is not asked at every look


async def test_a_model_that_was_named_is_there_before_any_list() -> None:
    known, _, _ = catalog({"data": [{"id": "m", "context_window": 9}]}, "m")
    (info,) = known.models()
    assert (info.name, info.context_window, info.reads_images) == ("m", 0, True)
    await known.refresh()
    assert known.models()[0].context_window == 9
    assert known.route("anything") == "m"
