"""Whole patches against real trees: the numbered scenarios, atomicity, attacks."""

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.agent.patch.scenarios import SCENARIOS, TWICE, Scenario, harvest, plant
from tightloop.agent.patch.apply import (
    ChunkFailed,
    Impossible,
    PatchStream,
    StreamEvent,
    apply_patch,
)
from tightloop.agent.patch.locate import LocatePolicy
from tightloop.agent.patch.operations import ChunkClosed, FileClosed, FileSeen, PatchEnded
from tightloop.agent.patch.plan import ChunkLocated, PatchPlanned, PatchPolicy

BY_NAME = [pytest.param(scenario, id=scenario.name) for scenario in SCENARIOS]


@pytest.mark.parametrize("scenario", BY_NAME)
def test_scenario(scenario: Scenario, tmp_path: Path) -> None:
    """The tree afterwards is the expected one, and nothing is left beside it."""
    plant(tmp_path, scenario.before)
    outcome = apply_patch(scenario.patch, tmp_path)
    assert (scenario.error, scenario.expected) == (
        outcome.failure and outcome.failure.error,
        harvest(tmp_path),
    )
    if outcome.failure:
        text = outcome.as_text()
        assert "No file was changed" in text
        assert len(text.splitlines()) <= 20


def test_success_text_lists_files_by_letter(tmp_path: Path) -> None:
    plant(tmp_path, {"gone": b"g\n", "kept": b"a\n"})
    outcome = apply_patch(
        "*** Begin Patch\n*** Delete File: gone\n*** Update File: kept\n@@\n-a\n+b\n"
        "*** Add File: new\n+n\n*** End Patch",
        tmp_path,
    )
    expected = "Success. Updated the following files:\nA new\nM kept\nD gone\n"
    assert expected == outcome.as_text()
    kinds = [(f.kind, f.path, f.changed_lines, f.num_added, f.num_removed) for f in outcome.files]
    assert kinds == [
        ("delete", "gone", (), 0, 1),
        ("update", "kept", ((1, 1),), 1, 1),
        ("add", "new", ((1, 1),), 1, 0),
    ]


def test_overwriting_is_said_and_can_be_refused(tmp_path: Path) -> None:
    plant(tmp_path, {"f": b"x\n"})
    patch = "*** Begin Patch\n*** Add File: f\n+y\n*** End Patch"
    refused = apply_patch(patch, tmp_path, PatchPolicy(may_overwrite=False))
    assert refused.failure is not None
    assert refused.failure.error == "forbidden_path"
    assert "replaced an existing file" in apply_patch(patch, tmp_path).as_text()


def test_first_match_policy_replays_other_tools(tmp_path: Path) -> None:
    plant(tmp_path, {"f": TWICE})
    patch = "*** Begin Patch\n*** Update File: f\n@@\n-    x = 1\n+    x = 2\n*** End Patch"
    policy = PatchPolicy(locate=LocatePolicy(first_match=True))
    assert apply_patch(patch, tmp_path, policy).is_ok
    assert TWICE.replace(b"x = 1", b"x = 2", 1) == (tmp_path / "f").read_bytes()


def test_replay_writes_nothing(tmp_path: Path) -> None:
    """110: a patch applied twice leaves inode and times alone the second time."""
    plant(tmp_path, {"f": b"a\nold\nc\n"})
    patch = "*** Begin Patch\n*** Update File: f\n@@\n a\n-old\n+new\n*** End Patch"
    assert apply_patch(patch, tmp_path).is_ok
    before = (tmp_path / "f").stat()
    outcome = apply_patch(patch, tmp_path)
    assert "(f: chunk 1 was already)" in outcome.as_text()
    after = (tmp_path / "f").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_mode_is_kept_on_update_and_move(tmp_path: Path) -> None:
    """119"""
    plant(tmp_path, {"run.sh": b"#!/bin/sh\ntrue\n"})
    (tmp_path / "run.sh").chmod(0o750)
    apply_patch(
        "*** Begin Patch\n*** Update File: run.sh\n*** Move to: bin/run\n@@\n-true\n+false\n"
        "*** End Patch",
        tmp_path,
    )
    assert stat.S_IMODE((tmp_path / "bin/run").stat().st_mode) == 0o750


def test_modification_time_moves_by_a_whole_second(tmp_path: Path) -> None:
    """Equal-sized edits within one second must not leave stale bytecode valid."""
    plant(tmp_path, {"m.py": b"a = 1\n"})
    times = [int((tmp_path / "m.py").stat().st_mtime)]
    for old, new in (("1", "2"), ("2", "3")):
        apply_patch(
            f"*** Begin Patch\n*** Update File: m.py\n@@\n-a = {old}\n+a = {new}\n*** End Patch",
            tmp_path,
        )
        times.append(int((tmp_path / "m.py").stat().st_mtime))
    assert times == sorted(set(times))


