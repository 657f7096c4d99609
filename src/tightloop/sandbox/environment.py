"""The environment of commands, decided once per sandbox.

An allow-list of what the user's shell exported, never a login shell per command: rc files cost
tens of milliseconds each time. Everything not named here stays outside, tokens first of all.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = ("LANG", "LANGUAGE", "TERM", "TZ", "USER", "LOGNAME", "HOME", "COLORTERM", "SHELL")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def snapshot(source: Mapping[str, str], workspace: Path) -> dict[str, str]:
    """What commands may know of the variables in ``source``.

    PATH starts with the workspace's own virtual environment, if it has one, then that of the
    running interpreter, so that ``python -m pytest`` finds what the user would get. No byte code
    is written: Python trusts a cached file whose source kept its size within one second, and
    an agent edits faster than that.
    """
    kept = {name: source[name] for name in _KEPT if name in source}
    kept.update({name: value for name, value in source.items() if name.startswith("LC_")})
    directories = [str(Path(sys.executable).parent), *source.get("PATH", _DEFAULT_PATH).split(":")]
    if os.path.exists(workspace / ".venv" / "bin" / "python"):
        directories.insert(0, str(workspace / ".venv" / "bin"))
    kept["PATH"] = ":".join(dict.fromkeys(name for name in directories if name))
    kept.setdefault("LANG", "C.UTF-8")
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return kept


def home_directory() -> Path | None:
    """The user's home if hiding it makes sense; None for ``/`` and for one that is missing."""
    home = Path(os.environ.get("HOME") or os.path.expanduser("~"))
    return home if home != Path("/") and home.is_dir() else None
