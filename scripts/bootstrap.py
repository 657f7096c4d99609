"""Create the virtual environment and install the pinned requirements into it.

Runs with the standard library of Python 3.11+ alone; called by the Makefile. uv does the
installing: it is taken from PATH, else put into the new environment with pip.
"""

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

UV = "uv==0.13.9"


def succeeds(*command: str, env: dict[str, str]) -> bool:
    """Whether one command ends well."""
    return subprocess.run(command, check=False, env=env).returncode == 0


def run(*command: str, env: dict[str, str] | None = None) -> None:
    """Run one command; leave with its own output when it fails."""
    done = subprocess.run(command, check=False, env=env)
    if done.returncode:
        sys.exit(f"set-up stopped: {' '.join(command)} ended with status {done.returncode}")


def main() -> None:
    """Leave a ready environment at --venv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--requirements", type=Path, required=True)
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    target: Path = arguments.venv.resolve()
    print(f"setting up {arguments.venv} (once; a minute or so)", flush=True)
    try:
        venv.create(target, clear=True, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:
        sys.exit(
            "set-up stopped: python cannot make virtual environments; "
            "on Debian and Ubuntu install the package python3-venv"
        )
    python = str(target / "bin" / "python")
    uv = shutil.which("uv")
    if uv is None:
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", UV)
        uv = str(target / "bin" / "uv")
    # A proxy's certificate is known to the system, not to uv's own list.
    env = {"UV_SYSTEM_CERTS": "true", **os.environ, "VIRTUAL_ENV": str(target)}
    pinned = ("install", "-q", "--require-hashes", "-r", str(arguments.requirements))
    if not succeeds(uv, "pip", *pinned, env=env):
        print("uv could not install; trying pip, which reads pip's own configuration", flush=True)
        run(python, "-m", "pip", *pinned)
    editable = ("install", "-q", "--no-deps", "-e", str(root))
    if not succeeds(uv, "pip", *editable, env=env):
        run(python, "-m", "pip", *editable)
    if sys.platform == "linux" and shutil.which("bwrap") is None:
        print(
            "note: bubblewrap is missing. The demo runs with weaker isolation (Landlock); the "
            "tests of the sandbox need it. On Debian and Ubuntu: apt install bubblewrap",
            flush=True,
        )


if __name__ == "__main__":
    main()
