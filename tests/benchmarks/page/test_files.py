from pathlib import Path

import pytest

from benchmarks.page.files import differences, made, write
from tests.benchmarks.page.samples import network, per_token, replay


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for each in (network(), per_token(), replay()):
        each.write(folder)
    return folder


def test_the_page_in_docs_is_what_the_results_make() -> None:
    """After a new result, ``python -m benchmarks.page`` writes it again."""
    assert differences() == []


def test_what_is_written_is_up_to_date_until_a_result_changes(
    results: Path, tmp_path: Path
) -> None:
    """A plot that nothing makes any more is stale, and goes away with the next writing."""
    docs = tmp_path / "docs"
    written = write(results, docs)
    assert [docs / name for name in made(results)] == written
    assert differences(results, docs) == []
    (results / "network.json").unlink()
    assert differences(results, docs) == ["measured.md", "plots/network.svg"]
    write(results, docs)
    assert not (docs / "plots" / "network.svg").exists()


def test_the_same_results_give_the_same_files(results: Path) -> None:
    assert made(results) == made(results)
