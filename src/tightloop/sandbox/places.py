"""Which host paths a sandbox hides, and which it must keep readable although they are hidden."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tightloop.sandbox.environment import home_directory
from tightloop.sandbox.interface import Policy, SandboxError
from tightloop.sandbox.layouts import SLOTS
from tightloop.sandbox.risks import PROTECTED_NAMES

SERVER = Path(__file__).with_name("exec_server.py")

_SECRET_FILES = ("/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/gshadow-", "/etc/sudoers")
_SECRET_DIRECTORIES = ("/etc/ssl/private", "/etc/sudoers.d")
_HIDDEN = ("/tmp", "/var/tmp", "/run", "/var/run", "/root", "/home")
# Programs only: none of these holds credentials.
_HOME_TOOLS = (
    ".local/bin",
    ".local/lib",
    ".local/share/uv",
    ".cargo/bin",
    ".rustup",
    ".pyenv",
    ".nvm",
    ".volta",
    ".asdf",
    ".bun/bin",
    ".deno/bin",
    "go/bin",
)
_PROTECTED = sorted(PROTECTED_NAMES - {".git"})
_PROTECTED_IN_GIT = ("config", "config.worktree", "hooks", "info", "commondir", "worktrees")
_MAX_SUBMODULES = 1000


def hidden_directories(policy: Policy) -> list[Path]:
    """Existing directories that must look empty inside, parents first."""
    home = home_directory()
    wanted = [Path(name) for name in (*_HIDDEN, *_SECRET_DIRECTORIES)] + ([home] if home else [])
    mounted = _lines(Path("/proc/self/mountinfo"))
    wanted += [*policy.hidden, *overlay_layers(policy.workspace, mounted), *late_places(mounted)]
    found = {path for path in wanted if os.path.isdir(path) and not os.path.islink(path)}
    return sorted(found - {policy.workspace})


def secret_files() -> list[Path]:
    """Existing files outside of hidden directories that uid 0 could read, and nobody needs."""
    host_keys = Path("/etc/ssh").glob("ssh_host_*_key") if os.path.isdir("/etc/ssh") else ()
    return sorted(path for path in (*map(Path, _SECRET_FILES), *host_keys) if path.is_file())


def tool_chains(policy: Policy, environment: Mapping[str, str]) -> list[Path]:
    """Existing read-only places that commands need: interpreters, PATH tools, policy's own."""
    wanted = [Path(sys.prefix), Path(sys.base_prefix), SERVER.parent, *policy.read_only]
    wanted.append(Path(os.path.realpath(sys.executable)).parent.parent)
    wanted += _interpreter_of(environment)
    home = home_directory()
    if home:
        wanted += [home / name for name in _HOME_TOOLS]
    return sorted({path for path in wanted if os.path.exists(path)} - {Path("/")})


def _interpreter_of(environment: Mapping[str, str]) -> Iterable[Path]:
    """Where the first python on the PATH really lives, with its virtual environment.

    The workspace may have put it there: a link that claims to be python must not open a home
    directory or what lies beside some other file.
    """
    for directory in environment.get("PATH", "").split(":"):
        python = Path(directory, "python")
        if os.path.exists(python):  # unlike Path.exists, False behind a closed directory
            real = Path(os.path.realpath(python))
            places = [real.parent.parent] if _is_interpreter(real) else []
            if os.path.exists(python.parent.parent / "pyvenv.cfg"):
                places += [python.parent.parent, Path(os.path.realpath(python.parent.parent))]
            yield from (place for place in places if not _is_too_wide(place))
            return


def _is_interpreter(program: Path) -> bool:
    is_named_so = program.name.startswith(("python", "pypy"))
    return is_named_so and program.is_file() and os.access(program, os.X_OK)


def _is_too_wide(place: Path) -> bool:
    """Whether it holds a whole hidden place: then it is no prefix of an interpreter."""
    home = home_directory()
    hidden = [Path(name) for name in _HIDDEN] + ([home] if home else [])
    return any(is_below(path, place) for path in hidden)


