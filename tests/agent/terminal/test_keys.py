from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.agent.terminal.keys import MAX_PASTE_CHARS, Key, KeyDecoder

KEYS = {
    b"a": Key("text", "a"),
    "é日".encode(): Key("text", "é日"),
    b"\r": Key("enter"),
    b"\n": Key("ctrl-j"),
    b"\t": Key("tab"),
    b"\x7f": Key("backspace"),
    b"\x08": Key("backspace"),
    b"\x00": Key("ctrl-space"),
    b"\x01": Key("ctrl-a"),
    b"\x03": Key("ctrl-c"),
    b"\x04": Key("ctrl-d"),
    b"\x1a": Key("ctrl-z"),
    b"\x1f": Key("ctrl-_"),
    b"\x1b": Key("esc"),
    b"\x1b[A": Key("up"),
    b"\x1b[B": Key("down"),
    b"\x1b[C": Key("right"),
    b"\x1b[D": Key("left"),
    b"\x1bOA": Key("up"),
    b"\x1bOD": Key("left"),
    b"\x1b[H": Key("home"),
    b"\x1b[F": Key("end"),
    b"\x1bOH": Key("home"),
    b"\x1bOF": Key("end"),
    b"\x1b[1~": Key("home"),
    b"\x1b[2~": Key("insert"),
    b"\x1b[3~": Key("delete"),
    b"\x1b[4~": Key("end"),
    b"\x1b[5~": Key("pageup"),
    b"\x1b[6~": Key("pagedown"),
    b"\x1b[7~": Key("home"),
    b"\x1b[8~": Key("end"),
    b"\x1bOP": Key("f1"),
    b"\x1b[[A": Key("f1"),
    b"\x1b[15~": Key("f5"),
    b"\x1b[24~": Key("f12"),
    b"\x1b[1;5C": Key("ctrl-right"),
    b"\x1b[1;5D": Key("ctrl-left"),
    b"\x1b[1;3D": Key("alt-left"),
    b"\x1b[1;2A": Key("shift-up"),
    b"\x1b[1;6H": Key("ctrl-shift-home"),
    b"\x1b[3;5~": Key("ctrl-delete"),
    b"\x1bO5C": Key("ctrl-right"),
    b"\x1b\x1b[D": Key("alt-left"),
    b"\x1b\x1bOC": Key("alt-right"),
    b"\x1b[Z": Key("shift-tab"),
    b"\x1b\r": Key("alt-enter"),
    b"\x1b\n": Key("alt-enter"),
    b"\x1b\x7f": Key("alt-backspace"),
    b"\x1b\t": Key("alt-tab"),
    b"\x1bb": Key("alt-b"),
    b"\x1bd": Key("alt-d"),
    "\x1bé".encode(): Key("alt-é"),
    b"\x1b\x01": Key("ctrl-alt-a"),
    b"\x1b[": Key("alt-["),
    b"\x1bO": Key("alt-O"),
    b"\x1b[27u": Key("esc"),
    b"\x1b[27;1u": Key("esc"),
    b"\x1b[27;3u": Key("alt-esc"),
    b"\x1b[99;5u": Key("ctrl-c"),
    b"\x1b[99;5:1u": Key("ctrl-c"),
    b"\x1b[106;5u": Key("ctrl-j"),
    b"\x1b[105;5u": Key("tab"),
    b"\x1b[98;3u": Key("alt-b"),
    b"\x1b[13;2u": Key("shift-enter"),
    b"\x1b[13;5u": Key("ctrl-enter"),
    b"\x1b[13;3u": Key("alt-enter"),
    b"\x1b[9;2u": Key("shift-tab"),
    b"\x1b[127;5u": Key("ctrl-backspace"),
    b"\x1b[32u": Key("text", " "),
    b"\x1b[97;2u": Key("text", "A"),
    b"\x1b[27;5;13~": Key("ctrl-enter"),
    b"\x1b[27;2;13~": Key("shift-enter"),
    b"\x1b[57414u": Key("enter"),
    b"\x1bOM": Key("enter"),
    b"\x1bOp": Key("text", "0"),
    b"\x1bOk": Key("text", "+"),
    b"\x1b[200~two\r\nlines\rand \x1b[31mmore\x1b[201~": Key(
        "paste", "two\nlines\nand \x1b[31mmore"
    ),
}
NO_KEYS = (
    b"\x1b[I",  # focus
    b"\x1b[O",
    b"\x1b[12;40R",  # where the cursor is
    b"\x1b[?62;22c",  # what the terminal is
    b"\x1b[?1u",
    b"\x1b[<0;10;10M",  # the mouse
    b"\x1b[99;5:3u",  # a key was released
    b"\x1b[57441u",  # Shift alone
    b"\x1b[99~",
    b"\x1b[1;5X",
    "\x9b".encode(),
)


