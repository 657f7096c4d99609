from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.agent.terminal.editor import Completion, Editor
from tightloop.agent.terminal.history import History
from tightloop.agent.terminal.keys import Key, KeyDecoder
from tightloop.agent.terminal.painter import Cursor
from tightloop.agent.terminal.styled import Role


def pressed(*keys: bytes | str, editor: Editor | None = None) -> Editor:
    """An editor after these keys: bytes as a terminal sends them, text as it is typed."""
    editor = editor or Editor()
    for key in keys:
        for found in decoded(key if isinstance(key, bytes) else key.encode()):
            editor.press(found)
    return editor


def decoded(data: bytes) -> list[Key]:
    decoder = KeyDecoder()
    return [*decoder.feed(data), *decoder.flush()]


def shown(editor: Editor, width: int = 80, rows: int = 10) -> list[str]:
    return [row.plain for row in editor.layout(width, rows).lines]


LEFT, RIGHT, UP, DOWN = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B"
EDITS = {
    "typing": ("hello", "hello|"),
    "left": ("hello" + "\x1b[D" * 4, "h|ello"),
    "in the middle": ("hllo\x1b[H\x1b[Ce", "he|llo"),
    "backspace": ("hello\x7f", "hell|"),
    "delete": ("hello\x1b[H\x1b[3~", "|ello"),
    "Ctrl-D in a text": ("hello\x01\x04", "|ello"),
    "Home and End": ("ab\x1b[Hx\x1b[Fy", "xaby|"),
    "Ctrl-A and Ctrl-E": ("ab\x01x\x05y", "xaby|"),
    "word left": ("one two\x1b[1;5D", "one |two"),
    "Alt-B and Alt-F": ("one two\x1bb\x1bb\x1bf", "one| two"),
    "Ctrl-W": ("cd src/app.py\x17", "cd |"),
    "Alt-Backspace": ("cd src/app.py\x1b\x7f", "cd src/app.|"),
    "Alt-D": ("one two\x01\x1bd", "| two"),
    "Ctrl-U": ("one\x0atwo\x15", "one\n|"),
    "Ctrl-K": ("one two\x01\x1bf\x0b", "one|"),
    "Ctrl-K at the end of a line": ("a\x0ab\x1b[A\x05\x0b", "a|b"),
    "Ctrl-Y": ("one two\x17\x01\x19", "two|one "),
    "undo": ("one\x15\x1f", "one|"),
    "Ctrl-J": ("a\x0ab", "a\nb|"),
    "Alt-Enter": ("a\x1b\rb", "a\nb|"),
    "Shift-Enter": ("a\x1b[13;2ub", "a\nb|"),
    "up and down in a text": ("abc\x0ade\x1b[Ax", "abxc\nde|".replace("|", "").replace("x", "x|")),
    "a paste": ("\x1b[200~a\rb\x1b[201~", "a\nb|"),
    "tab in a paste": ("\x1b[200~a\tb\x1b[201~", "a\tb|"),
}


@pytest.mark.parametrize(("keys", "expected"), EDITS.values(), ids=EDITS.keys())
def test_editing(keys: str, expected: str) -> None:
    """Text and cursor after these bytes."""
    editor = pressed(keys)
    assert expected.replace("|", "") == editor.text
    editor.press(Key("text", "|"))
    assert expected == editor.text


@pytest.mark.parametrize(
    "name", ["enter", "tab", "esc", "ctrl-c", "ctrl-d", "ctrl-z", "f1", "pageup"]
)
def test_keys_of_others(name: str) -> None:
    """Without a menu these are the caller's, and change nothing."""
    editor = Editor()
    assert not editor.press(Key(name))
    editor.set_text("x")
    assert editor.press(Key(name)) is (name == "ctrl-d")
    assert editor.text == "x"


def test_one_row() -> None:
    """The prompt, the text, the cursor behind it; a hint where there is no text."""
    editor = Editor(hint="what is to be done?")
    assert shown(editor) == ["> what is to be done?"]
    assert Cursor(0, 2) == editor.layout(80, 5).cursor
    pressed("hello", editor=editor)
    assert shown(editor) == ["> hello"]
    assert Cursor(0, 7) == editor.layout(80, 5).cursor
    assert [span.role for span in editor.layout(80, 5).lines[0].spans] == [Role.ACCENT, Role.PLAIN]


def test_rows_are_cut_at_the_width() -> None:
    """Wide characters are not cut in two; behind a full row the cursor is in the next one."""
    editor = pressed("abcdefgh日本")
    assert shown(editor, 10) == ["> abcdefgh", "  日本"]
    assert Cursor(1, 6) == editor.layout(10, 5).cursor
    assert shown(editor, 9) == ["> abcdefg", "  h日本"]
    editor = pressed("abcdefgh")
    assert shown(editor, 10) == ["> abcdefgh", "  "]
    assert Cursor(1, 2) == editor.layout(10, 5).cursor


def test_more_rows_than_there_is_room_for() -> None:
    """The cursor's row is always among those shown, and moving up scrolls."""
    editor = pressed("a\nb\nc\nd\ne")
    assert shown(editor, 80, 2) == ["  d", "  e"]
    pressed(UP, UP, UP, editor=editor)
    assert shown(editor, 80, 2) == ["  b", "  c"]
    assert editor.layout(80, 2).cursor.row == 0


def test_up_and_down_in_rows_that_were_cut() -> None:
    """They go by what is seen, and keep the column over shorter rows."""
    editor = pressed("abcdefghij\nx\nlonge")
    editor.layout(8, 10)
    pressed(UP, editor=editor)
    assert Cursor(2, 3) == editor.layout(8, 10).cursor
    pressed(UP, editor=editor)
    assert Cursor(1, 6) == editor.layout(8, 10).cursor
    pressed(UP, editor=editor)
    assert Cursor(0, 7) == editor.layout(8, 10).cursor