def protected_paths(policy: Policy) -> list[Path]:
    """Existing paths of the workspace that stay read-only.

    Raises SandboxError for one that is, or lies behind, a symbolic link: the protection would
    cover a decoy.
    """
    wanted = [policy.workspace / name for name in _PROTECTED]
    wanted += [*_inside_git(policy.workspace), *policy.protected]
    found = [path for path in dict.fromkeys(wanted) if os.path.lexists(path)]
    for path in found:
        _refuse_links(policy.workspace, path)
    return found


def _inside_git(workspace: Path) -> list[Path]:
    """What decides which programs git runs: for the repository and for its submodules.

    ``.git`` of a submodule or of another worktree is a file that says where to look.
    """
    git = workspace / ".git"
    if not git.is_dir():
        return [git]
    modules = _submodules(git / "modules")
    return [place / name for place in (git, *modules) for name in _PROTECTED_IN_GIT] + [
        path for module in modules for path in _gitfile_of(module, workspace)
    ]


def _submodules(directory: Path) -> list[Path]:
    """Git directories below it; a module's name may have slashes, and modules have modules."""
    found: list[Path] = []
    waiting = [directory] if directory.is_dir() else []
    while waiting and len(found) < _MAX_SUBMODULES:
        place = waiting.pop()
        is_git = os.path.lexists(place / "HEAD")
        if is_git:
            found.append(place)
        below = [place / "modules"] if is_git else sorted(place.iterdir())
        waiting += [path for path in below if path.is_dir() and not path.is_symlink()]
    return found


def _gitfile_of(module: Path, workspace: Path) -> list[Path]:
    """The file ``.git`` in the submodule's working tree, which its configuration names."""
    try:
        text = (module / "config").read_text(errors="surrogateescape")
    except OSError:
        return []
    trees = re.findall(r"(?m)^\s*worktree\s*=\s*(.+?)\s*$", text)
    places = [Path(os.path.normpath(module / tree), ".git") for tree in trees]
    return [path for path in places if path.is_relative_to(workspace)]


def _refuse_links(workspace: Path, path: Path) -> None:
    if not path.is_relative_to(workspace):
        raise SandboxError(f"protected path {str(path)!r} is not below {str(workspace)!r}")
    for place in [path, *path.parents]:
        if place == workspace:
            return
        if place.is_symlink():
            raise SandboxError(
                f"protected path {str(path)!r} goes through the symbolic link {str(place)!r}: "
                "replace the link by the real file"
            )


def is_below(path: Path, directory: Path) -> bool:
    """Whether a path is the directory or in it. Both are absolute; a tenth of ``is_relative_to``."""
    return path == directory or str(path).startswith(f"{directory}/") or str(directory) == "/"


def overlay_layers(workspace: Path, mounted: Iterable[str]) -> list[Path]:
    """The writable layers beneath an overlay mounted at the workspace, by lines of mountinfo.

    Whoever can reach them directly could forge deletions (kernel: overlayfs.rst).
    """
    layers = []
    for line in mounted:
        fields = line.split(" ")
        if _unescape(fields[4]) == str(workspace) and " - overlay " in line:
            layers += [
                Path(_unescape(option.partition("=")[2]))
                for option in fields[-1].split(",")
                if option.startswith(("upperdir=", "workdir="))
            ]
    return layers


def late_places(mounted: Iterable[str]) -> list[Path]:
    """Directories in which this process mounts workspaces later on, for other sandboxes.

    Their mounts show in every sandbox that has the directory, and not read-only.
    """
    found = set()
    for line in mounted:
        before, name, _ = _unescape(line.split(" ")[4]).partition(f"/{SLOTS}/")
        if name:
            found.add(Path(before, SLOTS))
    return sorted(found)


def _lines(table: Path) -> list[str]:
    """Of one of the kernel's tables: names in them may hold what is no text, or ends a line elsewhere."""
    return os.fsdecode(table.read_bytes()).split("\n")[:-1]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def listening_sockets() -> list[Path]:
    """Unix sockets of the host that have a path.

    A network namespace does not stop them, and neither does a read-only root.
    """
    found = set()
    for line in _lines(Path("/proc/net/unix"))[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/"):
            found.add(Path(fields[7]))
    return sorted(path for path in found if _is_socket(path))


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:  # another user's directory: not reachable from inside either
        return False