def test_impossible_before_the_rest_arrives(tmp_path: Path) -> None:
    """108: the third chunk is given up as soon as its lines are nowhere, and nothing is written."""
    plant(tmp_path, {"f": b"1\n2\n3\n"})
    stream = PatchStream(tmp_path)
    seen = stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-1\n+a\n@@\n-2\n+b\n@@\n-9\n")
    located = [event.line for event in seen if isinstance(event, ChunkLocated)]
    assert located == [1, 2]
    assert stream.failure is None, "it could have been applied before"
    after = stream.feed("+c\n")
    failures = [event.failure for event in after if isinstance(event, Impossible)]
    assert [failure.chunk for failure in failures] == [3]
    assert not [e for e in stream.feed("-3\n+x\n*** End Patch\n") if isinstance(e, Impossible)]
    assert not stream.commit().is_ok
    assert harvest(tmp_path) == {"f": b"1\n2\n3\n"}


def test_dropped_stream_leaves_no_trace(tmp_path: Path) -> None:
    """109: neither closing nor committing a cut stream writes anything."""
    plant(tmp_path, {"f": b"1\n2\n3\n"})
    for ending in (PatchStream.close, PatchStream.commit):
        stream = PatchStream(tmp_path)
        stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-1\n+a\n@@\n-2\n+b\n@@\n-3\n+c\n")
        ending(stream)
        assert harvest(tmp_path) == {"f": b"1\n2\n3\n"}


def test_edit_by_someone_else_is_noticed_and_the_patch_placed_anew(tmp_path: Path) -> None:
    """113: the file changed between location and commit."""
    plant(tmp_path, {"f": b"1\n2\n"})
    stream = PatchStream(tmp_path)
    stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-2\n+two\n*** End Patch\n")
    (tmp_path / "f").write_bytes(b"0\n1\n2\n")
    assert stream.commit().is_ok
    assert (tmp_path / "f").read_bytes() == b"0\n1\ntwo\n"


def test_a_file_made_after_the_header_was_seen_counts(tmp_path: Path) -> None:
    """A refusal made while an earlier command could still run is judged again at the end."""
    stream = PatchStream(tmp_path)
    stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-2\n+two\n*** End Patch\n")
    (tmp_path / "f").write_bytes(b"2\n")
    assert stream.commit().is_ok
    assert (tmp_path / "f").read_bytes() == b"two\n"


def test_hard_links_are_not_written_through(tmp_path: Path) -> None:
    """F6: the other name of a hard link keeps its content."""
    plant(tmp_path, {"ws/f": b"a\n"})
    os.link(tmp_path / "ws/f", tmp_path / "outside")
    apply_patch("*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n*** End Patch", tmp_path / "ws")
    assert (tmp_path / "outside").read_bytes() == b"a\n"
    assert (tmp_path / "ws/f").read_bytes() == b"b\n"


def test_a_parent_swapped_for_a_symlink_does_not_lead_out(tmp_path: Path) -> None:
    """112: the directory becomes a symlink outwards after the plan was made."""
    plant(tmp_path, {"ws/d/f": b"a\n", "out/f": b"a\n"})
    stream = PatchStream(tmp_path / "ws")
    stream.feed("*** Begin Patch\n*** Update File: d/f\n@@\n-a\n+b\n*** End Patch\n")
    (tmp_path / "ws/d").rename(tmp_path / "ws/e")
    (tmp_path / "ws/d").symlink_to(tmp_path / "out")
    outcome = stream.commit()
    assert outcome.failure is not None
    assert outcome.failure.error == "forbidden_path"
    assert (tmp_path / "out/f").read_bytes() == b"a\n"


def test_a_symlink_flickering_in_another_thread_never_leads_out(tmp_path: Path) -> None:
    """112: every patch is refused or lands inside, whatever the moment of the swap."""
    plant(tmp_path, {"ws/real/f": b"0\n", "ws/d": "real", "out/f": b"0\n"})
    stop = threading.Event()

    def flicker() -> None:
        while not stop.is_set():
            for target in ("../out", "real"):
                (tmp_path / "ws/next").symlink_to(target)
                (tmp_path / "ws/next").rename(tmp_path / "ws/d")

    thread = threading.Thread(target=flicker)
    thread.start()
    try:
        errors = set()
        for number in range(30):
            outcome = apply_patch(
                f"*** Begin Patch\n*** Add File: d/f\n+{number}\n*** End Patch", tmp_path / "ws"
            )
            errors.add(outcome.failure and outcome.failure.error)
    finally:
        stop.set()
        thread.join()
    assert (tmp_path / "out/f").read_bytes() == b"0\n"
    assert sorted(os.listdir(tmp_path / "out")) == ["f"]
    assert errors <= {None, "forbidden_path", "changed"}


