"""What one command line asks for, as words over the connection.

Imports nothing that an interpreter has not imported by itself: this is the hot path of the near
end. So no dataclasses, no argparse, no pathlib, no hashing library.
"""

import os

from tightloop import __version__

PROTOCOL = f"2 {__version__}"
FLAGS = {
    "--cold": "cold",
    "--audit": "audit",
    "--json": "json",
    "--stop": "stop",
    "--status": "status",
    "--warm-again": "warm-again",
}
OPTIONS = {
    "--policy": "policy",
    "--python": "python",
    "--root": "root",
    "--config": "config",
    "--idle": "idle",
    "--state-dir": "state_dir",
}
RUN, STOP, STATUS, WARM_AGAIN = "run", "stop", "status", "warm-again"
MAX_REQUEST_BYTES = 200_000
_ROOT_MARKERS = (
    *("pyproject.toml", "pytest.ini", "tox.ini", "setup.py", "setup.cfg", ".tightloop.toml"),
    *(".venv", ".git", ".hg"),
)
_KEPT = frozenset(
    ("LANG", "LANGUAGE", "TERM", "TZ", "USER", "LOGNAME", "HOME", "COLORTERM", "SHELL", "PATH")
)
_FIELDS = (
    *("protocol", "verb", "action", "mode", "is_json", "color", "rows", "columns"),
    *("directory", "root", "python", "policy", "config", "idle_min", "began_ns"),
)


class BadUsage(Exception):
    """The command line cannot be meant; the text says what would do."""


class Asked:
    """One request. Every field is a string; ``words`` are pytest's, or the name of a warm command.

    ``mode`` is empty, ``cold`` or ``audit``; ``rows`` and ``columns`` are empty where standard
    output is no terminal; ``color`` is ``yes`` or ``no`` where the user's variables decide;
    ``began_ns`` is a reading of the monotonic clock, when the command line began.
    """

    __slots__ = (*_FIELDS, "environment", "words")

    protocol: str
    verb: str
    action: str
    mode: str
    is_json: str
    color: str
    rows: str
    columns: str
    directory: str
    root: str
    python: str
    policy: str
    config: str
    idle_min: str
    began_ns: str

    def __init__(self, fields: list[str], words: list[str], environment: list[str]) -> None:
        for name, value in zip(_FIELDS, fields, strict=True):
            setattr(self, name, value)
        self.words = words
        self.environment = environment

    @property
    def since_ns(self) -> int:
        """``began_ns`` as a number; 0 when it is not known."""
        return int(self.began_ns) if self.began_ns.isdecimal() else 0

    @property
    def identity(self) -> str:
        """Equal for requests that the same background process may serve."""
        return "\0".join(
            (self.root, self.python, self.policy, self.config, *sorted(self.environment))
        )

    @property
    def name(self) -> str:
        """Of the background process's files. Begins with what all those of one project have."""
        return f"{place_mark(self.root)}-{_mark(self.identity, 107):027x}"

    def encode(self) -> bytes:
        """One message."""
        fields = [getattr(self, name) for name in _FIELDS]
        words = [str(len(self.words)), *self.words, *self.environment]
        return "\0".join([*fields, *words]).encode("utf-8", "surrogateescape")


def decode(data: bytes) -> Asked:
    """The message's request. Raises ValueError for anything else."""
    parts = data.decode("utf-8", "surrogateescape").split("\0")
    fields, rest = parts[: len(_FIELDS)], parts[len(_FIELDS) :]
    count = int(rest[0]) if rest and rest[0].isdecimal() else -1
    if not 0 <= count < len(rest):
        raise ValueError("not a request of tightloop test")
    return Asked(fields, rest[1 : 1 + count], rest[1 + count :])


def place_mark(root: str) -> str:
    """Of a project's directory, for names of files."""
    return f"{_mark(root, 61):016x}"


def _mark(text: str, bits: int) -> int:
    """Remainder by a Mersenne prime: spread well enough for names, and there without an import.

    Two texts with one mark are told apart by whoever gets the request.
    """
    return int.from_bytes(text.encode("utf-8", "surrogateescape")) % ((1 << bits) - 1)


