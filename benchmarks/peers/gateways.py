"""Each peer and each of our own set-ups: how to start it in front of the upstream.

Settings follow each project's own documentation; one worker each. What cannot be started raises
``NotStarted`` with the reason, which becomes the reason in the result.
"""

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.lab.processes import NotStarted, Program, free_port

PEERS = Path(__file__).resolve().parent.parent.parent / ".peers"
START_LIMIT_S = 90.0
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the stub listens, and a folder for a gateway's files."""

    http_port: int
    https_port: int
    folder: Path


@dataclass(slots=True)
class Door:
    """A way in. Empty paths are not offered. ``program`` is None where nothing is in between."""

    port: int
    program: Program | None
    chat: str = CHAT
    responses: str = RESPONSES
    websocket: str = ""
    key: str = ""
    model: str = "stub"
    websocket_model: str = "stub"
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Gateway:
    """``open`` starts it; ``version`` says which it is, raising ``NotStarted`` when absent."""

    name: str
    open: Callable[[Upstream], Door]
    version: Callable[[], str]


def absent(peer: str) -> NotStarted:
    """Why a peer is not there, as far as its installation knows."""
    kept = PEERS / f"{peer}.reason"
    if kept.is_file():
        return NotStarted(f"{peer} could not be installed: {kept.read_text('utf-8')[:200]}")
    return NotStarted(f"{peer} is not installed; make peers installs it")


def peer_program(peer: str, name: str) -> str:
    """The program's path in the peer's own environment. Raises ``NotStarted``."""
    path = PEERS / peer / "bin" / name
    if not path.is_file():
        raise absent(peer)
    return str(path)


def peer_version(peer: str) -> Callable[[], str]:
    """Reads the installed version from the package's own record."""

    def version() -> str:
        folder = peer.replace("-", "_")
        records = list((PEERS / peer).glob(f"lib/python*/site-packages/{folder}-*.dist-info"))
        if not records:
            raise absent(peer)
        return records[0].name.removeprefix(f"{folder}-").removesuffix(".dist-info")

    return version


def own_version() -> str:
    """Of this checkout."""
    import tightloop

    return tightloop.__version__


def started(
    argv: list[str],
    port: int,
    path: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Program:
    """The program, once it answers ``path``. Raises ``NotStarted``."""
    program = Program(argv, env=env, cwd=cwd)
    try:
        program.wait_for_http(port, path, START_LIMIT_S)
    except BaseException:
        program.end()
        raise
    return program


def direct(upstream: Upstream) -> Door:
    """No gateway: what the upstream, the kernel and the client take."""
    return Door(upstream.http_port, None, websocket=RESPONSES)


def nginx(upstream: Upstream) -> Door:
    """One worker, upstream connections kept, nothing buffered."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise absent("nginx")
    port, folder = free_port(), upstream.folder / "nginx"
    folder.mkdir(parents=True)
    temporary = "\n".join(
        f"{kind}_temp_path {folder};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
access_log off; client_max_body_size 50m; client_body_buffer_size 4m; keepalive_requests 1000000;
client_body_temp_path {folder}; {temporary}
upstream u {{ server 127.0.0.1:{upstream.http_port}; keepalive 300; keepalive_requests 1000000; }}
map $http_upgrade $connection_field {{ default upgrade; '' ''; }}
server {{ listen 127.0.0.1:{port} backlog=2048; location / {{
proxy_pass http://u; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_field;
proxy_read_timeout 600s; }} }} }}
"""
    )
    argv = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Door(port, started(argv, port, "/health"), websocket=RESPONSES)


def nginx_version() -> str:
    """As it says itself."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise absent("nginx")
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"nginx/(\S+)", said)
    return found[1] if found else said.strip()


def litellm(upstream: Upstream) -> Door:
    """The proxy without database and Redis. Its WebSocket needs an upstream with TLS."""
    port, folder, key = free_port(), upstream.folder / "litellm", f"sk-{secrets.token_hex(24)}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"""model_list:
  - model_name: stub
    litellm_params: {{model: openai/stub, api_base: "http://127.0.0.1:{upstream.http_port}/v1", api_key: sk-x}}
  - model_name: stub-ws
    litellm_params: {{model: openai/stub, api_base: "https://127.0.0.1:{upstream.https_port}/v1", api_key: sk-x}}
