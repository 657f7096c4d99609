"""122: however a patch arrives, the same becomes known of it and the same comes of it."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.patch.scenarios import SCENARIOS, Scenario, harvest, plant
from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.patch.apply import PatchStream, StreamEvent
from tightloop.agent.patch.operations import PatchEvent
from tightloop.agent.patch.parser import PatchParser
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.interface import ToolContext

BY_NAME = [pytest.param(scenario, id=scenario.name) for scenario in SCENARIOS]


def _parsed(pieces: list[str]) -> tuple[list[PatchEvent], str]:
    parser = PatchParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.finish(), str(parser.failure)


def _known(pieces: list[str], root: Path) -> list[StreamEvent]:
    stream = PatchStream(root)
    events = [event for piece in pieces for event in stream.feed(piece)]
    stream.close()
    return events


@pytest.mark.parametrize("scenario", BY_NAME)
def test_cut_at_every_character(scenario: Scenario, tmp_path: Path) -> None:
    """In two pieces at every place, and character by character: events, outcome, tree."""
    plant(tmp_path, scenario.before)
    patch = scenario.patch
    parsed, known = _parsed([patch]), _known([patch], tmp_path)
    for at in range(len(patch) + 1):
        pieces = [patch[:at], patch[at:]]
        assert parsed == _parsed(pieces)
        assert known == _known(pieces, tmp_path)
    assert known == _known(list(patch), tmp_path)
    assert scenario.before == harvest(tmp_path)
    stream = PatchStream(tmp_path)
    for character in patch:
        stream.feed(character)
    outcome = stream.commit()
    assert scenario.error == (outcome.failure and outcome.failure.error)
    assert scenario.expected == harvest(tmp_path)


@pytest.mark.parametrize("scenario", BY_NAME)
def test_as_json_cut_at_every_byte(scenario: Scenario, tmp_path: Path) -> None:
    """The argument of a function call: pure ASCII, so that a character is a byte, and cuts fall
    into escapes and between the halves of surrogate pairs too."""
    plant(tmp_path, scenario.before)
    arguments = json.dumps({"input": scenario.patch})
    heard: list[StreamEvent] = []
    context = ToolContext(tmp_path, Recorded(), on_patch=heard.append)

    def known(pieces: list[str]) -> list[StreamEvent]:
        heard.clear()
        call = ApplyPatch().prepare(context, is_custom=False)
        for piece in pieces:
            call.feed(piece)
        call.close()
        return list(heard)

    whole = known([arguments])
    for at in range(len(arguments) + 1):
        assert whole == known([arguments[:at], arguments[at:]])
    assert whole == known(list(arguments))
    assert scenario.before == harvest(tmp_path)


@given(st.sampled_from(SCENARIOS), st.data())
def test_cut_at_random_places(scenario: Scenario, data: st.DataObject) -> None:
    """Any number of pieces; the outcome on disk is that of the whole text."""
    with tempfile.TemporaryDirectory() as directory:
        _cut_at_random(Path(directory), scenario, data)


def _cut_at_random(root: Path, scenario: Scenario, data: st.DataObject) -> None:
    plant(root, scenario.before)
    patch = scenario.patch
    cuts = sorted(data.draw(st.lists(st.integers(0, len(patch)), max_size=8)))
    stream = PatchStream(root)
    for start, end in zip([0, *cuts], [*cuts, len(patch)], strict=True):
        stream.feed(patch[start:end])
    outcome = stream.commit()
    assert scenario.error == (outcome.failure and outcome.failure.error)
    assert scenario.expected == harvest(root)