def test_a_long_paste_is_shown_by_its_size() -> None:
    """What is sent is the whole of it."""
    text = "\n".join(f"row {number}" for number in range(128))
    editor = pressed("look: ", b"\x1b[200~" + text.encode() + b"\x1b[201~", " ok?")
    assert shown(editor) == ["> look: [pasted 128 lines] ok?"]
    assert f"look: {text} ok?" == editor.take()
    editor.press(Key("paste", "y" * 1000))
    assert shown(editor) == ["> [pasted 1000 characters]"]


def test_what_is_typed_cannot_reorder_the_screen() -> None:
    """Direction overrides and joiners are not shown, though they are sent as they were typed."""
    editor = pressed("a\u202eb\u200dc")
    assert shown(editor) == ["> a\ufffdbc"]
    assert editor.text == "a\u202eb\u200dc"


def test_history() -> None:
    """Up goes back from the first row, Down returns to what was being typed."""
    history = History()
    editor = Editor(history)
    for text in ("one", "two\nlines"):
        editor.set_text(text)
        assert text == editor.take()
    pressed("draft", UP, editor=editor)
    assert editor.text == "two\nlines"
    pressed(UP, UP, editor=editor)
    assert editor.text == "one"
    pressed(UP, editor=editor)
    assert editor.text == "one"
    pressed(DOWN, editor=editor)
    assert editor.text == "two\nlines"
    pressed(DOWN, editor=editor)
    assert editor.text == "draft"
    pressed(DOWN, editor=editor)
    assert editor.text == "draft"


COMMANDS = ("diff", "latency", "model")


def complete(text: str, cursor: int) -> Sequence[Completion]:
    begun = text[:cursor]
    if not begun.startswith("/") or " " in begun:
        return ()
    notes = {"model": "another model"}
    return [
        Completion(f"/{name}", 0, notes.get(name, "show it"), ends=name != "model")
        for name in COMMANDS
        if f"/{name}".startswith(begun)
    ]


def test_the_menu_shows_what_fits() -> None:
    """Below the text, aligned, the first one selected; it narrows while one types."""
    editor = pressed("/", editor=Editor(complete=complete))
    assert editor.has_menu
    assert (shown(editor)) == [
        "> /",
        "  /diff     show it",
        "  /latency  show it",
        "  /model    another model",
    ]
    assert Role.SELECTED is editor.layout(80, 9).lines[1].spans[1].role
    pressed("m", editor=editor)
    assert shown(editor) == ["> /m", "  /model  another model"]
    pressed("x", editor=editor)
    assert not editor.has_menu


def test_tab_completes_and_enter_sends() -> None:
    """Enter sends what needs no more words, and completes what does."""
    editor = pressed("/", DOWN, "\t", editor=Editor(complete=complete))
    assert editor.text == "/latency"
    assert not editor.has_menu
    editor.set_text("")
    pressed("/d", editor=editor)
    assert not editor.press(Key("enter"))
    assert editor.text == "/diff"
    editor.set_text("")
    pressed("/m", editor=editor)
    assert editor.press(Key("enter"))
    assert editor.text == "/model"
    assert not editor.press(Key("enter"))


def test_esc_closes_the_menu_first() -> None:
    """Only the next Esc is the caller's."""
    editor = pressed("/", editor=Editor(complete=complete))
    assert editor.press(Key("esc"))
    assert not editor.has_menu
    assert not editor.press(Key("esc"))
    assert editor.text == "/"


def test_the_selection_goes_round() -> None:
    """From the first one up to the last."""
    editor = pressed("/", UP, "\t", editor=Editor(complete=complete))
    assert editor.text == "/model"


def test_a_long_menu_scrolls_in_little_room() -> None:
    """The text keeps a row, the selected entry is always seen."""
    many = [Completion(f"@file{n}", 0) for n in range(20)]
    editor = pressed("@", *[DOWN] * 9, editor=Editor(complete=lambda text, cursor: many))
    rows = shown(editor, 40, 5)
    assert len(rows) == 5
    assert rows[0] == "> @"
    assert "  @file9" in rows


ANY_KEY = st.one_of(
    st.builds(Key, st.just("text"), st.text(alphabet="ab 日\u0301/", min_size=1, max_size=4)),
    st.builds(Key, st.just("paste"), st.text(alphabet="a\n\t", max_size=20)),
    st.sampled_from(
        [
            "left",
            "right",
            "up",
            "down",
            "home",
            "end",
            "backspace",
            "delete",
            "ctrl-w",
            "ctrl-u",
            "ctrl-k",
            "ctrl-y",
            "ctrl-_",
            "ctrl-j",
            "alt-b",
            "alt-f",
            "alt-d",
            "ctrl-p",
            "ctrl-n",
            "tab",
            "enter",
            "esc",
            "ctrl-home",
            "ctrl-end",
        ]
    ).map(Key),
)


@settings(max_examples=150, deadline=None)
@given(keys=st.lists(ANY_KEY, max_size=30), width=st.integers(4, 40), rows=st.integers(1, 8))
def test_any_keys(keys: list[Key], width: int, rows: int) -> None:
    """The layout always fits, and the cursor is in it."""
    history = History()
    history.add("earlier\nentry")
    editor = Editor(history, complete)
    for key in keys:
        editor.press(key)
        laid = editor.layout(width, rows)
        assert 1 <= len(laid.lines) <= rows
        assert all(row.cells <= width for row in laid.lines)
        assert 0 <= laid.cursor.row < len(laid.lines)
        assert 0 <= laid.cursor.column < width
