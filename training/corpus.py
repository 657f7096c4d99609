"""Downloads the pinned corpus and cuts it into functions: `python -m training.corpus`.

Every file is admitted by its distribution's own licence metadata. Whole distributions and standard
library modules are held out for evaluation; training functions that resemble held-out ones are dropped.
"""

import argparse
import ast
import email
import hashlib
import json
import random
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tightloop.engine.patchling.layout import view_function

HERE = Path(__file__).parent
HELD_OUT = (
    "click", "attrs", "flask", "more-itertools", "sortedcontainers", "tabulate", "wcwidth",
    "boltons", "toolz",
)  # fmt: skip
HELD_OUT_STDLIB = (
    "textwrap", "statistics", "heapq", "bisect", "fnmatch", "shlex", "difflib", "string",
    "colorsys", "calendar", "fractions", "posixpath", "ntpath", "genericpath", "mimetypes",
    "base64", "html/__init__", "html/parser", "copy", "pprint", "reprlib", "graphlib", "ipaddress",
    "urllib/parse", "csv", "glob", "gettext", "quopri", "random", "numbers", "operator", "stringprep",
    "nturl2path", "locale", "cmd", "getopt", "sched", "opcode", "tabnanny", "uuid", "imghdr",
)  # fmt: skip
SKIPPED_PARTS = frozenset((
    "_vendor", "vendor", "vendored", "_vendored", "tests", "test", "testing", "externals", "extern",
    "lib2to3", "idlelib", "turtledemo", "site-packages", "dist-packages", "ensurepip", "third_party",
))  # fmt: skip
ALLOWED = (
    ("apache", "Apache-2.0"), ("mit-cmu", "MIT-CMU"), ("mit", "MIT"), ("bsd", "BSD"),
    ("isc", "ISC"), ("psf", "PSF-2.0"), ("python software foundation", "PSF-2.0"),
)  # fmt: skip
DENIED = ("gpl", "gnu ", "mpl", "mozilla", "eupl", "cddl", "epl", "artistic", "proprietary", "sspl")
MAX_FUNCTIONS_PER_DISTRIBUTION = 2200
MAX_VIEW_LINES = 40
MAX_VIEW_CHARS = 1500


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the corpus; `file` is relative to the extracted sources."""

    distribution: str
    version: str
    licence: str
    file: str
    qualname: str
    line: int
    source: str


def licence_of(metadata: str) -> str | None:
    """The allow-listed licence a METADATA file declares, or None."""
    fields = email.message_from_string(metadata)
    expression = fields.get("License-Expression") or ""
    classifiers = " ".join(
        value for value in fields.get_all("Classifier", []) if value.startswith("License ::")
    )
    for text in (expression, classifiers, (fields.get("License") or "")[:100]):
        lowered = text.lower()
        if not lowered.strip() or lowered.strip() in ("license :: osi approved", "unknown"):
            continue
        if any(word in lowered for word in DENIED):
            return None
        for word, name in ALLOWED:
            if word in lowered:
                return name
    return None


def wheels(folder: Path, names: list[str]) -> None:
    """Download the named wheels that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for requirement in names:
        name, _, version = requirement.partition("==")
        stem = re.sub(r"[-_.]+", "_", name).lower()
        if any(
            re.sub(r"[-_.]+", "_", p.name)
            .lower()
            .startswith(f"{stem}_{version.replace('.', '_')}_")
            for p in folder.glob("*.whl")
        ):
            continue
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        command += ["--only-binary=:all:", "-d", str(folder), requirement]
        subprocess.run(command, check=True)


def python_files(wheel: Path) -> tuple[str, str, str | None, list[tuple[str, str]]]:
    """(distribution, version, licence, [(path, text)]) of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(n for n in names if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
        text = archive.read(metadata).decode("utf-8", "replace")
        fields = email.message_from_string(text)
        files = [
            (name, archive.read(name).decode("utf-8", "replace"))
            for name in sorted(names)
            if name.endswith(".py") and is_admitted(name)
        ]
    distribution = fields["Name"].lower().replace("_", "-").replace(".", "-")
    return distribution, fields["Version"], licence_of(text), files


def is_admitted(path: str) -> bool:
    parts = Path(path).parts
    name = parts[-1]
    return (
        not (SKIPPED_PARTS & set(parts)) and not name.startswith("test_") and name != "conftest.py"
    )


def stdlib_files() -> list[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if is_admitted(relative) and "config-" not in relative:
            files.append((relative, path.read_text("utf-8", "replace")))
    return files


def functions_of(text: str) -> Iterator[tuple[str, int, str]]:
    """(qualified name, first line, source) of each top-level function and method."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = text.split("\n")

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, int, str]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, prefix + node.name + ".")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                source = "\n".join(lines[first - 1 : node.end_lineno])
                yield prefix + node.name, first, source
            elif isinstance(node, ast.If | ast.Try):
                yield from walk(node.body, prefix)

    yield from walk(tree.body, "")


