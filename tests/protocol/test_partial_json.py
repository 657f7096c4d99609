import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values, objects, texts
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.partial_json import Change, PartialObject, StringGrew, ValueDone

TEXT = (
    r'{"path": "a\n\ud83d\ude00\u00e9\ud83dx\udc00\ud83d\n\ud83d\ud83d\ude00", "n": {"a":[1,"}\"\\",{"z":"\ud800"}]},'
    ' "k":12.5e3 , "b":true,"e":"" , "l":[] }\n'
)
VALUES = {
    "path": "a\n\U0001f600é\ufffdx\ufffd\ufffd\n\ufffd\U0001f600",
    "n": {"a": [1, '}"\\', {"z": "\ufffd"}]},
    "k": 12500.0,
    "b": True,
    "e": "",
    "l": [],
}


def read(pieces: list[str]) -> tuple[PartialObject, list[Change]]:
    reader = PartialObject()
    return reader, [change for piece in pieces for change in reader.feed(piece)]


def grown(changes: list[Change], key: str) -> str:
    return "".join(c.text for c in changes if isinstance(c, StringGrew) and c.key == key)


def test_cut_at_every_character_it_is_the_same() -> None:
    every_char = list(TEXT)
    for pieces in [every_char, *([TEXT[:n], TEXT[n:]] for n in range(len(TEXT) + 1))]:
        reader, changes = read(pieces)
        assert reader.is_complete
        assert reader.values == VALUES
        assert grown(changes, "path") == VALUES["path"]
        done = [(c.key, c.value) for c in changes if isinstance(c, ValueDone)]
        assert done == list(VALUES.items())


def test_a_string_is_seen_while_it_grows() -> None:
    reader = PartialObject()
    assert reader.feed('{"path": "src/a') == [StringGrew("path", "src/a")]
    assert reader.growing == ("path", "src/a")
    assert reader.values == {}
    assert reader.feed(".py") == [StringGrew("path", ".py")]
    assert reader.feed('", ') == [ValueDone("path", "src/a.py")]
    assert reader.growing is None
    assert reader.feed('"n": 1') == []
    assert reader.feed("2}") == [ValueDone("n", 12)]
    assert reader.is_complete


def test_half_an_escape_is_held_back() -> None:
    reader = PartialObject()
    assert reader.feed('{"a":"x\\u00') == [StringGrew("a", "x")]
    assert reader.feed("e9\\ud83d") == [StringGrew("a", "é")]
    assert reader.feed("\\ude00") == [StringGrew("a", "\U0001f600")]


def test_raw_line_breaks_in_strings_are_accepted() -> None:
    reader, _ = read(['{"a":"x\ny", "b":["x\ny"]}'])
    assert reader.values == {"a": "x\ny", "b": ["x\ny"]}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[1]", 0),
        ("x", 0),
        ('{"a" 1}', 4),
        ("{a:1}", 1),
        ('{"a":}', 5),
        ('{"a":1,}', 7),
        ('{"a":"\\q"}', 6),
        ('{"a":"\\u00zz"}', 6),
        ('{"a":1} x', 7),
        ('{"a":nul}', 5),
        ('{"a":NaN}', 5),
        ('{"a":[1,]}', 5),
        ('{"a":' + "[" * 50_000 + "]" * 50_000 + "}", 5),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(text: str, place: int) -> None:
    reader = PartialObject()
    with pytest.raises(RemoteProtocolError, match=f"at or after character {place}:"):
        reader.feed(text)


@given(objects(), st.booleans(), st.lists(st.integers(0, 200), max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_object_in_any_pieces(value: dict[str, Any], ascii_only: bool, at: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    edges = [0, *sorted(min(place, len(text)) for place in at), len(text)]
    reader, changes = read([text[a:b] for a, b in itertools.pairwise(edges)])
    assert reader.is_complete
    assert reader.values == value
    for key, entry in value.items():
        if isinstance(entry, str):
            assert grown(changes, key) == entry


@given(texts | json_values.map(json.dumps) | objects().map(lambda v: json.dumps(v)[:-2]))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    """And read the same way character by character."""
    outcomes: list[object] = []
    for pieces in ([text], list(text)):
        reader = PartialObject()
        try:
            for piece in pieces:
                reader.feed(piece)
        except RemoteProtocolError:
            outcomes.append("refused")
        else:
            outcomes.append((reader.is_complete, reader.values))
    assert outcomes[0] == outcomes[1]
