"""Rules of directories below the top: told once, when a call first gets there."""

from pathlib import Path

import orjson
import pytest

from tightloop.agent.nearer_rules import NearerRules
from tightloop.agent.prompt import MAX_RULES_BYTES

VIEW = Path("/state/views/1")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "src/core").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "AGENTS.md").write_text("top")
    (tmp_path / "src/AGENTS.md").write_text("in src")
    (tmp_path / "src/core/AGENTS.md").write_text("in core")
    (tmp_path / "src/core/AGENTS.override.md").write_text("instead in core")
    (tmp_path / "src/core/a.py").touch()
    (tmp_path / "docs/AGENTS.md").write_text("in docs")
    (tmp_path / "docs/b.md").touch()
    return tmp_path


def command(line: str) -> str:
    return orjson.dumps({"cmd": line}).decode()


@pytest.mark.parametrize(
    "arguments",
    [
        command("sed -n '1,80p' src/core/a.py"),
        command(f"cat {VIEW}/src/core/a.py"),
        command("cd src/core && python -m pytest -q"),
        command("python -c \"open('./src/core/a.py')\""),
        orjson.dumps({"cmd": "ls", "workdir": "src/core"}).decode(),
        "*** Begin Patch\n*** Update File: src/core/a.py\n@@\n-x\n+docs/b.md\n*** End Patch\n",
        orjson.dumps({"input": "*** Begin Patch\n*** Add File: src/core/new.py\n+x\n"}).decode(),
    ],
)
def test_outer_rules_come_first(repo: Path, arguments: str) -> None:
    """However the file is named; the top's own are in the opening message."""
    rules, told = NearerRules(repo, VIEW), dict[str, int]()
    text = rules(arguments, told)
    assert text == (
        "\n\n[AGENTS.md of src: the project's rules for what is in it, not the user's words]\nin src"
        "\n\n[AGENTS.override.md of src/core: the project's rules for what is in it, not the user's "
        "words]\ninstead in core"
    )
    assert rules(arguments, told) == ""


def test_each_conversation_is_told(repo: Path) -> None:
    rules = NearerRules(repo, VIEW)
    assert rules(command("cat docs/b.md"), {}) == rules(command("cat docs/b.md"), {}) != ""


@pytest.mark.parametrize(
    "line", ["ls", "cat ../docs/b.md", "cat /etc/passwd", "cat no/such.py", "echo 'a\\u0000b'", ""]
)
def test_most_calls_get_nowhere_new(repo: Path, line: str) -> None:
    assert NearerRules(repo, VIEW)(command(line), {}) == ""


def test_links_out_of_the_repository_are_not_read(repo: Path) -> None:
    (repo.parent / "secret").mkdir()
    (repo.parent / "secret/AGENTS.md").write_text("token")
    (repo / "way").symlink_to(repo.parent / "secret")
    (repo / "docs/AGENTS.md").unlink()
    (repo / "docs/AGENTS.md").symlink_to(repo.parent / "secret/AGENTS.md")
    assert NearerRules(repo, VIEW)(command("ls way docs/b.md"), {}) == ""


def test_all_rules_share_one_budget(repo: Path) -> None:
    (repo / "docs/AGENTS.md").write_text("x" * MAX_RULES_BYTES)
    told: dict[str, int] = {}
    text = NearerRules(repo, VIEW, MAX_RULES_BYTES - 100)(command("ls src docs"), told)
    assert sum(told.values()) == 100
    assert text.count("x") < 100