def view_lines(source: str) -> list[str]:
    return [line.text for line in view_function(source).lines]


class Overlap:
    """Finds training functions that share most of their lines with one held-out function."""

    def __init__(self) -> None:
        self.owners: dict[str, set[int]] = defaultdict(set)
        self.count = 0

    def add(self, lines: list[str]) -> None:
        for line in lines:
            if len(line.strip()) > 8:
                self.owners[line.strip()].add(self.count)
        self.count += 1

    def is_near(self, lines: list[str]) -> bool:
        body = [line.strip() for line in lines if len(line.strip()) > 8]
        votes = Counter(owner for line in set(body) for owner in self.owners.get(line, ()))
        return bool(votes) and max(votes.values()) >= max(2, 0.5 * len(set(body)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    requirements = [
        line for line in (HERE / "corpus.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    wheels(args.data / "wheels", requirements)

    groups: dict[bool, list[Function]] = {True: [], False: []}
    seen_files: set[str] = set()
    manifest: list[dict[str, object]] = []
    sources = [python_files(path) for path in sorted((args.data / "wheels").glob("*.whl"))]
    version = sys.version.split()[0]
    sources.append(("python-stdlib", version, "PSF-2.0", stdlib_files()))
    for distribution, version, licence, files in sources:
        if licence is None:
            print(f"skipped {distribution} {version}: licence not on the allow-list")
            continue
        digest, taken, found = hashlib.sha256(), 0, []
        for path, text in files:
            content = hashlib.sha256(text.encode()).hexdigest()
            if content in seen_files:
                continue
            seen_files.add(content)
            digest.update(f"{path} {content}\n".encode())
            taken += 1
            target = args.data / "sources" / distribution / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
            for name, line, source in functions_of(text):
                file = f"{distribution}/{path}"
                found.append(Function(distribution, version, licence, file, name, line, source))
        is_stdlib = distribution == "python-stdlib"
        for function in found:
            module = function.file.removeprefix("python-stdlib/").removesuffix(".py")
            held = distribution in HELD_OUT or (is_stdlib and module in HELD_OUT_STDLIB)
            groups[held].append(function)
        manifest.append({
            "distribution": distribution, "version": version, "licence": licence,
            "files": taken, "functions": len(found), "sha256": digest.hexdigest(),
        })  # fmt: skip
    write(args.data, groups, manifest, random.Random(args.seed))


def write(
    data: Path,
    groups: dict[bool, list[Function]],
    manifest: list[dict[str, object]],
    rng: random.Random,
) -> None:
    overlap, seen = Overlap(), set()
    with (data / "heldout.jsonl").open("w") as file:
        for function in groups[True]:
            overlap.add(view_lines(function.source))
            file.write(json.dumps(asdict(function)) + "\n")
    kept: dict[str, int] = Counter()
    near = 0
    rng.shuffle(groups[False])
    with (data / "functions.jsonl").open("w") as file:
        for function in groups[False]:
            if kept[function.distribution] >= MAX_FUNCTIONS_PER_DISTRIBUTION:
                continue
            if len(function.source) > 6 * MAX_VIEW_CHARS:
                continue
            lines = view_lines(function.source)
            key = "\n".join(lines)
            if not 2 <= len(lines) <= MAX_VIEW_LINES or len(key) > MAX_VIEW_CHARS or key in seen:
                continue
            seen.add(key)
            if overlap.is_near(lines):
                near += 1
                continue
            kept[function.distribution] += 1
            file.write(json.dumps(asdict(function)) + "\n")
    for row in manifest:
        row["training_functions"] = kept[str(row["distribution"])]
    (data / "manifest.json").write_text(json.dumps(manifest, indent=1))
    print(f"{sum(kept.values())} functions, {len(groups[True])} held out, {near} near-duplicates")


if __name__ == "__main__":
    main()