def test_large_file_with_the_chunk_at_its_end(tmp_path: Path) -> None:
    """121: five megabytes; the time is a benchmark's business."""
    lines = b"".join(b"line %06d of a long file, padded somewhat\n" % n for n in range(120_000))
    (tmp_path / "f").write_bytes(lines)
    patch = (
        "*** Begin Patch\n*** Update File: f\n@@\n-line 119999 of a long file, padded somewhat\n"
        "+end\n*** End Patch"
    )
    assert apply_patch(patch, tmp_path).is_ok
    assert (tmp_path / "f").read_bytes().endswith(b"padded somewhat\nend\n")


def test_file_above_the_limit(tmp_path: Path) -> None:
    plant(tmp_path, {"f": b"a\n" * 100})
    patch = "*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n*** End Patch"
    outcome = apply_patch(patch, tmp_path, PatchPolicy(max_bytes=100))
    assert outcome.failure is not None
    assert outcome.failure.error == "too_large"


def test_a_listener_hears_everything_as_soon_as_it_is_known(tmp_path: Path) -> None:
    """The file at its header, each chunk at the line that closes it, the plan at the end marker;
    paths are relative to the workspace however the patch spells them."""
    plant(tmp_path, {"d/f": b"1\n2\n2\n"})
    heard: list[StreamEvent] = []
    stream = PatchStream(tmp_path, listener=heard.append)
    stream.feed(f"*** Begin Patch\n*** Update File: {tmp_path}/d/./f\n")
    assert heard == [FileSeen("update", "d/f", 2)]
    stream.feed("@@ 1\n-2\n+two\n")
    assert len(heard) == 1
    stream.feed("*** Add File: g\n")
    closed, located, file_closed, seen = heard[1:]
    assert isinstance(closed, ChunkClosed)
    assert (closed.path, closed.chunk.number) == ("d/f", 1)
    assert located == ChunkLocated("d/f", 1, 2, "exact", 2)
    assert isinstance(file_closed, FileClosed)
    assert seen == FileSeen("add", "g", 6)
    stream.feed("+x\n*** End Patch\n")
    ended, planned = heard[-2:]
    assert isinstance(ended, PatchEnded)
    assert isinstance(planned, PatchPlanned)
    contents = {file.path: file.content for file in planned.files}
    assert contents == {"d/f": b"1\ntwo\n2\n", "g": b"x\n"}
    assert harvest(tmp_path) == {"d/f": b"1\n2\n2\n"}
    num_heard = len(heard)
    assert stream.commit().is_ok
    assert num_heard == len(heard)


def test_a_failed_chunk_is_told_with_its_reason(tmp_path: Path) -> None:
    plant(tmp_path, {"f": b"1\n"})
    heard: list[StreamEvent] = []
    stream = PatchStream(tmp_path, listener=heard.append)
    stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-9\n+x\n")
    assert isinstance(heard[-1], Impossible)
    assert stream.failure == heard[-1].failure
    stream.feed(" 1\n@@\n")
    closed, failed = heard[-2:]
    assert isinstance(closed, ChunkClosed)
    assert isinstance(failed, ChunkFailed)
    assert (failed.path, failed.chunk) == ("f", 1)
    assert failed.failure.num_expected == 2
    assert stream.failure == failed.failure
    assert len([event for event in heard if isinstance(event, Impossible)]) == 1
    stream.close()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("*** Update File: none", "missing_file"),
        ("*** Delete File: none", "missing_file"),
        ("*** Add File: ../x", "forbidden_path"),
        ("*** Update File: .git/config", "forbidden_path"),
        ("*** Update File: d", "forbidden_path"),
        ("*** Frobnicate: f", "bad_syntax"),
    ],
)
def test_a_bad_header_is_known_at_its_line(tmp_path: Path, line: str, error: str) -> None:
    """108: before anything of the file's change has come."""
    plant(tmp_path, {"d/f": b"1\n"})
    stream = PatchStream(tmp_path)
    events = stream.feed(f"*** Begin Patch\n{line}\n")
    assert [event.failure.error for event in events if isinstance(event, Impossible)] == [error]
    stream.close()


