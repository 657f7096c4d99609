"""Options of races, and those that do not go together."""

import argparse
from pathlib import Path

import pytest

from tightloop.cli.racing_options import add_racing_options, wanted_mode, with_planner
from tightloop.harness.backend import UsageError
from tightloop.harness.racing.modes import Wanted
from tightloop.harness.settings import Settings


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input-format", default="text")
    parser.add_argument("--approval")
    add_racing_options(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], Wanted()),
        (["--race", "3"], Wanted("race", 3)),
        (["--race", "3", "--at-once", "2"], Wanted("race", 3, 2)),
        (["--retry", "2"], Wanted("retry", 2)),
    ],
)
def test_what_they_come_to(words: list[str], wanted: Wanted) -> None:
    assert wanted_mode(parsed(*words)) == wanted


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--race", "2", "--retry", "2"], "give one of them"),
        (["--at-once", "2"], "--at-once goes with --race"),
        (["--race", "99"], "--race: 1 to 64 candidates are possible, got 99"),
        (["--planner-server", "http://x"], "--planner-server goes with --planner"),
        (["--race", "2", "--input-format", "jsonl"], "--race takes one prompt"),
        (["--race", "2", "--approval", "ask"], "--race needs an approval mode that asks nothing"),
        (["--planner", "m", "--approval", "read-only"], "got read-only"),
    ],
)
def test_what_does_not_go_together(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        wanted_mode(parsed(*words))


def test_the_planner_is_a_setting() -> None:
    words = ["--planner", "m", "--planner-server", "http://x", "--planner-key-env", "KEY"]
    settings = with_planner(Settings(repo=Path(), state_dir=Path()), parsed(*words))
    assert (settings.planner, settings.planner_server) == ("m", "http://x")
    assert settings.planner_key_env == "KEY"
