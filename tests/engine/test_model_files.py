"""Model names become files, or an error that says what to do."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tightloop.engine.interface import EngineError
from tightloop.engine.model_files import (
    HubFile,
    _progress_bar,
    bundled_path,
    check,
    explain,
    in_own_words,
    parse_hub_name,
    resolve,
)

FILE = HubFile("o/r", "m.gguf", "v1")


def test_a_look_at_a_file_reads_its_first_bytes(tmp_path: Path) -> None:
    """A missing file, a folder, an empty file and one that is something else are told apart."""
    good, bad, empty = (tmp_path / name for name in ("good.gguf", "bad.gguf", "empty.gguf"))
    good.write_bytes(b"GGUF and more")
    bad.write_bytes(b"<html>")
    empty.write_bytes(b"")
    assert check(str(good)) == check("patchling") == ""
    for path, text in (
        (bad, "begins with b'<htm'"),
        (empty, "begins with b''"),
        (tmp_path, "there is no"),
    ):
        with pytest.raises(EngineError, match=text):
            check(str(path))


def test_what_the_hub_s_client_logs_is_told_once_and_in_our_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It words each of its attempts twice over half a minute; afterwards it is as it was."""
    theirs = logging.getLogger("huggingface_hub")
    before = (theirs.handlers, theirs.propagate)
    with in_own_words(FILE):
        for number in range(3):
            logging.getLogger("huggingface_hub.utils").warning("Retrying [%d]", number)
    (record,) = caplog.records
    assert (
        record.getMessage()
        == "the hub does not give hf:o/r/m.gguf@v1 at once; trying for half a minute"
    )
    assert before == (theirs.handlers, theirs.propagate)


def test_a_path_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    assert path == resolve(str(path))


def test_the_bundled_model_is_a_file() -> None:
    assert bundled_path() == resolve("patchling")
    assert bundled_path().read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:o/r/m.gguf", HubFile("o/r", "m.gguf")),
        ("hf:o/r/sub/m.gguf@main", HubFile("o/r", "sub/m.gguf", "main")),
        ("hf:o/r/m.gguf@refs/pr/1", HubFile("o/r", "m.gguf", "refs/pr/1")),
    ],
)
def test_names_on_the_hub(name: str, expected: HubFile) -> None:
    assert expected == parse_hub_name(name)
    assert name == str(expected)
    fetched = resolve(name, download=lambda file: Path(f"/cache/{file.file}"))
    assert fetched == Path(f"/cache/{expected.file}")


@pytest.mark.parametrize("name", ["hf:o/r", "hf:o/m.gguf", "hf:o/r/m.bin", "hf:"])
def test_a_name_that_is_none_shows_the_form(name: str) -> None:
    with pytest.raises(EngineError, match=r"write hf:OWNER/REPO/FILE\.gguf@REVISION"):
        resolve(name)


def _raised(name: str) -> Exception:
    """An error of the hub's client, without the response that it usually carries."""
    from huggingface_hub import errors

    kind: type[Exception] = getattr(errors, name)
    error = kind.__new__(kind)
    error.args = ("from the hub",)
    return error


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("GatedRepoError", "is gated: accept its terms at https://huggingface.co/o/r"),
        ("RepositoryNotFoundError", "no repository 'o/r', or it is private"),
        ("RevisionNotFoundError", "no revision 'v1'"),
        ("LocalEntryNotFoundError", "hub cannot be reached"),
        ("EntryNotFoundError", "o/r has no file 'm.gguf'"),
        ("HfHubHTTPError", "the hub refused hf:o/r/m.gguf@v1"),
    ],
)
def test_what_the_hub_says_in_plain_words(name: str, text: str) -> None:
    explained = explain(_raised(name), FILE)
    assert text in str(explained)
    assert explained.code == "model_not_found"


def test_a_full_disk_is_told_and_a_bug_is_not_hidden() -> None:
    assert "cannot fetch or store" in str(explain(OSError("No space left on device"), FILE))
    with pytest.raises(ZeroDivisionError):
        explain(ZeroDivisionError(), FILE)


def test_the_progress_bar_counts_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    bar: Any = _progress_bar()(total=10, desc="m.gguf", unit="B")
    bar.update(10)
    bar.close()
    assert bar.n == 10
    assert capsys.readouterr().out == ""