def test_a_file_that_changes_can_mend_an_impossible_patch(tmp_path: Path) -> None:
    """What was judged while an earlier command could still write is judged again."""
    plant(tmp_path, {"f": b"1\n"})
    stream = PatchStream(tmp_path)
    stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-2\n+two\n@@")
    stream.feed("\n")
    assert stream.recheck() is not None
    (tmp_path / "f").write_bytes(b"2\n3\n")
    assert stream.recheck() is None
    stream.feed("-3\n+three\n*** End Patch\n")
    assert stream.commit().is_ok
    assert harvest(tmp_path) == {"f": b"two\nthree\n"}


def test_success_data(tmp_path: Path) -> None:
    """Ranges in the new file, tier and number of places a chunk, counts, hash."""
    plant(tmp_path, {"f": b"def f():\n\ta\n\tb\nhere\nx\nx\n"})
    outcome = apply_patch(
        "*** Begin Patch\n*** Update File: f\n@@\n     a\n-    b\n+\tc\n+\td\n@@ here\n-x\n+y\n"
        "*** End Patch",
        tmp_path,
    )
    (file,) = outcome.files
    assert (tmp_path / "f").read_bytes() == b"def f():\n\ta\n\tc\n\td\nhere\ny\nx\n"
    assert file.changed_lines == ((3, 4), (6, 6))
    assert (file.tiers, file.num_matches) == (("trimmed", "exact"), (1, 2))
    assert (file.num_added, file.num_removed) == (3, 2)
    assert file.sha256 == hashlib.sha256((tmp_path / "f").read_bytes()).hexdigest()
    assert outcome.as_dict()["files"][0]["changed_lines"] == ((3, 4), (6, 6))
    assert outcome.as_text().splitlines()[1:] == [
        "M f",
        "(f: chunk 1 fits only when white space around the lines is ignored)",
        "(f: chunk 2 fits at 2 places; took the first)",
    ]


def test_failure_data(tmp_path: Path) -> None:
    outcome = apply_patch("*** Begin Patch\n*** Delete File: f\n*** End Patch", tmp_path)
    body = outcome.as_dict()
    assert (body["ok"], body["error"], body["file"]) == (False, "missing_file", "f")


@pytest.mark.parametrize(
    ("content", "patch_line", "tier"),
    [
        ("if x:\n\ta = 1\n\tb = 2\n", "     a = 1", "trimmed"),
        ("say(\u201chi\u201d) \u2014 x\n\tb = 2\n", ' say("hi") - x', "unicode"),
    ],
)
def test_context_bytes_survive_a_loose_match(
    tmp_path: Path, content: str, patch_line: str, tier: str
) -> None:
    """104, 105: only the changed line differs, and the tier is reported."""
    plant(tmp_path, {"f": content.encode()})
    outcome = apply_patch(
        f"*** Begin Patch\n*** Update File: f\n@@\n{patch_line}\n-    b = 2\n+\tb = 3\n"
        "*** End Patch",
        tmp_path,
    )
    assert outcome.files[0].tiers == (tier,)
    assert (tmp_path / "f").read_text() == content.replace("b = 2", "b = 3")


def test_codex_policy(tmp_path: Path) -> None:
    """106 and the last newline, as Codex has them: at the end, and always one."""
    plant(tmp_path, {"f": b"def f\nx\ny"})
    policy = PatchPolicy(locate=LocatePolicy(codex=True))
    patch = "*** Begin Patch\n*** Update File: f\n@@ def f\n-x\n+z\n*** End Patch"
    assert apply_patch(patch, tmp_path, policy).is_ok
    assert (tmp_path / "f").read_bytes() == b"def f\nz\ny\n"
    patch = "*** Begin Patch\n*** Update File: f\n@@ def f\n+end\n*** End Patch"
    assert apply_patch(patch, tmp_path, policy).is_ok
    assert (tmp_path / "f").read_bytes() == b"def f\nz\ny\nend\n"


def test_a_file_at_the_limit_and_one_that_grows(tmp_path: Path) -> None:
    plant(tmp_path, {"f": b"a\n" * 50})
    patch = "*** Begin Patch\n*** Update File: f\n@@ a\n-a\n+b\n*** End Patch"
    assert apply_patch(patch, tmp_path, PatchPolicy(max_bytes=100)).is_ok
    stream = PatchStream(tmp_path, PatchPolicy(max_bytes=100))
    stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-b\n+c\n*** End Patch")
    with (tmp_path / "f").open("ab") as file:
        file.write(b"more\n")
    outcome = stream.commit()
    assert outcome.failure is not None
    assert outcome.failure.error == "too_large"
