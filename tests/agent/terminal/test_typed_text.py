from tightloop.agent.terminal.typed_text import FIRST_PASTE, TypedText


def typed(text: str, cursor: int | None = None) -> TypedText:
    found = TypedText()
    found.insert(text)
    if cursor is not None:
        found.move_to(cursor)
    return found


def test_a_long_paste_is_one_character() -> None:
    """It is moved over and deleted as a whole, and sent as it was."""
    text = typed("see ")
    long = "\n".join(f"line {n}" for n in range(50))
    text.paste(long)
    text.insert(" there")
    assert f"see {long} there" == text.text
    assert len("see  there") + 1 == len(text.raw)
    text.move_to(5)
    text.delete_to(text.left())
    assert text.text == "see  there"
    text.undo()
    assert f"see {long} there" == text.text


def test_a_short_paste_is_text() -> None:
    """A few lines can be edited like typed ones."""
    text = typed("")
    text.paste("a\nb")
    assert text.raw == "a\nb"


def test_cutting_a_long_paste_and_putting_it_back() -> None:
    """Also after everything was cleared."""
    text = typed("")
    long = "x" * 5000
    text.paste(long)
    text.delete_to(0, cuts=True)
    text.clear()
    text.put_back()
    assert long == text.text


def test_a_very_long_text_is_set_as_a_paste() -> None:
    """An entry of the history need not be laid out."""
    text = typed("")
    text.replace("word " * 10_000)
    assert len(text.raw) == 1
    assert text.text == "word " * 10_000


def test_typed_letters_are_undone_together() -> None:
    """A space, a deletion or a movement begins anew."""
    text = TypedText()
    for char in "ab":
        text.insert(char)
    text.insert(" ")
    for char in "cd":
        text.insert(char)
    text.undo()
    assert text.raw == "ab "
    text.undo()
    assert text.raw == "ab"
    text.undo()
    text.undo()
    assert text.raw == ""


def test_places() -> None:
    """Words end at marks, or at white space only; lines at line breaks."""
    text = typed("fix src/app.py\nnow", cursor=14)
    assert text.word_left() == 12
    assert text.word_left(is_spaced=True) == 4
    assert (text.line_start(), text.line_end()) == (0, 14)
    text.move_to(4)
    assert text.word_right() == 7
    text.move_to(99)
    assert text.cursor == 18
    assert text.word_right() == 18


def test_marks_belong_to_their_character() -> None:
    """Left and right step over both; a line break is a step of its own."""
    text = typed("e\u0301\nx", cursor=2)
    assert text.left() == 0
    text.move_to(0)
    assert text.right() == 2
    text.move_to(2)
    assert text.right() == 3


def test_nothing_unsafe_gets_in() -> None:
    """Control characters and those that stand for pastes are replaced."""
    assert typed(f"a\x1b[31m{chr(FIRST_PASTE)}b\tc\r\n").text == "a\ufffd[31m\ufffdb\tc\n"
