"""The upstream and all gateways that can be started, up at the same time, so that they take turns."""

import contextlib
import dataclasses
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.lab.processes import NotStarted, Program
from benchmarks.peers.gateways import Door, Gateway, Upstream

OPENSSL = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
    *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
)


class Field:
    """``with`` starts what is asked for; ``missing`` says why a gateway is not there."""

    def __init__(self, gateways: Iterable[Gateway], tell: Callable[[str], None]) -> None:
        self.doors: dict[str, Door] = {}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._gateways = list(gateways)
        self._tell = tell
        self._stack = contextlib.ExitStack()
        self._stub: Program
        self._upstream: Upstream
        self._pace = ""

    def __enter__(self) -> "Field":
        self._stack.__enter__()
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_details: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        allow_many_files()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = make_certificate(folder)
        argv = [sys.executable, "-m", "benchmarks.peers.stub", str(certificate or "")]
        self._stub = self._stack.enter_context(Program(argv, has_commands=True))
        ports = self._stub.read_line()
        upstream = Upstream(ports["http"], ports.get("https", 0), folder)
        self._upstream = upstream
        for gateway in self._gateways:
            try:
                self.versions[gateway.name] = gateway.version()
                self._tell(f"starting {gateway.name} {self.versions[gateway.name]}")
                door = gateway.open(upstream)
            except NotStarted as error:
                self.leave_out(gateway.name, str(error))
                continue
            if door.program:
                self._stack.enter_context(door.program)
            if not certificate and gateway.name == "litellm":
                door.websocket = ""  # it needs an upstream with TLS
            self.doors[gateway.name] = door

    @contextlib.contextmanager
    def fresh(self, name: str) -> Iterator[Door]:
        """Another process of a gateway, at the pace set; ended with the block. Raises ``NotStarted``.

        Memory that one has used and freed is taken again by what comes next, and would not show.
        """
        gateway = next(each for each in self._gateways if each.name == name)
        with tempfile.TemporaryDirectory() as folder:
            door = gateway.open(dataclasses.replace(self._upstream, folder=Path(folder)))
            with door.program or contextlib.nullcontext():
                if name == "tightloop scripted" and door.program and self._pace:
                    door.program.command(self._pace)
                yield door

    @property
    def upstream_pids(self) -> list[int]:
        """Of the processes of the upstream."""
        return self._stub.pids

    def leave_out(self, name: str, reason: str) -> None:
        """This gateway is not measured, and the result says why."""
        self.missing[name] = reason
        self._tell(f"{name}: not measured: {reason}")

    def pace(self, rate: float, num: int) -> None:
        """From now on answers have ``num`` tokens at ``rate`` a second, 0 for unpaced."""
        line = f"pace {rate} {num}"
        if line == self._pace:
            return
        self._pace = line
        self._stub.command(line)
        for name, door in self.doors.items():
            if name == "tightloop scripted" and door.program:
                door.program.command(line)

    def counts(self) -> dict[str, Any]:
        """What the upstream has got since the last time: requests and bytes by path."""
        found: dict[str, Any] = self._stub.command("counts")
        return found


def allow_many_files() -> None:
    """As many descriptors as this user may have: a thousand sessions need some thousands."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def make_certificate(folder: Path) -> Path | None:
    """Key and self-signed certificate in one file; None without openssl."""
    if shutil.which("openssl") is None:
        return None
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subprocess.run(
        [*OPENSSL, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both
