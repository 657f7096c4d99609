from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.typed_lines import LineDecoder


def test_a_line_is_its_text_and_enter() -> None:
    """Lines may be cut anywhere; the last one counts without a newline, too."""
    decoder = LineDecoder()
    assert decoder.feed(b"fix t") == []
    assert [Key("text", "fix this"), Key("enter"), Key("enter")] == decoder.feed(b"his\r\n\nmo")
    assert decoder.flush() == []
    assert [Key("text", "mo"), Key("enter")] == decoder.end()
    assert decoder.end() == []
