"""Install the projects that warm test runs are checked against, from their source distributions.

Runs with the standard library of Python 3.11+ alone; called by the Makefile. ``projects/sdists.txt``
pins the sources, ``projects/NAME.txt`` what each project's tests need, all with hashes. Each project
gets a folder with its sources, an environment in ``.venv`` that imports them from there, and a git
repository with one commit. A folder that is complete carries the digest of its pins, so running
this again costs nothing.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "projects"
STAMP = ".complete"
IDENTITY = ("-c", "user.name=projects", "-c", "user.email=projects@example.org")


@dataclass(frozen=True, slots=True)
class Source:
    """One pinned source distribution; ``line`` is its requirement with the hash."""

    name: str
    version: str
    line: str

    def digest(self) -> str:
        """Changes with the pins, with this program and with the interpreter."""
        made_with = f"{sys.version_info[:3]} {sys.platform} {self.line}"
        contents = [Path(__file__).read_bytes(), (PINS / f"{self.name}.txt").read_bytes()]
        return hashlib.sha256(b"\0".join([made_with.encode(), *contents])).hexdigest()


def sources() -> list[Source]:
    """What ``sdists.txt`` names."""
    found = []
    for line in (PINS / "sdists.txt").read_text("utf-8").splitlines():
        requirement = line.split("  #")[0].strip()
        if requirement and not requirement.startswith("#"):
            name, _, version = requirement.split()[0].partition("==")
            found.append(Source(name, version, requirement))
    return found


def stop(text: str) -> None:
    """Leave with one line that says what to do."""
    sys.exit(f"projects not installed: {text}")


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> bool:
    """Whether one command ends well; its output is shown only when it does not."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    return done.returncode == 0


def make_environment(folder: Path, requirements: Path, *, with_pip: bool = False) -> None:
    """An environment with hashed requirements: by uv when there is one, else by pip."""
    pinned = ("install", "-q", "--require-hashes", "-r", requirements)
    env = {"UV_SYSTEM_CERTS": "true", **os.environ, "VIRTUAL_ENV": str(folder)}
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    venv.create(folder, clear=True, with_pip=with_pip, symlinks=True)
    if uv is not None and run(uv, "pip", *pinned, "--compile-bytecode", env=env):
        return
    if not with_pip:
        venv.create(folder, clear=True, with_pip=True, symlinks=True)
    if not run(folder / "bin" / "python", "-m", "pip", *pinned):
        stop(f"pip could not install {requirements.name}; its output is above")


def download(source: Source, tools: Path, into: Path) -> Path:
    """The archive, its hash checked by pip."""
    if not (tools / STAMP).is_file():
        make_environment(tools, PINS / "tools.txt", with_pip=True)
        (tools / STAMP).touch()
    wanted = into / "wanted.txt"
    wanted.write_text(f"{source.line}\n", "utf-8")
    pip = (tools / "bin" / "python", "-m", "pip", "download", "-q", "--no-deps")
    options = ("--no-binary", ":all:", "--no-build-isolation", "--require-hashes")
    if not run(*pip, *options, "-r", wanted, "-d", into):
        stop(f"pip could not download {source.name} {source.version}; its output is above")
    return next(into.glob("*.tar.gz"))


def unpack(archive: Path, folder: Path) -> None:
    """The archive's only directory becomes the folder."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        with tarfile.open(archive) as packed:
            packed.extractall(name, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        next(Path(name).iterdir()).rename(folder)


def connect(source: Source, folder: Path) -> None:
    """The environment finds the project in its folder, as after an editable installation."""
    packages = next((folder / ".venv" / "lib").glob("python*/site-packages"))
    code = folder / "src" if (folder / "src").is_dir() else folder
    (packages / f"{source.name}.pth").write_text(f"{code}\n", "utf-8")
    metadata = packages / f"{source.name}-{source.version}.dist-info"
    metadata.mkdir()
    shutil.copyfile(folder / "PKG-INFO", metadata / "METADATA")


def commit(folder: Path) -> None:
    """One commit of everything but the environment."""
    if not run("git", "init", "-q", cwd=folder):
        stop("git could not make a repository; is it on the PATH?")
    with (folder / ".git" / "info" / "exclude").open("a") as exclude:
        exclude.write(f".venv/\n__pycache__/\n.pytest_cache/\n{STAMP}\n")
    if not run("git", "add", "-A", ".", cwd=folder):
        stop(f"git could not add {folder}; its output is above")
    if not run("git", *IDENTITY, "commit", "-q", "-m", "as distributed", cwd=folder):
        stop(f"git could not commit {folder}; its output is above")


def check(source: Source, folder: Path) -> None:
    """The environment imports the project from the folder."""
    module = {"attrs": "attr"}.get(source.name, source.name)
    program = f"import {module} as m, sys; sys.exit(not m.__file__.startswith({str(folder)!r}))"
    if not run(folder / ".venv" / "bin" / "python", "-c", program, cwd=folder.parent):
        stop(f"{source.name} cannot be imported from {folder}")


def install(source: Source, into: Path) -> None:
    """Leave one project installed."""
    folder = into / source.name
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text("utf-8") == source.digest():
        return
    print(f"installing {source.name} {source.version} into {folder} (once)", flush=True)
    with tempfile.TemporaryDirectory(dir=into) as name:
        unpack(download(source, into / "tools", Path(name)), folder)
    commit(folder)
    make_environment(folder / ".venv", PINS / f"{source.name}.txt")
    connect(source, folder)
    check(source, folder)
    stamp.write_text(source.digest(), "utf-8")


def main() -> None:
    """Leave every project installed under --into, or leave with what is in the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    into: Path = parser.parse_args().into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    for source in sources():
        install(source, into)


if __name__ == "__main__":
    main()
