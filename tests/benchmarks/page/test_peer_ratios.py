from benchmarks.lab.record import Ratio
from benchmarks.page.peer_ratios import EXPERIMENTS, peer_lines
from benchmarks.page.results import Results
from tests.benchmarks.page.samples import experiment

TIGHT = "tightloop, websocket"
RATIOS = [
    Ratio("ttft 1k", "litellm, chat", TIGHT, 10.0, 8.0, 12.5, 9),
    Ratio("ttft 50k", "litellm, chat", TIGHT, 20.0, 16.0, 25.0, 9),
    Ratio("ttft 1k", "nginx, chat", TIGHT, 0.5, 0.4, 0.8, 9),
    Ratio("cpu 1k", "nginx, chat", "tightloop, chat", 0.1, 0.1, 0.2, 9),
    Ratio("ttft 1k", "direct, chat", TIGHT, 0.3, 0.2, 0.4, 9),
    Ratio("ttft 1k", "tightloop, pinned, websocket", TIGHT, 0.9, 0.8, 1.0, 9),
]


def lines(*ratios: Ratio) -> list[str]:
    return peer_lines(Results({"round-trip": experiment("round-trip", [], list(ratios))}, {}))


def test_each_peer_has_a_line_and_each_condition_a_column() -> None:
    """As reductions of ours, in bold where they are none; what is no peer has no line."""
    found = lines(*RATIOS)
    at = found.index("| ttft of `tightloop, websocket` against | 1k | 50k |")
    assert found[at + 2 : at + 4] == [
        "| litellm, chat | -90 % [-92, -88] | -95 % [-96, -94] |",
        "| nginx, chat | **+100 % [+25, +150]** | - |",
    ]
    assert not any("direct" in line or "pinned" in line for line in found)


def test_a_peer_is_also_compared_with_ours_asked_alike() -> None:
    found = lines(*RATIOS)
    at = found.index("| cpu of `tightloop`, asked alike, against | 1k |")
    assert found[at + 2] == "| nginx, chat | **+900 % [+400, +900]** |"
    assert not any(line.startswith("| ttft of `tightloop`, asked alike") for line in found)


def test_an_experiment_that_was_not_run_is_named() -> None:
    found = lines(*RATIOS)
    for name in EXPERIMENTS.keys() - {"round-trip"}:
        assert any(line.startswith(f"**{name}**: not measured; ") for line in found)
