"""Templates as model files carry them, and conversations as they expect them."""

import pytest
from msgspec import Raw

from tightloop.engine.families.chat_template import ChatTemplate, chat_messages, chat_tools
from tightloop.engine.interface import EngineError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Message,
    OpaqueItem,
    Reasoning,
    TextPart,
    user_message,
)
from tightloop.protocol.requests import CustomTool, FunctionTool

ROLES = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
SYSTEM_FIRST = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system must come first') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + ROLES
)
SHELL = FunctionTool("run", "runs", {"type": "object", "properties": {"cmd": {"type": "string"}}})


def said(role: str, text: str) -> Message:
    return Message(role, (TextPart("input_text", text),))


def test_leading_system_texts_become_one() -> None:
    messages = chat_messages("be brief", [said("developer", "be kind"), user_message("hi")])
    assert messages[0] == {"role": "system", "content": "be brief\n\nbe kind"}
    assert messages[1] == {"role": "user", "content": "hi"}


def test_calls_join_the_message_before_them_and_outputs_name_their_tool() -> None:
    messages = chat_messages(
        None,
        [
            Reasoning(("because",)),
            said("assistant", "I look"),
            FunctionCall("c1", "run", '{"cmd": "ls"}'),
            FunctionCallOutput("c1", "a.py"),
            CustomToolCall("c2", "apply_patch", "*** Begin"),
            CustomToolCallOutput("c2", "done"),
            FunctionCall("c3", "run", "not json"),
        ],
    )
    assert [m["role"] for m in messages] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert messages[0]["reasoning_content"] == "because"
    assert messages[0]["tool_calls"][0]["function"] == {"name": "run", "arguments": {"cmd": "ls"}}
    assert messages[1]["name"] == "run"
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == {"input": "*** Begin"}
    assert messages[4]["tool_calls"][0]["function"]["arguments"] == "not json"


def test_a_custom_tool_is_listed_with_a_text_parameter_and_its_grammar() -> None:
    listed = chat_tools([SHELL, CustomTool("apply_patch", "patches", 'start: "x"')])
    assert listed[0]["function"]["parameters"]["properties"] == {"cmd": {"type": "string"}}
    assert listed[1]["function"]["parameters"]["required"] == ["input"]
    assert 'start: "x"' in listed[1]["function"]["description"]


def test_without_a_template_chatml_is_used_and_tools_are_explained() -> None:
    text = ChatTemplate(None).render(
        chat_messages("sys", [user_message("hi")]), chat_tools([SHELL])
    )
    assert text.startswith("<|im_start|>system\nsys\n\n# Tools")
    assert '"name": "run"' in text
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_chatml_repeats_calls_the_way_they_are_parsed() -> None:
    messages = chat_messages(None, [FunctionCall("c", "run", '{"cmd":"ls"}')])
    text = ChatTemplate(None).render(messages, [])
    assert '<tool_call>\n{"name": "run", "arguments": {"cmd": "ls"}}\n</tool_call>' in text


def test_later_system_messages_become_user_messages_when_refused() -> None:
    """In their places: the prompt up to them stays as it was."""
    messages = chat_messages("one", [user_message("hi"), said("system", "two")])
    assert ChatTemplate(ROLES).render(messages, []) == "[system]one[user]hi[system]two"
    assert ChatTemplate(SYSTEM_FIRST).render(messages, []) == "[system]one[user]hi[user]two"
    assert ChatTemplate(NO_SYSTEM).render(messages, []) == "[user]one\n\ntwo\n\nhi"


def test_system_messages_that_a_template_passes_over_are_told_by_the_user() -> None:
    only_first = (
        "{{ messages[0].content }}{% for m in messages[1:] %}{% if m.role != 'system' %}"
        "[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
    )
    messages = chat_messages("one", [user_message("hi"), said("developer", "two")])
    assert ChatTemplate(only_first).render(messages, []) == "one[user]hi[user]two"


def test_a_template_that_rewrites_what_it_is_given_is_believed() -> None:
    loud = "{% for m in messages %}[{{ m.role }}]{{ m.content | upper }}{% endfor %}"
    messages = chat_messages("one", [user_message("hi"), said("developer", "two")])
    assert ChatTemplate(loud).render(messages, []) == "[system]ONE[user]HI[system]TWO"


def test_where_roles_must_alternate_all_system_text_goes_in_front() -> None:
    strict = (
        "{% for m in messages %}{% if m.role == 'system' and not loop.first or not loop.first and "
        "m.role == messages[loop.index0 - 1].role %}{{ raise_exception('order') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    messages = chat_messages("one", [user_message("hi"), said("developer", "two")])
    assert ChatTemplate(strict).render(messages, []) == "[system]one\n\ntwo[user]hi"


def test_items_that_mean_nothing_to_a_chat_are_passed_over() -> None:
    tools = OpaqueItem("additional_tools", Raw(b'{"type":"additional_tools","tools":[]}'))
    assert chat_messages(None, [tools, user_message("hi")]) == chat_messages(
        None, [user_message("hi")]
    )


def test_reasoning_can_be_left_out() -> None:
    source = "{% if enable_thinking is defined and not enable_thinking %}quick{% endif %}"
    assert ChatTemplate(source).render([], [], can_think=False) == "quick"
    assert ChatTemplate(source).render([], []) == ""


def test_the_names_templates_rely_on_are_there() -> None:
    source = (
        "{{ bos_token }}{{ {'a': '<é>'} | tojson }}{{ [1] | tojson(indent=2) }}"
        "{% for n in [1, 2, 3] %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}"
        "{% generation %}x{% endgeneration %}{{ strftime_now('%Y')[:1] }}{{ tools is none }}"
    )
    rendered = ChatTemplate(source + "{# tools #}", bos="<s>").render([], [])
    assert rendered == '<s>{"a": "<é>"}[\n  1\n]1x2True'


def test_a_template_cannot_reach_python() -> None:
    template = ChatTemplate("{{ messages.__class__.__mro__ }}")
    with pytest.raises(EngineError, match="refuses this conversation"):
        template.render([{"role": "user", "content": "x"}], [])


def test_a_broken_template_and_a_refusal_are_told() -> None:
    with pytest.raises(EngineError, match="chat template cannot be read"):
        ChatTemplate("{% if %}")
    with pytest.raises(EngineError, match="never mind"):
        ChatTemplate("{{ raise_exception('never mind') }}").render([], [])
