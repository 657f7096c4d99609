"""Whole patches against real trees: the numbered scenarios, atomicity, attacks."""

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.agent.patch.scenarios import SCENARIOS, TWICE, Scenario, harvest, plant
from tightloop.agent.patch.apply import (
    Impossible,
    PatchStream,
    StreamEvent,
    apply_patch,
)
from tightloop.agent.patch.locate import LocatePolicy
from tightloop.agent.patch.operations import PatchEvent
from tightloop.agent.patch.parser import PatchParser
from tightloop.agent.patch.plan import ChunkLocated, PatchPolicy

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


def _stream(patch: str, cuts: list[str], root: Path) -> tuple[list[StreamEvent], str | None]:
    stream = PatchStream(root)
    events = [event for piece in cuts for event in stream.feed(piece)]
    assert patch == stream.text
    stream.close()
    failures = [event.failure.error for event in events if isinstance(event, Impossible)]
    return events, failures[0] if failures else None


def _parse(cuts: list[str]) -> tuple[list[PatchEvent], str]:
    parser = PatchParser()
    events = [event for piece in cuts for event in parser.feed(piece)]
    return events + parser.finish(), str(parser.failure)


@pytest.mark.parametrize("scenario", BY_NAME)
def test_cut_at_every_character(scenario: Scenario, tmp_path: Path) -> None:
    """122: whole, in two pieces at every place, or character by character: the same events."""
    plant(tmp_path, scenario.before)
    patch = scenario.patch
    parsed = _parse([patch])
    for at in range(len(patch) + 1):
        assert parsed == _parse([patch[:at], patch[at:]])
    whole = _stream(patch, [patch], tmp_path)
    assert whole == _stream(patch, list(patch), tmp_path)
    assert scenario.before == harvest(tmp_path)
    stream = PatchStream(tmp_path)
    for character in patch:
        stream.feed(character)
    outcome = stream.commit()
    assert scenario.error == (outcome.failure and outcome.failure.error)
    assert scenario.expected == harvest(tmp_path)


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
    """108: the third chunk is refused as soon as it closes, and nothing is written."""
    plant(tmp_path, {"f": b"1\n2\n3\n"})
    stream = PatchStream(tmp_path)
    seen = stream.feed("*** Begin Patch\n*** Update File: f\n@@\n-1\n+a\n@@\n-2\n+b\n@@\n-9\n+c\n")
    located = [event.line for event in seen if isinstance(event, ChunkLocated)]
    assert located == [1, 2]
    after = stream.feed("@@\n")
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
