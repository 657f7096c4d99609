"""Checks of a whole conversation: configured in the repository, told to the model, kept in the log."""

from pathlib import Path

import orjson
import pytest

from tests.harness.audience import Listening
from tests.sandbox.conftest import commit, git
from tightloop.agent.turn import Status
from tightloop.harness.settings import Settings
from tightloop.harness.thread import open_thread
from tightloop.protocol.items import Message
from tightloop.trace.log import read_log

CONFIGURATION = """\
[checks.words]
command = "! grep -Hn BAD m.txt"
after = "turn"
"""


def patch(old: str, new: str) -> dict[str, dict[str, str]]:
    text = f"*** Begin Patch\n*** Update File: m.txt\n@@\n-{old}\n+{new}\n*** End Patch"
    return {"call": {"name": "apply_patch", "arguments": text}}


@pytest.mark.timeout(180)
async def test_the_model_is_told_before_its_turn_is_done(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "m.txt").write_text("fine\n")
    (repo / ".tightloop.toml").write_text(CONFIGURATION)
    git(repo, "init", "-q", "-b", "main")
    commit(repo)
    script = tmp_path / "script.json"
    answers = [[patch("fine", "BAD")], [{"text": "Done."}]]
    script.write_bytes(orjson.dumps({"answers": answers}))
    heard = Listening()
    settings = Settings(
        repo=repo,
        state_dir=tmp_path / "state",
        model=f"scripted:{script}",
        sandbox="bubblewrap",
        speculates=False,
    )
    async with open_thread(settings, heard) as thread:
        result = await thread.run_turn("change it")
        assert (result.status, thread.checks.state) == (Status.COMPLETED, "words 1")
        told = [item.text for item in thread.agent.items if isinstance(item, Message)]
        assert (
            "[check by tightloop, not by the user] words: 1 new since your change: m.txt:1: BAD"
            in told
        )
        assert result.checks is not None
        assert result.checks.num_new == 1
        log = thread.log.path
        await thread.desk.undo()
        await thread.checks.quiet()
        assert thread.checks.state == "words ok"
    runs = [line["run"] for line in read_log(log) if line["kind"] == "check"]
    assert [(run["name"], run["num_new"], run["num_resolved"]) for run in runs] == [
        ("words", 0, 0),
        ("words", 1, 0),
        ("words", 0, 0),
    ]
