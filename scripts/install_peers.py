"""Install the servers that the benchmark measures beside tightloop, each in its own environment.

Runs with the standard library of Python 3.11+ alone; called by the Makefile. ``peers/NAME.txt`` pins
each with hashes. A peer that cannot be installed is left out with its reason printed and kept
(``NAME.reason``), so that the benchmark can say it too: this program fails for none of them. A folder
that is complete carries the digest of its pins, so running this again costs nothing.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "peers"
STAMP = ".complete"
NGINX = "nginx-light"
APT = ("apt-get", "install", "-y", "-q", "--no-install-recommends", NGINX)


def attempt(*command: str, env: dict[str, str] | None = None) -> str:
    """Run one command; "" when it ends well, else the last line that it said."""
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return str(error)
    if not done.returncode:
        return ""
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1] if said else f"{command[0]} ended with status {done.returncode}"


def fill(folder: Path, requirements: Path) -> str:
    """An environment with the pinned packages: by uv when there is one, else by pip."""
    pinned = ("install", "-q", "--require-hashes", "-r", str(requirements))
    env = {"UV_SYSTEM_CERTS": "true", **os.environ, "VIRTUAL_ENV": str(folder)}
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    venv.create(folder, clear=True, with_pip=False, symlinks=True)
    if uv is not None and not attempt(uv, "pip", *pinned, "--compile-bytecode", env=env):
        return ""
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    return attempt(str(folder / "bin" / "python"), "-m", "pip", *pinned)


def install(into: Path, requirements: Path) -> str:
    """Leave the peer installed, or say why not."""
    folder = into / requirements.stem
    contents = [f"{sys.version_info[:2]} {sys.platform}".encode(), requirements.read_bytes()]
    digest = hashlib.sha256(b"\0".join(contents)).hexdigest()
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text("utf-8") == digest:
        return ""
    print(f"installing {requirements.stem} (once)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        reason = fill(folder, requirements)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"no virtual environment: {error}"
    if reason:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        stamp.write_text(digest, "utf-8")
    return reason


def install_nginx() -> str:
    """From the system's packages, as root; else say how to get it."""
    if shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"):
        return ""
    if os.geteuid() or shutil.which("apt-get") is None:
        return f"nginx is not there; install it from the system's packages (Debian: {NGINX})"
    print("installing nginx (once)", flush=True)
    attempt("apt-get", "update", "-q")
    # The package would start a server of its own.
    return attempt(*APT, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"})


def main() -> None:
    """Install what can be installed into --into; print what cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    into: Path = parser.parse_args().into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    reasons = {path.stem: install(into, path) for path in sorted(PINS.glob("*.txt"))}
    for name, reason in {**reasons, "nginx": install_nginx()}.items():
        kept = into / f"{name}.reason"
        kept.unlink(missing_ok=True)
        if reason:
            kept.write_text(reason, "utf-8")
            print(f"{name} is left out: {reason}", flush=True)


if __name__ == "__main__":
    main()
