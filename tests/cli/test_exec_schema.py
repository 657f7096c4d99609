"""``exec --output-schema`` and ``-o``: the last message for a program, in a shape that it can rely on."""

import json
from pathlib import Path

import pytest

from tests.cli.processes import call, events_of, finished, script

PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n*** End Patch"
SCHEMA = {
    "type": "object",
    "properties": {"fixed": {"type": "boolean"}},
    "required": ["fixed"],
    "additionalProperties": False,
}
FITS = '{"fixed": true}'


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\n")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return directory


def _answers(text: str) -> list[object]:
    return [[call("apply_patch", PATCH)], [{"text": text}]]


def test_the_last_message_is_printed_instead_of_the_diff(repo: Path) -> None:
    """And written into a file; the repository gets the work as always."""
    model = script(repo.parent, _answers(FITS))
    done = finished(
        repo, "--model", model, "--output-schema", "../schema.json", "-o", "../last", "--apply", "x"
    )
    assert (done.returncode, done.stdout) == (0, f"{FITS}\n"), done.stderr
    assert (repo.parent / "last").read_text() == FITS
    assert (repo / "m.py").read_text() == "x = 2\n"


def test_events_hold_it_as_a_json_string(repo: Path) -> None:
    model = script(repo.parent, _answers(FITS))
    done = finished(repo, "--json", "--model", model, "--output-schema", "../schema.json", "x")
    messages = [
        event["item"]["text"] for event in events_of(done)
        if event["type"] == "item.completed" and event["item"]["type"] == "agent_message"
    ]  # fmt: skip
    assert (done.returncode, messages) == (0, [FITS])


def test_a_message_that_does_not_match_is_a_failure(repo: Path) -> None:
    """Nothing is applied and nothing printed; the message is in the file for whoever looks."""
    model = script(repo.parent, _answers('{"fixed": 3}'))
    done = finished(
        repo, "--model", model, "--output-schema", "../schema.json", "-o", "../last", "--apply", "x"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not match --output-schema: $.fixed: 3 is not of type 'boolean'" in done.stderr
    assert (repo.parent / "last").read_text() == '{"fixed": 3}'
    assert (repo / "m.py").read_text() == "x = 1\n"


def test_a_model_that_cannot_is_named(repo: Path) -> None:
    """The bundled one writes no JSON; what it says about that is what the user reads."""
    done = finished(repo, "--output-schema", "../schema.json", "Fix the failing test")
    assert done.returncode in (1, 2)
    assert "cannot write JSON" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_schema_that_is_none_ends_with_2(repo: Path) -> None:
    (repo.parent / "schema.json").write_text('{"type": "thing"}')
    done = finished(repo, "--model", "scripted", "--output-schema", "../schema.json", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--output-schema: ../schema.json: the output schema: $.type" in done.stderr


def test_the_last_message_alone(repo: Path) -> None:
    """Without a schema the diff is printed as always; a file that cannot be written is a failure."""
    model = script(repo.parent, _answers("Changed x."))
    done = finished(repo, "--model", model, "-o", "../last", "x")
    assert (done.returncode, done.stdout[:10]) == (0, "diff --git")
    assert (repo.parent / "last").read_text() == "Changed x."
    done = finished(repo, "--model", model, "-o", "../none/last", "x")
    assert done.returncode == 1
    assert "--output-last-message: ../none/last: No such file or directory" in done.stderr
