"""Codex CLI as ``make clients`` installs it, configured for one server and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import aiohttp

from benchmarks.lab.processes import NotStarted

CLIENTS = Path(__file__).resolve().parent.parent.parent / ".clients"
MODEL = "scripted"
SANDBOXED, UNCONFINED = "workspace-write", "danger-full-access"


def program() -> Path:
    """Its start script. Raises NotStarted when it is not installed."""
    path = CLIENTS / "npm" / "node_modules" / ".bin" / "codex"
    if not path.exists():
        raise NotStarted("Codex CLI is not installed; make clients installs it")
    return path


def native_program() -> Path:
    """The program that the start script runs. Raises NotStarted."""
    found = list(program().parent.parent.glob("@openai/codex-*/vendor/*/bin/codex"))
    if not found:
        raise NotStarted("the native program of Codex CLI is not where its package has it")
    return found[0]


def version() -> str:
    """As it says itself."""
    said = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1]


def versions() -> dict[str, str]:
    """For a result; nothing when it is not installed."""
    try:
        return {"codex": version()}
    except NotStarted:
        return {}


def home_environment(home: Path, tmp: Path, proxy: str) -> dict[str, str]:
    """What an agent may see of this machine; ``proxy`` stands for the rest of the world.

    Codex refuses a home below ``TMPDIR``, and runs commands in login shells, which forget the PATH.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    (home / ".profile").write_text(f'PATH="{path}"\n', "utf-8")
    return {
        "HOME": str(home),
        "TMPDIR": str(tmp),
        "PATH": path,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }


async def configure(home: Path, url: str, mode: str) -> dict[str, str]:
    """Write its configuration; the variables it needs besides ``home_environment``'s.

    ``mode`` is its sandbox mode. Its own defaults stand but for what would reach other hosts.
    """
    folder = home / "codex"
    folder.mkdir(exist_ok=True)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/models") as answer:
        catalog = await answer.json()
    for entry in catalog["models"]:
        entry["use_responses_lite"] = False
    (folder / "catalog.json").write_text(json.dumps(catalog), "utf-8")
    lines = [
        f'model = "{MODEL}"',
        'model_provider = "tightloop"',
        'approval_policy = "never"',
        f'sandbox_mode = "{mode}"',
        "check_for_update_on_startup = false",
        f"model_catalog_json = {json.dumps(str(folder / 'catalog.json'))}",
        *("[features]", "apps = false", "plugins = false"),
        *("[analytics]", "enabled = false", "[feedback]", "enabled = false"),
        *("[otel]", 'exporter = "none"', 'trace_exporter = "none"', 'metrics_exporter = "none"'),
        *("[model_providers.tightloop]", 'name = "tightloop"', f'base_url = "{url}"'),
        *('env_key = "TIGHTLOOP_API_KEY"', 'wire_api = "responses"', "supports_websockets = true"),
    ]
    (folder / "config.toml").write_text("\n".join(lines) + "\n", "utf-8")
    return {"CODEX_HOME": str(folder), "TIGHTLOOP_API_KEY": "none needed"}