def read_words(verb: str, given: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our own options, wherever they stand before ``--``, and the words for pytest.

    Raises BadUsage for an option without its value, or two that exclude each other.
    """
    own: dict[str, str] = {}
    words: list[str] = []
    position = 0
    while position < len(given):
        word = given[position]
        position += 1
        if word == "--":
            words += given[position:]
            break
        name, is_joined, value = word.partition("=")
        if word in FLAGS:
            own[FLAGS[word]] = "yes"
        elif name in OPTIONS:
            if not is_joined:
                if position == len(given):
                    raise BadUsage(f"{name} needs a value")
                value = given[position]
                position += 1
            own[OPTIONS[name]] = value
        else:
            words.append(word)
    chosen = [f"--{name}" for name in ("cold", "audit", STOP, STATUS, WARM_AGAIN) if name in own]
    if len(chosen) > 1:
        raise BadUsage(f"{chosen[0]} and {chosen[1]} exclude each other")
    idle = own.get("idle", "")
    if idle and not (idle.isdecimal() and 0 < int(idle) <= 10_000):
        raise BadUsage(f"--idle must be minutes from 1 to 10000, got {idle!r}")
    return own, words


def ask(
    verb: str, given: list[str], environment: dict[str, str], directory: str, began_ns: int = 0
) -> Asked:
    """The request that a command line is. Raises BadUsage."""
    own, words = read_words(verb, given)
    root = find_root(directory, own.get("root", ""))
    rows, columns = "", ""
    if os.isatty(1) and "json" not in own and environment.get("TERM") != "dumb":
        size = os.get_terminal_size(1)
        rows, columns = str(size.lines or 24), str(size.columns or 80)
    action = next((name for name in (STOP, STATUS, WARM_AGAIN) if name in own), RUN)
    mode = next((name for name in ("cold", "audit") if name in own), "")
    config = own.get("config") or environment.get("TIGHTLOOP_CONFIG", "")
    fields = [
        *(PROTOCOL, verb, action, mode, own.get("json", ""), _color(environment), rows, columns),
        *(directory, root, _python(own.get("python", ""), root, environment, directory)),
        *(own.get("policy", ""), _absolute(config, directory), own.get("idle", "")),
        str(began_ns),
    ]
    kept = [f"{name}={value}" for name, value in environment.items() if _is_kept(name)]
    if any("\0" in word for word in words):
        raise BadUsage("an argument holds a NUL character")
    return Asked(fields, words, kept)


def find_root(directory: str, given: str) -> str:
    """The project: what is given, else the nearest directory upwards that looks like one's top.

    Raises BadUsage for a place that is none, or that the directory is not in.
    """
    if given:
        root = os.path.realpath(os.path.join(directory, given))
        if not os.path.isdir(root):
            raise BadUsage(f"--root: {given!r} is not a directory")
        if directory != root and not directory.startswith(root.rstrip("/") + "/"):
            raise BadUsage(f"--root: {directory} is not in {root}")
        return root
    place = directory
    while place != "/":
        for marker in _ROOT_MARKERS:
            if os.path.exists(f"{place}/{marker}"):
                return place
        place = os.path.dirname(place)
    return directory


def _python(given: str, root: str, environment: dict[str, str], directory: str) -> str:
    """The project's interpreter: the given one, the project's own, the activated one, or empty."""
    if given:
        path = given if "/" in given else _on_path(given, environment.get("PATH", ""))
        path = os.path.join(directory, path)
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            raise BadUsage(f"--python: {given!r} is no program")
        return os.path.normpath(path)
    for place in (f"{root}/.venv", environment.get("VIRTUAL_ENV", "")):
        if place and os.path.exists(f"{place}/bin/python"):
            return f"{place}/bin/python"
    return ""


def _on_path(name: str, path: str) -> str:
    for place in path.split(":"):
        if place and os.access(f"{place}/{name}", os.X_OK):
            return f"{place}/{name}"
    raise BadUsage(f"--python: there is no {name!r} on the PATH")


def _color(environment: dict[str, str]) -> str:
    """What pytest would read from variables that do not get into the sandbox, in its order."""
    wanted = environment.get("PY_COLORS")
    if wanted in ("0", "1"):
        return "yes" if wanted == "1" else "no"
    if environment.get("NO_COLOR"):
        return "no"
    return "yes" if environment.get("FORCE_COLOR") else ""


def _absolute(path: str, directory: str) -> str:
    return os.path.join(directory, path) if path else ""


def _is_kept(name: str) -> bool:
    return name in _KEPT or name.startswith("LC_")


def state_place(own: str, environment: dict[str, str]) -> str:
    """Where the files of background processes lie: as ``trace.log.state_directory`` has it."""
    base = own or environment.get("TIGHTLOOP_STATE_DIR", "")
    if not base:
        home = environment.get("HOME") or os.path.expanduser("~")
        base = (environment.get("XDG_STATE_HOME") or f"{home}/.local/state") + "/tightloop"
    return os.path.abspath(base) + "/test"
