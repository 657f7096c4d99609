"""One selection of tests, run warm and cold in the same sandbox."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tightloop.sandbox.interface import Command, CommandResult, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.verdicts import read_report

OPTIONS = ("-v", "-rA")
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""One for the whole session: otherwise two cold runs already differ in the order of sets."""
KIND = "bubblewrap"
"""With a /tmp of its own: what others leave in a shared one would be told in some runs."""
TIME_LIMIT_S = 120.0
_RANKS = ("ERROR", "FAILED", "XFAIL", "XPASS", "SKIPPED", "PASSED")
_NAMES = {"XFAIL": "xfailed", "XPASS": "xpassed"}
_LINE = re.compile(
    rf"^(?P<test>\S+::.+?) (?P<said>{'|'.join(_RANKS)})(?: \(.*\))?(?: +\[ *\d+%\])?$", re.MULTILINE
)
_SUMMARY = re.compile(
    r"^(?P<said>PASSED|FAILED|ERROR|XFAIL|XPASS) (?P<test>\S+::.+)$", re.MULTILINE
)
_NOT_STARTED = (126, 127)
_NOT_COLLECTED = re.compile(r"^ERROR (?P<test>[^\s:]+)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run ended. ``level`` is l0, l1, l2, swap or swap-l2 for warm runs, else ``cold``."""

    exit_code: int
    output: str
    level: str
    took_ms: float
    tests: Mapping[str, str] = field(default_factory=dict)
    timed_out: bool = False

    @property
    def text(self) -> str:
        """The output without what differs between any two runs: times, addresses, temporary names."""
        text = re.sub(r"\d+\.\d+s(?: \(\d+:\d\d:\d\d\))?", "TIME", self.output)
        text = re.sub(r"0x[0-9a-f]{4,}", "ADDRESS", text)
        text = re.sub(r"pytest-of-\w+/pytest-\d+", "pytest-N", text)
        text = re.sub(r"^(=+|_+|-+) (.*?) \1?[=_-]*$", r"RULE \2", text, flags=re.MULTILINE)
        return re.sub(r"\bid=\d+|\bat \d{9,}", "ID", text)


def outcomes(output: str) -> dict[str, str]:
    """Outcomes by test id as ``pytest -v -rA`` prints them; the worst one where there are two."""
    found: dict[str, str] = {}
    for match in _LINE.finditer(output):
        test, said = match["test"], match["said"]
        if test not in found or _RANKS.index(said) < _RANKS.index(found[test]):
            found[test] = said
    for match in _SUMMARY.finditer(output):  # of a test whose own line something was printed into
        words = match["test"].split(" - ")  # an id, then maybe a reason; both may have dashes
        if not any(" - ".join(words[:end]) in found for end in range(1, len(words) + 1)):
            found[match["test"] if match["said"] == "PASSED" else words[0]] = match["said"]
    for match in _NOT_COLLECTED.finditer(output):
        found.setdefault(match["test"], "ERROR")
    return {test: _NAMES.get(said, said.lower()) for test, said in found.items()}


async def sandbox_for(workspace: Path) -> PersistentSandbox:
    """A started sandbox whose warm process is ready. Raises RuntimeError when there is none."""
    policy = Policy(workspace, environment=ENVIRONMENT, max_output_bytes=4 << 20)
    sandbox = await open_sandbox(policy, kind=KIND)
    if not await sandbox.warm_tests_ready():
        await sandbox.close()
        raise RuntimeError(f"no warm tests in {workspace}: {sandbox.warm_refusal}")
    return sandbox


async def run_warm(
    sandbox: PersistentSandbox, tests: Sequence[str], limit_s: float = TIME_LIMIT_S
) -> Ran:
    """``python -m pytest`` as it comes; the outcomes are those of the report."""
    result = await sandbox.run(_command(("python",), tests, limit_s))
    level = result.how.removeprefix("warm-pytest-") if "warm" in result.how else "cold"
    said = read_report(result.report) if level != "cold" else outcomes(result.output)
    return _ran(result, level, said)


async def run_cold(
    sandbox: PersistentSandbox, tests: Sequence[str], limit_s: float = TIME_LIMIT_S
) -> Ran:
    """The same in a process of its own; ``env`` before it keeps it from being a warm one."""
    result = await sandbox.run(_command(("env", "python"), tests, limit_s))
    if result.how != "spawn":
        raise RuntimeError(f"a run that should be cold was {result.how}")
    return _ran(result, "cold", outcomes(result.output))


def _command(program: Sequence[str], tests: Sequence[str], limit_s: float) -> Command:
    argv = [*program, "-m", "pytest", *OPTIONS, *tests]
    return Command(argv=argv, timeout_s=limit_s, is_reporting=True)


def _ran(result: CommandResult, level: str, said: Mapping[str, str]) -> Ran:
    if result.exit_code in _NOT_STARTED:  # two that do not start would be equal
        raise RuntimeError(f"pytest did not start: {result.output.strip()}")
    took_ms = (result.ended_ns - result.started_ns) / 1e6
    return Ran(result.exit_code, result.output, level, took_ms, said, result.timed_out)
