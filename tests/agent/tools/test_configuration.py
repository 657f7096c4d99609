"""The user's tables about tools: defaults without a file, mistakes named with file and key."""

from pathlib import Path

import pytest

from tightloop.agent.tools.configuration import load_tools_configuration
from tightloop.sandbox.policies import PolicyError


def test_without_a_word_nothing_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIGHTLOOP_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = load_tools_configuration()
    assert (found.tools.view_image, found.tools.update_plan, found.servers) == (None, False, {})
    assert found.skill_directories == [tmp_path / "tightloop/skills"]
    assert found.users_rules == tmp_path / "tightloop/AGENTS.md"


def test_everything_set(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        "[tools]\nview_image = true\nupdate_plan = true\nmcp_wait_s = 1\n"
        '[skills]\ndirectories = ["more", "/abs"]\nrepository = false\n'
        '[mcp.git]\ncommand = "git-mcp"\ntrusted = true\n'
    )
    found = load_tools_configuration(path)
    assert (found.tools.view_image, found.tools.mcp_wait_s) == (True, 1)
    assert found.skill_directories == [tmp_path / "skills", tmp_path / "more", Path("/abs")]
    assert found.servers["git"].trusted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tools]\nplan = true", "[tools] unknown key 'plan'; known are view_image, update_plan"),
        ("[skills]\ndirectories = 1", "[skills] directories: expected"),
        ("[mcp.a]\nurl = 1", "[mcp.a] url: expected"),
        ("tools = 1", "[tools] must be a table: expected"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(PolicyError) as error:
        load_tools_configuration(path)
    assert str(error.value).startswith(f"{path}: {said}")
