"""What is proven about a template, what is refused, and how much is remembered."""

import pytest

from tests.engine.families.chat_templates import FORGETTING, TOOLS_LAST
from tightloop.engine.families.chat_template import CHATML, ChatMessage, ChatTemplate
from tightloop.engine.families.prefix_probe import (
    MAX_KINDS,
    MAX_SHAPES,
    Kind,
    PrefixProbe,
    Setting,
    shape_of,
)
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.scripted_backend import IM_END, IM_START, ScriptedBackend

USER: Kind = ("user", 0, True, False)
TOOL: Kind = ("tool", 0, True, False)
SAYS: Kind = ("assistant", 0, True, False)
CALLS: Kind = ("assistant", 1, False, False)
ASKED = Setting(has_tools=True, can_think=True, last_role="user")
WORKED = Setting(has_tools=True, can_think=True, last_role="tool")


class CountingTemplate(ChatTemplate):
    """Counts renderings."""

    num_renderings = 0

    def render(self, *args: object, **options: object) -> str:
        """As the real one."""
        self.num_renderings += 1
        return super().render(*args, **options)  # type: ignore[arg-type]


def probe_of(source: str) -> tuple[PrefixProbe, CountingTemplate]:
    backend = ScriptedBackend(lambda _: 0)
    template = CountingTemplate(source, bos="<|endoftext|>", eos="<|im_end|>")
    return PrefixProbe(template, backend, Vocabulary(backend)), template


def test_the_shape_says_what_a_template_can_branch_on() -> None:
    call = {"function": {"name": "a"}}
    messages: list[ChatMessage] = [
        {"role": "assistant", "content": "", "tool_calls": [call] * 5, "reasoning_content": "r"},
        *({"role": "tool", "content": str(n)} for n in range(5)),
        {"role": "user", "content": ""},
    ]
    expected = (("assistant", 2, False, True), TOOL, TOOL, ("user", 0, False, False))
    assert expected == shape_of(messages)


@pytest.mark.parametrize(
    ("source", "setting", "shape", "expected"),
    [
        (CHATML, ASKED, (SAYS, USER), True),
        (CHATML, WORKED, (CALLS, TOOL, TOOL), True),
        (FORGETTING, ASKED, (SAYS, USER), True),
        (FORGETTING, WORKED, (SAYS, USER), False),
        (FORGETTING, WORKED, (CALLS, TOOL), True),
        (TOOLS_LAST, ASKED, (SAYS, USER), False),
        (TOOLS_LAST, ASKED, (CALLS, TOOL), True),
        (CHATML.replace("<|im_", "<im_"), ASKED, (SAYS, USER), False),
        ("{{ messages[0].tool_calls + 1 }}", ASKED, (SAYS, USER), False),
    ],
)
def test_each_continuation_is_judged_for_itself(
    source: str, setting: Setting, shape: tuple[Kind, ...], expected: bool
) -> None:
    """The last two: no control token at the boundary, and a template that fails."""
    assert expected == probe_of(source)[0].holds(setting, shape)


def test_a_judgement_is_remembered() -> None:
    probe, template = probe_of(CHATML)
    assert probe.holds(ASKED, (SAYS, USER))
    before = template.num_renderings
    assert probe.holds(ASKED, (SAYS, USER))
    assert before == template.num_renderings


def test_a_client_that_makes_up_shapes_is_not_served_for_ever() -> None:
    """Long ones cost more than they save, and many would fill the memory."""
    probe, template = probe_of(CHATML)
    before = template.num_renderings
    assert not probe.holds(ASKED, (SAYS, USER) * MAX_KINDS)
    assert before == template.num_renderings
    for n in range(MAX_SHAPES):
        probe.holds(ASKED, (("assistant", n, True, False),))
    assert not probe.holds(ASKED, (SAYS, USER, USER))
    assert probe.holds(ASKED, (SAYS, USER))


def test_a_boundary_has_a_control_token_on_one_side() -> None:
    probe, _ = probe_of(CHATML)
    assert probe.is_boundary(IM_END, 65)
    assert probe.is_boundary(10, IM_START)
    assert not probe.is_boundary(60, 62)
