"""Which changes a person is asked to look at."""

import pytest

from tightloop.sandbox.entries import Change, Entry
from tightloop.sandbox.risks import risk_of


@pytest.mark.parametrize(
    ("path", "entry", "is_severe"),
    [
        ("a.py", Entry(b"x"), None),
        ("docs/github.md", Entry(b"x"), None),
        ("src/.github", Entry(b"x"), None),
        (".vscode/tasks.json", Entry(b"{}"), True),
        ("sub/.ENVRC", Entry(b"x"), True),
        ("sub/.envrc", None, True),
        (".github/workflows/ci.yml", Entry(b"x"), False),
        (".pre-commit-config.yaml", Entry(b"x"), False),
        ("link", Entry(b"/etc/passwd", is_link=True), True),
        ("a/link", Entry(b"../../x", is_link=True), True),
        ("a/link", Entry(b"..", is_link=True), None),
        ("link", Entry(b"..", is_link=True), True),
        ("a/link", Entry(b"../b/c", is_link=True), None),
        ("a.py", Entry(b"/etc/passwd"), None),
    ],
)
def test_what_is_a_risk(path: str, entry: Entry | None, is_severe: bool | None) -> None:
    risk = risk_of(Change(path, None if entry else Entry(b"old"), entry))
    assert (risk.is_severe if risk else None) is is_severe
    assert risk is None or (risk.path == path and risk.reason)


@pytest.mark.parametrize(
    ("before", "after", "is_risk"),
    [
        (None, b"[project]\nname = 'x'\n", False),
        (None, b"[project.entry-points.pytest11]\nx = 'x'\n", True),
        (b"[project.scripts]\nx = 'x:a'\n", b"[project.scripts]\nx = 'x:b'\n", True),
        (b"[project.scripts]\nx = 'x:a'\n", b"[project]\nscripts = {x = 'x:a'}\n", False),
        (b"[project.scripts]\nx = 'x:a'\n", None, True),
        (b"[build-system]\nrequires = ['a']\n", b"[build-system]\nrequires = ['b']\n", True),
        (b"[tool.ruff]\n", b"[tool.ruff]\nline-length = 100\n", False),
        (b"[tool.ruff]\n", b"project = 1\n", False),
        (b"[tool.ruff]\n", b"not toml", True),
        (b"[tool.ruff]\n", b"\xff", True),
    ],
)
@pytest.mark.parametrize("path", ["pyproject.toml", "packages/a/pyproject.toml"])
def test_programs_that_an_installation_would_start(
    path: str, before: bytes | None, after: bytes | None, is_risk: bool
) -> None:
    """Whoever installs the project, or runs its tests with it installed, runs these."""
    old, new = (Entry(text) if text is not None else None for text in (before, after))
    risk = risk_of(Change(path, old, new))
    assert (risk is not None) is is_risk
    assert risk is None or not risk.is_severe
