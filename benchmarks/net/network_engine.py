"""The network experiment's turns on a real model: what a person waits for, engine included."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.lab.record import Figure, Ratio, Row, paired_ratio
from benchmarks.net import tls_front
from benchmarks.net.child import ready_child, run_child
from benchmarks.net.engine_client import WAYS, EngineSample, Plan
from benchmarks.net.follow_up import Case
from benchmarks.net.link import FAR_ADDRESS, Link
from benchmarks.net.random_models import random_model
from benchmarks.net.trips import STREAMED, TIGHT

RTT_MS = 50.0
CASE = Case("random-3m", 2_000, 1_000, 2.0, 4)
QUICK = Case("random-3m", 1_000, 500, 1.0, 2)
RUN_LIMIT_S = 400.0


async def measure(
    case: Case, congestion_control: str, rtt_ms: float = RTT_MS
) -> list[EngineSample]:
    """All samples of one case. Raises ChildError or LinkError."""
    with tempfile.TemporaryDirectory(prefix="tightloop-net-") as folder:
        home = Path(folder)
        certificate, key = tls_front.make_certificate(home, FAR_ADDRESS)
        async with Link(rtt_ms / 1e3, home / "counters") as link:
            server = [
                *(sys.executable, "-m", "benchmarks.net.server", "--host", FAR_ADDRESS),
                *("--certificate", str(certificate), "--key", str(key)),
                *("--congestion-control", congestion_control),
                *("--model", str(random_model(case.model))),
            ]
            async with ready_child(link.far(*server)) as ready:
                plan = Plan(url=ready["url"], case=case, congestion_control=congestion_control)
                (home / "plan.json").write_bytes(msgspec.json.encode(plan))
                client = link.near(
                    sys.executable, "-m", "benchmarks.net.engine_client", str(home / "plan.json")
                )
                printed = await run_child(client, RUN_LIMIT_S, {"SSL_CERT_FILE": str(certificate)})
    return msgspec.convert(printed, list[EngineSample])


def params_of(case: Case, control: str) -> dict[str, str | int | float | bool]:
    """What a row says of its condition."""
    return {
        "rtt_ms": RTT_MS,
        "cc": control,
        "history": f"{case.history} tokens",
        "new": f"{case.output} tokens",
        "idle_s": case.tool_s,
        "model": case.model,
    }


def rows_of(case: Case, control: str, samples: Sequence[EngineSample]) -> list[Row]:
    """A row a way."""
    params = params_of(case, control)
    rows = []
    for way in WAYS:
        series = [each for each in samples if each.way == way]
        figures = {
            "ttft": Figure.of([1e3 * each.ttft_s for each in series], "ms"),
            "cached": Figure.of([float(each.cached_tokens) for each in series], "tokens"),
            "input": Figure.of([float(each.input_tokens) for each in series], "tokens"),
        }
        rows.append(Row(way, params, figures))
    return rows


def ratios_of(case: Case, control: str, samples: Sequence[EngineSample]) -> list[Ratio]:
    """Tight, and tight with streamed prefill, over each baseline, round by round."""
    series = {way: [each.ttft_s for each in samples if each.way == way] for way in WAYS}
    name = f"ttft {RTT_MS:g} ms {control} {case.model}"
    return [
        paired_ratio(name, of, over, series[of], series[over])
        for of in (TIGHT, STREAMED)
        for over in WAYS
        if over != STREAMED and over != of
    ]
