"""From a plan to a fleet, and to a table."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.collecting import ask, request
from tightloop.engine.fleet.assembly import build_fleet, divide_cores, table_of
from tightloop.engine.fleet.plan import plan_of_names, read_plan
from tightloop.engine.interface import EngineError
from tightloop.engine.llama_cpp.fit import physical_cores
from tightloop.engine.registry import EngineOptions
from tightloop.trace.log import read_log

EXAMPLE = Path(__file__).parents[3] / "examples/tiers/tiers.toml"


async def test_the_example_works(tmp_path: Path) -> None:
    """The one that people copy: its backends answer, and the log is written where it says."""
    for file in EXAMPLE.parent.iterdir():
        if file.suffix != ".jsonl":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    fleet = build_fleet(read_plan(tmp_path / EXAMPLE.name))
    await fleet.start()
    assert [model.name for model in fleet.models()] == ["coder", "echo"]
    asked = request(name="r")
    answer = await ask(fleet, type(asked)("r", "coder", None, asked.items))
    assert (answer.text, answer.finished.backend) == ("said by the fast one", "fast")
    await fleet.close()
    kinds = [line["kind"] for line in read_log(tmp_path / "decisions.jsonl")]
    assert kinds == ["run.started", "route.decided", "route.ended", "run.ended"]


def test_the_table_shows_everything() -> None:
    """A line for each backend, then what holds for all."""
    lines = table_of(read_plan(EXAMPLE)).splitlines()
    assert lines[0].split() == [
        "model", "backend", "tier", "price", "in/cached/out", "at", "once", "engine", "options",
    ]  # fmt: skip
    assert lines[1].split()[:5] == ["coder", "fast", "fast", "0.35/0.1/0.75", "4"]
    assert lines[1].endswith("first_token_timeout_s=20.0")
    assert lines[2].split()[:5] == ["coder", "bulk", "bulk", "0.05/0.05/0.2", "-"]
    assert lines[3].split()[:3] == ["echo", "echo", "fast"]
    assert lines[4:] == [
        "policy of coder: latency-first",
        "policy of echo: latency-first",
        "requests may name their policy in metadata (tightloop.tier_policy)",
        f"decision log: {EXAMPLE.parent / 'decisions.jsonl'}",
    ]


def test_local_engines_share_the_cores() -> None:
    """One alone has them all, and one that was told its threads keeps them."""
    alone = plan_of_names(["patchling", "scripted"], EngineOptions())
    assert divide_cores(alone) == alone
    two = divide_cores(plan_of_names(["patchling", "/x/y.gguf", "scripted"], EngineOptions()))
    share = max(1, physical_cores() // 2)
    assert [m.members[0].options.num_cores for m in two.models] == [share, share, None]
    told = plan_of_names(["patchling", "/x/y.gguf"], EngineOptions(num_threads=3))
    assert divide_cores(told) == told


def test_what_cannot_be_is_told_by_the_check(tmp_path: Path) -> None:
    """A file that is missing, two models with one name: nothing has to be started for that."""
    with pytest.raises(EngineError, match=r"^x: there is no model file '/no/x\.gguf'"):
        table_of(plan_of_names(["/no/x.gguf"], EngineOptions()))
    with pytest.raises(EngineError, match="no directory '/no/model'"):
        table_of(plan_of_names(["vllm:/no/model"], EngineOptions()))
    with pytest.raises(EngineError, match="cannot read script"):
        table_of(plan_of_names([f"scripted:{tmp_path}/none.json"], EngineOptions()))
    log = replace(plan_of_names(["scripted"], EngineOptions()), decision_log=tmp_path)
    with pytest.raises(EngineError, match="it is a directory"):
        table_of(log)
    same = plan_of_names(["/a/x.gguf", "/b/x.gguf"], EngineOptions())
    for build in (build_fleet, table_of):
        with pytest.raises(EngineError, match=r"as 'x': /a/x\.gguf and /b/x\.gguf"):
            build(same)


def test_the_check_tells_what_the_start_would_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each file; the table is shown all the same."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    plan = plan_of_names(["hf:nobody/nothing/m.gguf@v1"], EngineOptions())
    assert table_of(plan).endswith(
        "hf:nobody/nothing/m.gguf@v1 is not here yet: the start fetches it"
    )


def test_a_log_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """With its path and the reason."""
    path = tmp_path / "f.toml"
    path.write_text('[routing]\ndecision_log = "/dev/full"\n[[model]]\nengine = "scripted"\n')
    with pytest.raises(EngineError, match=r"cannot write the decision log /dev/full: No space"):
        build_fleet(read_plan(path))
