"""A project's own ``.venv``: shown in its workspaces, read-only, without a copy.

It holds absolute paths of the place it was made for. Its programs still find it there, because
that place stays readable. What it says about the project's own sources (editable installations)
must lead to the workspace instead, or tests would run what the user's tree holds.
"""

import ast
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tightloop.sandbox.layers import hide_from_git

NAME = ".venv"


def own_layer(repository: Path, base: Path, links: Path) -> Path | None:
    """A layer that shows the repository's ``.venv`` through a link; None if it has none to show.

    A real directory with a ``pyvenv.cfg`` that is not part of the base: a link could lead to
    anything of the user's.
    """
    place = repository / NAME
    if place.is_symlink() or not (place / "pyvenv.cfg").is_file() or os.path.lexists(base / NAME):
        return None
    with_history = "-git" if (base / ".git").is_dir() else ""
    digest = hashlib.sha256(os.fsencode(repository)).hexdigest()
    layer = links / f"{digest[:32]}{with_history}"
    if layer.is_dir():
        return layer
    links.mkdir(mode=0o700, parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="making-", dir=links))
    (making / NAME).symlink_to(place)
    hide_from_git(making, base)
    making.chmod(0o755)
    try:
        making.rename(layer)
    except OSError:  # another process was as quick
        shutil.rmtree(making)
    return layer


def editable_directories(environment: Path, root: Path) -> list[str]:
    """Directories below ``root`` that the environment imports from, relative to it, in order.

    Read from the ``.pth`` files of its site-packages, and from the finders that setuptools writes
    for projects whose layout a path cannot express.
    """
    found: dict[str, None] = {}
    for packages in sorted(environment.glob("lib/python*/site-packages")):
        for name in sorted(os.listdir(packages)):
            if name.endswith(".pth"):
                found.update(dict.fromkeys(_below(root, _paths_of(packages / name))))
            elif name.startswith("__editable__") and name.endswith("_finder.py"):
                found.update(dict.fromkeys(_below(root, _mapped(packages / name))))
    return list(found)


def _below(root: Path, paths: Iterator[str]) -> Iterator[str]:
    for path in paths:
        for known in dict.fromkeys((root, Path(os.path.realpath(root)))):
            if Path(path).is_relative_to(known):
                yield Path(path).relative_to(known).as_posix()
                break


def _paths_of(file: Path) -> Iterator[str]:
    """Lines that are paths (documentation of the standard module ``site``)."""
    for line in file.read_text(errors="replace").splitlines():
        if line.startswith("/"):
            yield os.path.normpath(line.rstrip())


def _mapped(file: Path) -> Iterator[str]:
    """Where the top packages of setuptools' ``MAPPING`` lie."""
    try:
        statements = ast.parse(file.read_text(errors="replace")).body
    except SyntaxError:
        return
    for statement in statements:
        targets = list(statement.targets) if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if not any(isinstance(target, ast.Name) and target.id == "MAPPING" for target in targets):
            continue
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if not isinstance(value, ast.Dict):
            continue
        for place in value.values:
            if isinstance(place, ast.Constant) and isinstance(place.value, str):
                yield os.path.dirname(os.path.normpath(place.value))
