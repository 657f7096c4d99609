"""``tightloop test --help`` tells of every option that the command line knows."""

import argparse

import pytest

from tightloop.cli import test, warm
from tightloop.cli.main import main
from tightloop.cli.testing.asked import FLAGS, OPTIONS


def options(verb: object) -> set[str]:
    """What a verb's help tells of."""
    parser = argparse.ArgumentParser(add_help=False)
    verb.configure(parser)  # type: ignore[attr-defined]
    return {name for name in parser.format_help().split() if name.startswith("--")}


def test_every_option_has_its_help() -> None:
    """And none is told of that there is not."""
    assert {*FLAGS, *OPTIONS} <= options(test)
    assert options(warm) <= {*FLAGS, *OPTIONS}


def test_help_is_shown_without_a_project(capsys: pytest.CaptureFixture[str]) -> None:
    """Like that of any other verb."""
    for verb in ("test", "warm"):
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        assert f"tightloop {verb} [options]" in capsys.readouterr().out