litellm_settings: {{num_retries: 0, request_timeout: 60, telemetry: false, ssl_verify: false}}
general_settings: {{master_key: {key}}}
"""
    )
    argv = [
        *(peer_program("litellm", "litellm"), "--config", str(folder / "config.yaml")),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
        *("--keepalive_timeout", "600"),
    ]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "SSL_VERIFY": "False"}
    program = started(argv, port, "/health/liveliness", env=env, cwd=folder)
    return Door(port, program, websocket=RESPONSES, key=key, websocket_model="stub-ws")


def agentic_api(upstream: Upstream) -> Door:
    """vLLM's Responses gateway with a fresh SQLite file."""
    port, folder = free_port(), upstream.folder / "agentic-api"
    folder.mkdir(parents=True)
    argv = [
        peer_program("agentic-api", "agentic-server"),
        *("--llm-api-base", f"http://127.0.0.1:{upstream.http_port}", "--skip-llm-ready-check"),
        *("--gateway-host", "127.0.0.1", "--gateway-port", str(port)),
        *("--db-url", f"sqlite://{folder}/state.db?mode=rwc"),
    ]
    program = started(argv, port, "/health", cwd=folder)
    return Door(port, program, websocket=RESPONSES)


def vllm_router(policy: str) -> Callable[[Upstream], Door]:
    """One worker behind it."""

    def opened(upstream: Upstream) -> Door:
        port = free_port()
        argv = [
            *(peer_program("vllm-router", "vllm-router"), "--host", "127.0.0.1"),
            *("--port", str(port), "--worker-urls", f"http://127.0.0.1:{upstream.http_port}"),
            *("--policy", policy, "--prometheus-port", str(free_port())),
        ]
        door = Door(port, started(argv, port, "/health", cwd=upstream.folder))
        if policy == "cache_aware":
            door.responses = ""  # the policy concerns chat alone here
            door.notes.append(
                "vllm-router cache_aware sends the whole body to the worker's /render before the "
                "request itself; the stub renders nothing, a real vLLM would"
            )
        return door

    return opened


def smg(upstream: Upstream) -> Door:
    """Shepherd model gateway, default policy."""
    port = free_port()
    argv = [
        *(peer_program("smg", "smg"), "launch", "--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", f"http://127.0.0.1:{upstream.http_port}"),
        *("--prometheus-port", str(free_port())),
    ]
    return Door(port, started(argv, port, "/health", cwd=upstream.folder))


def sglang_router(upstream: Upstream) -> Door:
    """smg's predecessor."""
    port = free_port()
    program = peer_program("sglang-router", "sglang-router")
    argv = [
        *(program, "launch", "--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", f"http://127.0.0.1:{upstream.http_port}"),
        *("--prometheus-port", str(free_port())),
    ]
    note = (
        "sglang-router writes without TCP_NODELAY: about 44 ms on a kept connection, little on a "
        "new one; its Responses API refuses tool outputs without an id"
    )
    running = started(argv, port, "/health", cwd=upstream.folder)
    return Door(port, running, responses="", notes=[note])


def tightloop(upstream_url: Callable[[Upstream], str]) -> Callable[[Upstream], Door]:
    """``tightloop serve`` as anybody starts it, as a gateway."""

    def opened(upstream: Upstream) -> Door:
        name = f"remote:stub@{upstream_url(upstream)}"
        state = upstream.folder / f"tightloop-{free_port()}"
        argv = [
            *(sys.executable, "-m", "tightloop", "serve", "--model", name),
            *("--port", "0", "--json-ready", "--state-dir", str(state)),
        ]
        return own_door(Program(argv, has_commands=True, env={"OPENAI_API_KEY": "sk-x"}))

    return opened


def tightloop_scripted(_upstream: Upstream) -> Door:
    """tightloop's server over an engine that costs next to nothing; no upstream."""
    argv = [sys.executable, "-m", "benchmarks.peers.scripted_server"]
    env = {"PYTHONPATH": os.pathsep.join([str(PEERS.parent), os.environ.get("PYTHONPATH", "")])}
    return own_door(Program(argv, has_commands=True, env=env))


def own_door(program: Program) -> Door:
    """To a server that says its URL as the first line of its output."""
    try:
        port = urlsplit(program.read_line()["url"]).port
        assert port is not None
        program.wait_for_http(port, "/health")
    except BaseException:
        program.end()
        raise
    return Door(port, program, websocket=RESPONSES)


GATEWAYS = (
    Gateway("direct", direct, own_version),
    Gateway("nginx", nginx, nginx_version),
    Gateway("vllm-router", vllm_router("round_robin"), peer_version("vllm-router")),
    Gateway("vllm-router cache_aware", vllm_router("cache_aware"), peer_version("vllm-router")),
    Gateway("smg", smg, peer_version("smg")),
    Gateway("sglang-router", sglang_router, peer_version("sglang-router")),
    Gateway("agentic-api", agentic_api, peer_version("agentic-api")),
    Gateway("litellm", litellm, peer_version("litellm")),
    Gateway("tightloop scripted", tightloop_scripted, own_version),
    Gateway("tightloop", tightloop(lambda up: f"http://127.0.0.1:{up.http_port}/v1"), own_version),
    Gateway("tightloop ws", tightloop(lambda up: f"ws://127.0.0.1:{up.http_port}/v1"), own_version),
)
