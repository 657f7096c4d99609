"""What a foreign tool gave back, for the model and for the events."""

from tightloop.agent.tools.images import has_images
from tightloop.agent.tools.mcp.content import Answer, for_events, for_model
from tightloop.protocol.items import FunctionCallOutput, TextPart

TEXT = {"type": "text", "text": "hello"}
IMAGE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}


def test_texts_are_joined_and_failures_said() -> None:
    assert for_model(Answer([TEXT, TEXT]), sees=False) == ("hello\nhello", ())
    assert for_model(Answer([TEXT], is_error=True), sees=False)[0] == "The tool failed: hello"
    assert for_model(Answer([]), sees=False)[0] == "(the tool gave back nothing)"


def test_a_structured_result_is_told_when_no_text_is() -> None:
    assert for_model(Answer([], {"n": 1}), sees=False)[0] == '{"n":1}'
    assert for_model(Answer([TEXT], {"n": 1}), sees=False)[0] == "hello"


def test_images_are_for_models_that_see() -> None:
    text, parts = for_model(Answer([TEXT, IMAGE]), sees=True)
    assert text == "hello"
    assert parts[0] == TextPart("input_text", "hello")
    assert has_images([FunctionCallOutput("c", text, parts=parts)])
    blind = for_model(Answer([TEXT, IMAGE]), sees=False)
    assert blind == ("hello\n[image image/png, not shown]", ())
    odd = {**IMAGE, "mimeType": "image/svg+xml"}
    assert for_model(Answer([odd]), sees=True) == ("[image image/svg+xml, not shown]", ())


def test_resources_are_told_as_far_as_they_are_text() -> None:
    link = {"type": "resource_link", "name": "log", "uri": "file:///log"}
    whole = {"type": "resource", "resource": {"uri": "file:///a", "text": "body"}}
    blob = {"type": "resource", "resource": {"uri": "file:///b", "blob": "aGk="}}
    text, _ = for_model(Answer([link, whole, blob]), sees=True)
    assert (
        text
        == "[resource log file:///log]\n[resource file:///a]\nbody\n[resource file:///b, bytes]"
    )


def test_long_texts_are_cut_as_outputs_of_commands_are() -> None:
    text, _ = for_model(Answer([{"type": "text", "text": "line\n" * 10_000}]), sees=False)
    assert "bytes in" in text
    assert len(text) < 17_000


def test_secrets_and_bytes_stay_out_of_the_events() -> None:
    blocks = for_events([TEXT, IMAGE], lambda text: text.replace("hello", "***"))
    assert blocks[0]["text"] == "***"
    assert blocks[1]["data"] == "<4 characters of base64>"
