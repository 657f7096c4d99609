"""What is documented exists, and what exists is documented."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from scripts import reference
from tightloop.cli.main import VERBS
from tightloop.protocol.header_fields import READ, SENT
from tightloop.trace.ledger import PARTS

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def error_codes() -> Iterator[str]:
    """Every literal given as ``code=`` or ``error_code=`` to an error or a finish."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                value = keyword.value
                is_code = keyword.arg in ("code", "error_code")
                if is_code and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def test_every_error_code_has_its_line() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", page("wire.md").split("## Error codes")[1]))
    assert set(error_codes()) - documented == set()


def test_no_ghost_codes() -> None:
    """Every code in the table can really be sent."""
    table = page("wire.md").split("| code | when |")[1]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    everything = "\n".join(source.read_text(encoding="utf-8") for source in SOURCES)
    assert {code for code in named if f'"{code}"' not in everything} == set()


def test_every_environment_variable_is_documented() -> None:
    text = page("command-line.md")
    used = {
        name
        for source in SOURCES
        for name in re.findall(r"\"(TIGHTLOOP_[A-Z_]+)\"", source.read_text(encoding="utf-8"))
    }
    assert {name for name in used if f"`{name}`" not in text} == set()


def test_every_verb_has_a_heading() -> None:
    text = page("command-line.md")
    assert [verb for verb in VERBS if f"## tightloop {verb}" not in text] == []


def headings(name: str) -> set[str]:
    """The headings of a page that stand for one endpoint, event or header."""
    return set(re.findall(r"^### (.+)$", page(name), re.MULTILINE))


def test_every_endpoint_has_its_heading_and_no_other() -> None:
    """The page was written from the routes there are: after a new one, ``make docs``."""
    documented = {heading for heading in headings("reference.md") if " /" in heading}
    assert documented == {route.heading for route in reference.routes()}


def test_every_endpoint_says_more_than_its_name() -> None:
    """A handler's docstring is its documentation."""
    assert [f"{r.handler} ({r.heading})" for r in reference.routes() if len(r.text) < 20] == []


def test_every_event_and_header_has_its_heading() -> None:
    """In the pages' words, which the registries' own tests compare with the code."""
    wanted = {
        reference.event_heading(event, api)
        for _title, api, events in reference.EVENT_SECTIONS
        for event in events
    }
    wanted |= {f"`{header.name}`" for header in (*READ, *SENT)}
    assert wanted - headings("reference.md") == set()


def test_every_part_of_the_ledger_is_in_the_glossary() -> None:
    text = page("glossary.md")
    assert [part for part in PARTS if part not in text] == []


def test_links_lead_somewhere() -> None:
    """Relative links in the Markdown files name files that are there."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
