"""A project's own ``.venv`` in its workspaces."""

import sys
from pathlib import Path

from tests.sandbox.conftest import OpenSandbox, commit, plain_environment
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.virtual_environment import editable_directories, own_layer
from tightloop.sandbox.workspace import open_workspace


def project(repository: Path) -> Path:
    """A project with sources in ``src``, installed in its ignored ``.venv`` to be edited."""
    (repository / ".gitignore").write_text(".venv/\n")
    (repository / "src" / "mine").mkdir(parents=True)
    (repository / "src" / "mine" / "__init__.py").write_text("WHERE = 'tree'\n")
    commit(repository)
    plain_environment(repository)
    [packages] = (repository / ".venv").glob("lib/python*/site-packages")
    (packages / "__editable__.mine.pth").write_text(f"{repository / 'src'}\n")
    return packages


async def test_it_is_seen_and_cannot_be_written(
    repository: Path, tmp_path: Path, opened: OpenSandbox
) -> None:
    """Its scripts work by their absolute paths, and the project's sources are the workspace's."""
    project(repository)
    workspace = await open_workspace(repository, state_dir=tmp_path / "state")
    (workspace.path / "src" / "mine" / "__init__.py").write_text("WHERE = 'workspace'\n")
    policy = workspace.completed(Policy(workspace.path))
    sandbox = await opened(
        workspace=workspace.path, read_only=policy.read_only, environment=policy.environment
    )
    show = "import mine, pytest, sys; print(mine.WHERE, sys.prefix)"
    script = f"W=$PWD; cd /; \"$W/.venv/bin/python\" -c '{show}'"
    result = await sandbox.run(Command(script=script))
    assert result.output == f"workspace {workspace.path}/.venv\n"
    write = await sandbox.run(Command(script="echo x > .venv/new; echo x > .venv/bin/pytest"))
    assert write.output.count("Read-only file system") == 2
    assert (await sandbox.run(Command(script="git status --short"))).output == (
        " M src/mine/__init__.py\n"
    )
    await workspace.discard()


def test_only_a_real_one_that_is_no_part_of_the_tree(tmp_path: Path) -> None:
    """A link could lead anywhere, and any directory can be called so."""
    repository, base, links = tmp_path / "repo", tmp_path / "base", tmp_path / "links"
    (repository / ".venv").mkdir(parents=True)
    base.mkdir()
    assert own_layer(repository, base, links) is None
    (repository / ".venv" / "pyvenv.cfg").write_text("")
    layer = own_layer(repository, base, links)
    assert layer is not None
    assert (layer / ".venv").readlink() == repository / ".venv"
    assert own_layer(repository, base, links) == layer
    (base / ".venv").mkdir()
    assert own_layer(repository, base, links) is None
    (base / ".venv").rmdir()
    (repository / ".venv").rename(tmp_path / "elsewhere")
    (repository / ".venv").symlink_to(tmp_path / "elsewhere")
    assert own_layer(repository, base, links) is None


def test_editable_directories_are_found(tmp_path: Path) -> None:
    """Plain paths, setuptools' finders, and nothing that lies elsewhere or is code."""
    packages = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    root = tmp_path / "repo"
    (packages / "a.pth").write_text(f"{root}/src\n/elsewhere\nimport os\nrelative\n{root}-other\n")
    (packages / "__editable___b_finder.py").write_text(
        f"import x\nMAPPING: dict[str, str] = {{'b': '{root}/lib/b', 'c': '{root}/c'}}\n"
    )
    (packages / "__editable___broken_finder.py").write_text("MAPPING = {")
    assert editable_directories(tmp_path / ".venv", root) == ["lib", ".", "src"]
    assert editable_directories(tmp_path / "none", root) == []
    assert sys.version_info >= (3, 11)
