"""What ``make peers`` installs is pinned, and says nothing about where it was looked up."""

import re
import sys
from pathlib import Path

import pytest

from benchmarks.lab.processes import NotStarted
from benchmarks.peers import gateways
from benchmarks.peers.gateways import absent
from scripts.install_peers import attempt

PEERS = Path(__file__).resolve().parent.parent / "peers"
NAMES = ("agentic-api", "litellm", "sglang-router", "smg", "vllm-router")


def test_every_request_has_its_lock() -> None:
    assert sorted(path.stem for path in PEERS.glob("*.in")) == list(NAMES)
    assert sorted(path.stem for path in PEERS.glob("*.txt")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_peers_are_locked_with_hashes(name: str) -> None:
    """An exact version is asked for, and the lock has a hash for each package."""
    locked = (PEERS / f"{name}.txt").read_text("utf-8")
    request = (PEERS / f"{name}.in").read_text("utf-8").strip()
    assert re.fullmatch(rf"{name}(\[\w+\])?==[\d.]+", request)
    pin = re.sub(r"\[.*\]", "", request)  # a lock lists what the extras bring, not the extras
    assert f"\n{pin} \\\n" in f"\n{locked}"
    blocks = re.split(r"^(?=[a-z])", locked, flags=re.MULTILINE)[1:]
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "--index-url" not in locked


def test_a_command_that_fails_gives_its_last_words() -> None:
    assert attempt(sys.executable, "-c", "print('fine')") == ""
    assert (
        attempt(sys.executable, "-c", "raise SystemExit('no such package\\n')") == "no such package"
    )
    assert attempt(sys.executable, "-c", "raise SystemExit(3)").endswith("status 3")
    assert "No such file" in attempt("/nonexistent/program")


def test_why_a_peer_is_missing_reaches_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installer's reason where there is one."""
    monkeypatch.setattr(gateways, "PEERS", tmp_path)
    assert str(absent("smg")) == "smg is not installed; make peers installs it"
    (tmp_path / "smg.reason").write_text("no matching wheel")
    assert str(absent("smg")) == "smg could not be installed: no matching wheel"
    with pytest.raises(NotStarted, match="no matching wheel"):
        gateways.peer_program("smg", "smg")
    with pytest.raises(NotStarted, match="vllm-router is not installed"):
        gateways.peer_version("vllm-router")()


def test_an_installed_peers_version_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "PEERS", tmp_path)
    packages = tmp_path / "vllm-router" / "lib" / "python3.11" / "site-packages"
    (packages / "vllm_router-0.1.17.dist-info").mkdir(parents=True)
    assert gateways.peer_version("vllm-router")() == "0.1.17"
