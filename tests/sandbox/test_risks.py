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