def decoded(*pieces: bytes) -> list[Key]:
    """The keys of these reads, the last of which nothing follows; text that was cut joined again."""
    decoder = KeyDecoder()
    keys = [key for piece in pieces for key in decoder.feed(piece)]
    return joined([*keys, *decoder.flush()])


def joined(keys: list[Key]) -> list[Key]:
    found: list[Key] = []
    for key in keys:
        if key.name == "text" and found and found[-1].name == "text":
            found[-1] = Key("text", found[-1].text + key.text)
        else:
            found.append(key)
    return found


@pytest.mark.parametrize(("data", "key"), KEYS.items(), ids=lambda value: ascii(value)[:40])
def test_every_key_and_every_cut(data: bytes, key: Key) -> None:
    """A key is the same in one read, cut anywhere, and byte by byte."""
    assert [key] == decoded(data)
    for cut in range(1, len(data)):
        assert [key] == decoded(data[:cut], data[cut:])
    assert [key] == decoded(*[bytes([byte]) for byte in data])


@pytest.mark.parametrize("data", NO_KEYS, ids=ascii)
def test_reports_are_not_text(data: bytes) -> None:
    """What is no key is dropped, and what follows it is read as usual."""
    assert decoded(data) == []
    assert [Key("text", "x")] == decoded(data + b"x")


def test_keys_in_one_read_come_in_order() -> None:
    """A terminal may send many keys at once."""
    keys = [Key("text", "ls"), Key("left"), Key("esc"), Key("esc"), Key("text", "q")]
    assert keys == decoded(b"ls\x1b[D\x1b[27u\x1b[27uq")


def test_an_escape_character_waits_for_what_follows() -> None:
    """Only time can tell Esc from the beginning of a key."""
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.is_waiting
    assert [Key("esc")] == decoder.flush()
    assert not decoder.is_waiting
    assert decoder.feed(b"\x1b\x1b") == []
    assert [Key("esc"), Key("esc")] == decoder.flush()
    assert decoder.flush() == []


def test_a_key_that_has_begun_does_not_wait_for_time() -> None:
    """Parameters of a sequence are no keys, however late its end comes."""
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b[1;5") == []
    assert not decoder.is_waiting
    assert decoder.flush() == []
    assert [Key("ctrl-left")] == decoder.feed(b"D")


def test_a_paste_may_come_in_many_reads() -> None:
    """It is one key, at its end; an Esc in it is part of it."""
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b[200~one\n\x1b") == []
    assert not decoder.is_waiting
    assert decoder.feed(b"two\x1b[20") == []
    assert [Key("paste", "one\n\x1btwo\x1b[20x"), Key("enter")] == decoder.feed(b"x\x1b[201~\r")


def test_a_paste_without_an_end_is_bounded() -> None:
    """What is beyond the limit is dropped, not kept."""
    decoder = KeyDecoder()
    decoder.feed(b"\x1b[200~")
    for _ in range(6):
        decoder.feed(b"x" * 1_000_000)
    (key,) = decoder.feed(b"\x1b[201~")
    assert len(key.text) == MAX_PASTE_CHARS


def test_bytes_that_are_no_text() -> None:
    """They become replacement characters; a character cut in two does not."""
    assert [Key("text", "a\ufffdb")] == decoded(b"a\xffb")
    assert [Key("text", "é")] == decoded(b"\xc3", b"\xa9")


PIECES = st.sampled_from(
    [*KEYS, *NO_KEYS, b"\x1b", b"[", b"O", b"1", b";", b"~", b"\x1b[200~", b"u"]
)
BYTES = st.one_of(st.binary(max_size=30), st.lists(PIECES, max_size=8).map(b"".join))


@settings(max_examples=150, deadline=None)
@given(data=BYTES, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_any_bytes_in_any_cut_give_the_same_keys(data: bytes, cuts: list[int]) -> None:
    """No input raises, and where it is cut does not matter."""
    places = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert decoded(data) == decoded(*pieces)
