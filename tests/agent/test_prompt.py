"""The opening message: project rules in order, bounded, and never from outside the repository."""

from pathlib import Path

from tightloop.agent.prompt import MAX_RULES_BYTES, Rules, Surroundings, opening, project_rules


def test_rules_from_the_repository_root_down(tmp_path: Path) -> None:
    """The nearest file comes last, so that it wins."""
    (tmp_path / "AGENTS.md").write_text("above the repository")
    sub = tmp_path / "repo/a/b"
    sub.mkdir(parents=True)
    (tmp_path / "repo/.git").mkdir()
    (tmp_path / "repo/AGENTS.md").write_text("outer")
    (sub / "AGENTS.md").write_text("inner")
    assert project_rules(sub) == [Rules("the project", "outer"), Rules("a/b", "inner")]


def test_without_git_only_the_directory_itself(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("above")
    (tmp_path / "plain").mkdir()
    assert project_rules(tmp_path / "plain") == []


def test_links_out_of_the_repository_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("token")
    repo = tmp_path / "repo"
    (repo / ".git").mkdir(parents=True)
    (repo / "AGENTS.md").symlink_to("../secret")
    assert project_rules(repo) == []
    (repo / "docs.md").write_text("fine")
    (repo / "AGENTS.md").unlink()
    (repo / "AGENTS.md").symlink_to("docs.md")
    assert project_rules(repo) == [Rules("the project", "fine")]


def test_rules_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("x" * (MAX_RULES_BYTES + 5))
    assert len(project_rules(tmp_path)[0].text) == MAX_RULES_BYTES


def test_opening_names_the_place_and_the_rules() -> None:
    message = opening(Surroundings(Path("/ws"), "bubblewrap"), [Rules("a", "be brief")])
    assert message.role == "developer"
    for part in ("Workspace: /ws", "Isolation: bubblewrap", "Network: not", "of a:\nbe brief"):
        assert part in message.text
    assert "AGENTS" not in opening(Surroundings(Path("/ws"), "none"), []).text


def test_opening_names_the_hosts_that_can_be_reached() -> None:
    """Else the model would learn them by being refused, one command each."""
    hosts = ("pypi.org", "*.pythonhosted.org")
    text = opening(Surroundings(Path("/ws"), "bubblewrap", True, hosts), []).text
    assert "Network: only pypi.org, *.pythonhosted.org, through the proxy" in text


def test_an_override_stands_for_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("for all")
    (tmp_path / "AGENTS.override.md").write_text("mine")
    assert project_rules(tmp_path) == [Rules("the project", "mine", "AGENTS.override.md")]
    (tmp_path / "AGENTS.override.md").write_text(" \n")
    assert project_rules(tmp_path) == [Rules("the project", "for all")]


def test_what_differs_between_conversations_comes_last() -> None:
    """So that a server finds all before it in its prefix cache."""
    rules = [Rules("a", "be brief")]
    one, two = (
        opening(Surroundings(Path(path), "none"), rules, skills="S", users_rules="U").text
        for path in ("/ws/1", "/ws/2")
    )
    assert one.replace("/ws/1", "/ws/2") == two
    assert one.endswith("Workspace: /ws/1")


def test_the_project_is_not_the_user() -> None:
    text = opening(
        Surroundings(Path("/ws"), "none"), [Rules("a", "be brief")], users_rules="Speak plainly."
    ).text
    assert "The user's own rules for every project:\nSpeak plainly." in text
    assert (
        text.index("Speak plainly.") < text.index("not the user's words") < text.index("be brief")
    )
