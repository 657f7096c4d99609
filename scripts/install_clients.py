"""Install the agents that the end-to-end tests run, unmodified, from their registries.

Runs with the standard library of Python 3.11+ alone; called by the Makefile. What is installed is
pinned in ``clients/``: npm packages by a lock file, each Python agent by hashed requirements in an
environment of its own, because its pins may contradict ours and one another's. A folder that is
complete carries the digest of its pins, so running this again costs nothing.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "clients"
NPM_FILES = ("package.json", "package-lock.json", ".npmrc")
POST_INSTALL = (
    ("@anthropic-ai/claude-code", "install.cjs"),
    ("opencode-ai", "postinstall.mjs"),
)
"""They put the program of this platform in place. Run by name, with npm's own running of scripts
switched off: npm runs everybody's, or nobody's, depending on its version and configuration."""
STAMP = ".complete"
CHECK_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Part:
    """One folder to install: what its contents depend on, how to fill it, what must then run."""

    name: str
    pins: tuple[Path, ...]
    fill: Callable[[Path], None]
    checks: tuple[tuple[str, ...], ...]
    """Commands, the program relative to the folder; the last word is what they must print."""

    def digest(self) -> str:
        """Changes with the pins, with this program and with the interpreter."""
        made_with = f"{sys.version_info[:2]} {sys.platform}"
        contents = [Path(__file__).read_bytes(), *(path.read_bytes() for path in self.pins)]
        return hashlib.sha256(b"\0".join([made_with.encode(), *contents])).hexdigest()


def stop(text: str) -> None:
    """Leave with one line that says what to do."""
    sys.exit(f"clients not installed: {text}")


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> bool:
    """Whether one command ends well; its output is shown only when it does not."""
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )  # fmt: skip
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    return done.returncode == 0


def fill_npm(folder: Path) -> None:
    """``npm ci`` from the lock file."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            stop(f"{program} is not on the PATH; install Node.js 20 or later, which brings npm")
    for name in NPM_FILES:
        shutil.copyfile(PINS / name, folder / name)
    if not run("npm", "ci", "--ignore-scripts", cwd=folder):
        stop("npm ci failed; its output is above")
    for package, script in POST_INSTALL:
        home = folder / "node_modules" / package
        if not run("node", script, cwd=home):
            stop(f"the post-install step of {package} failed; its output is above")


def fill_python(requirements: Path) -> Callable[[Path], None]:
    """Fill an environment with hashed requirements: by uv when there is one, else by pip."""

    def fill(folder: Path) -> None:
        pinned = ("install", "-q", "--require-hashes", "-r", str(requirements))
        env = {"UV_SYSTEM_CERTS": "true", **os.environ, "VIRTUAL_ENV": str(folder)}
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        venv.create(folder, clear=True, with_pip=False, symlinks=True)
        if uv is not None:
            if run(uv, "pip", *pinned, "--compile-bytecode", env=env):
                return
            print("uv could not; trying pip, which reads pip's own configuration", flush=True)
        venv.create(folder, clear=True, with_pip=True, symlinks=True)
        if not run(str(folder / "bin" / "python"), "-m", "pip", *pinned):
            stop(f"pip could not install {requirements.name}; its output is above")

    return fill


def _version_of(distribution: str) -> tuple[str, ...]:
    pinned = next(
        line.split("==")[1].split()[0]
        for line in (PINS / f"{distribution}.txt").read_text("utf-8").splitlines()
        if line.startswith(f"{distribution}==")
    )
    program = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    return ("bin/python", "-c", program, pinned)


def parts() -> list[Part]:
    """Everything to install."""
    wanted = json.loads((PINS / "package.json").read_text("utf-8"))["dependencies"]
    programs = "node_modules/.bin"
    npm = Part(
        "npm",
        tuple(PINS / name for name in NPM_FILES),
        fill_npm,
        (
            (f"{programs}/codex", "--version", wanted["@openai/codex"]),
            (f"{programs}/claude", "--version", wanted["@anthropic-ai/claude-code"]),
            (f"{programs}/opencode", "--version", wanted["opencode-ai"]),
        ),
    )
    found = [npm]
    for name in ("openai-agents", "mini-swe-agent"):
        requirements = PINS / f"{name}.txt"
        checks = (_version_of(name),)
        found.append(Part(name, (requirements,), fill_python(requirements), checks))
    return found


def check(folder: Path, command: tuple[str, ...]) -> None:
    """A program runs and says that it is the version asked for."""
    program, *arguments, expected = command
    try:
        done = subprocess.run(
            [str(folder / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=CHECK_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"clients not installed: {folder / program} does not run: {error}")
    if done.returncode or expected not in done.stdout.split():
        stop(f"{folder / program} said {done.stdout + done.stderr!r}, expected {expected}")


def main() -> None:
    """Leave every client installed under --into, or leave with what is in the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    into: Path = parser.parse_args().into.resolve()
    for part in parts():
        folder, digest = into / part.name, part.digest()
        stamp = folder / STAMP
        if stamp.is_file() and stamp.read_text("utf-8") == digest:
            continue
        print(f"installing {part.name} into {folder} (once)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        part.fill(folder)
        for command in part.checks:
            check(folder, command)
        stamp.write_text(digest, "utf-8")


if __name__ == "__main__":
    main()
