"""What the user's login shell exports, asked once and remembered.

An agent that is started by an editor or a service lacks what the shell's start-up files say, the
search path above all. A login shell per command would say it, and would cost tens to hundreds of
milliseconds each time. So the shell is run once, beside other preparations, and its answer is
kept until one of the files changes. Variables only: functions and aliases of one shell break in
another, and replaying them costs seconds. Only what commands may know is kept on disk.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import pwd
import secrets
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tightloop.sandbox.environment import snapshot
from tightloop.trace.clock import unix_s

DEADLINE_S = 10.0
ASKED = "TIGHTLOOP_LOGIN_SHELL"
"""Set for the shell that is asked. Where it is set already, no shell is asked."""
MAX_AGE_S = 24 * 3600
"""A start-up file may read others, whose changes nobody sees: hence once a day."""
_MAX_BYTES = 1 << 20
_NOWHERE = Path(os.devnull)
_GIVEN = (  # the shell gets these alone, so that its answer depends on nothing else
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "ZDOTDIR",
    "XDG_CONFIG_HOME",
)
_PATH = "/usr/local/bin:/usr/bin:/bin"
_POSIX_FILES = ("/etc/profile", "/etc/profile.d", "/etc/environment", "~/.profile")
_START_UP_FILES = {
    "sh": _POSIX_FILES,
    "dash": _POSIX_FILES,
    "ksh": (*_POSIX_FILES, "~/.kshrc"),
    "bash": (
        *_POSIX_FILES,
        *("/etc/bash.bashrc", "/etc/bashrc"),
        *("~/.bash_profile", "~/.bash_login", "~/.bashrc"),
    ),
    "zsh": (
        *_POSIX_FILES,
        *(f"/etc/{place}{name}" for place in ("", "zsh/") for name in ("zshenv", "zprofile")),
        *(f"/etc/{place}{name}" for place in ("", "zsh/") for name in ("zshrc", "zlogin")),
        *(f"$ZDOTDIR/{name}" for name in (".zshenv", ".zprofile", ".zshrc", ".zlogin")),
    ),
    "fish": (
        *("/etc/fish/config.fish", "/etc/fish/conf.d"),
        *(f"$XDG_CONFIG_HOME/fish/{name}" for name in ("config.fish", "conf.d", "fish_variables")),
    ),
}


class LoginShell:
    """The answer of one login shell, perhaps still to come.

    ``begin`` starts the shell unless the answer is known, ``environment`` waits for what is
    missing, ``close`` ends a shell that nobody waited for.
    """

    def __init__(self, state_dir: Path, given: Mapping[str, str], deadline_s: float) -> None:
        self._own = dict(given)
        self._shell = given.get("SHELL") or _shell_of_user()
        self._kept_in = state_dir / "login-environment" / f"{_digest(self._shell, given)}.json"
        self._deadline_s = deadline_s
        self._stamps: dict[str, list[int]] = {}
        self._variables: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._answer: IO[bytes] | None = None
        self._mark = f"\0{secrets.token_hex(16)}\0".encode()
        self._begun_s = 0.0
        self.is_remembered = False
        """Whether no shell had to be started."""
        self.problem = ""
        """Why nothing is known of the login shell's variables; empty when they are."""

    @classmethod
    async def begin(
        cls,
        state_dir: Path,
        *,
        given: Mapping[str, str] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> "LoginShell":
        """The shell runs, or its answer is known. Never raises for what the user's files do.

        ``given`` are this process's variables. They say which shell it is, and win over its answer.
        """
        shell = cls(state_dir, os.environ if given is None else given, deadline_s)
        if shell._own.get(ASKED):
            return shell
        if Path(shell._shell).name not in _START_UP_FILES:
            shell.problem = f"{shell._shell or 'no login shell'} is none that can be asked"
            return shell
        shell._stamps = stamps(shell._shell, shell._own)
        if not shell._remember():
            await shell._start()
        return shell

    async def environment(self) -> dict[str, str]:
        """The variables of this process, and beside them those that the login shell adds.

        Waits for the shell to end, at most until ``deadline_s`` after it was started; ``problem``
        then tells why nothing was added. May be called again.
        """
        if self._process is not None:
            await self._hear(self._process)
        return merged(self._variables, self._own)

    async def close(self) -> None:
        """Nothing of the shell runs any more. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def _start(self) -> None:
        """Its output goes into a file: a pipe would stay open in whatever the files start."""
        mark = self._mark.decode().replace("\0", r"\000")  # digits may follow the escape
        script = f"printf '{mark}'; command env -0"
        self._begun_s = asyncio.get_running_loop().time()
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(self._shell, "-l", "-c", script),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._answer,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=self._directory(),
                env=self._given(),
                start_new_session=True,  # no terminal that it could ask a question on
            )
        except OSError as error:
            self.problem = f"{self._shell} cannot be started: {error.strerror}"

    def _directory(self) -> str:
        home = self._own.get("HOME", "")
        return home if os.path.isdir(home) else "/"

    def _given(self) -> dict[str, str]:
        known = {name: self._own[name] for name in _GIVEN if name in self._own}
        return {"PATH": _PATH, "TERM": "dumb", "SHELL": self._shell, ASKED: "1", **known}

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        names: list[str] = []
        try:
            async with asyncio.timeout_at(self._begun_s + self._deadline_s):
                await process.wait()
        except TimeoutError:
            self.problem = f"{self._shell} -l did not end within {self._deadline_s:g} seconds"
        else:
            assert self._answer is not None
            variables = parse_answer(self._answer, self._mark)
            if variables is None:
                self.problem = f"{self._shell} -l ended with {process.returncode} and no answer"
            names, self._variables = sorted(variables or {}), allowed(variables or {})
        await self.close()
        await asyncio.to_thread(self._keep, names)

    # -- what is known from before

    def _remember(self) -> bool:
        try:
            kept: dict[str, Any] = json.loads(self._kept_in.read_bytes())
            age_s = unix_s() - int(kept["at_s"])
            variables = {str(name): str(value) for name, value in kept["variables"].items()}
            # What may be known can have grown since.
            missing = allowed(dict.fromkeys(kept["names"], "")).keys() - variables.keys()
            is_valid = kept["stamps"] == self._stamps and 0 <= age_s < MAX_AGE_S and not missing
            problem = str(kept["problem"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        if is_valid:
            self.is_remembered, self._variables, self.problem = True, variables, problem
        return is_valid

    def _keep(self, names: list[str]) -> None:
        """Written as a whole or not at all, for the user alone. A full disk is no reason to fail.

        A shell that gave no answer is remembered too: it would cost every session its deadline.
        """
        kept = {
            "at_s": unix_s(),
            "stamps": self._stamps,
            "names": names,
            "variables": self._variables,
            "problem": self.problem,
        }
        with contextlib.suppress(OSError):
            self._kept_in.parent.mkdir(parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(dir=self._kept_in.parent)  # mode 0600
            with open(fd, "w") as file:
                json.dump(kept, file)
            os.replace(name, self._kept_in)


def merged(login: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """``own``, with what only ``login`` has; directories of both PATHs, ``own`` first.

    The terminal that a program was started from knows better than the start-up files: an
    environment is activated there.
    """
    directories = [*own.get("PATH", "").split(":"), *login.get("PATH", "").split(":")]
    path = ":".join(dict.fromkeys(directory for directory in directories if directory))
    return {**login, **own, **({"PATH": path} if path else {})}


def allowed(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that commands may know, as they are."""
    names = snapshot(variables, _NOWHERE).keys() & variables.keys()
    return {name: variables[name] for name in sorted(names)}


def parse_answer(file: IO[bytes], mark: bytes) -> dict[str, str] | None:
    """The variables after the last mark; None without one.

    Start-up files may print before, background processes after: an entry without a name, or
    that is no UTF-8, is none.
    """
    file.seek(0)
    said = file.read(_MAX_BYTES)
    if mark not in said:
        return None
    variables = {}
    for entry in said.rpartition(mark)[2].split(b"\0")[:-1]:
        name, equals, value = entry.partition(b"=")
        if name and equals:
            with contextlib.suppress(UnicodeDecodeError):
                variables[name.decode()] = value.decode()
    return variables


def stamps(shell: str, given: Mapping[str, str]) -> dict[str, list[int]]:
    """By path: what changes when the file does; an empty list for one that is missing."""
    return {str(path): _stamp(path) for path in [Path(shell), *_files(shell, given)]}


def _files(shell: str, given: Mapping[str, str]) -> Iterator[Path]:
    home = given.get("HOME") or os.path.expanduser("~")
    places = {
        "~": home,
        "$ZDOTDIR": given.get("ZDOTDIR") or home,
        "$XDG_CONFIG_HOME": given.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"),
    }
    for name in _START_UP_FILES[Path(shell).name]:
        first, slash, rest = name.partition("/")
        path = Path(f"{places.get(first, first)}{slash}{rest}")
        yield path
        yield from _entries(path)


def _entries(path: Path) -> Iterable[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]


def _shell_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        return ""


def _digest(shell: str, given: Mapping[str, str]) -> str:
    key = json.dumps([shell, {name: given[name] for name in _GIVEN if name in given}])
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:24]


async def _end(process: asyncio.subprocess.Process) -> None:
    """The shell is dead and reaped, and so is what it left in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
