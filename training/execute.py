"""Runs pure functions and their mutants on generated inputs, in a limited child process.

A function is cut out of its module together with the imports, constants and helpers that it needs;
whatever touches files, time, randomness or the interpreter is refused before anything runs.
"""

import ast
import builtins
import json
import os
import random
import resource
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from _pytest._io.saferepr import saferepr

from tightloop.engine.patchling.report import FailingCase, TestReport, canonical_case
from training.mutate import inject

SAFE_MODULES = frozenset((
    "math", "re", "itertools", "functools", "collections", "collections.abc", "operator", "string",
    "datetime", "decimal", "fractions", "textwrap", "bisect", "heapq", "unicodedata", "struct", "json",
    "copy", "typing", "numbers", "enum", "dataclasses", "base64", "binascii", "colorsys", "calendar",
    "html", "urllib.parse", "statistics", "types", "__future__", "keyword", "cmath", "numbers", "abc",
    "typing_extensions", "posixpath", "ntpath", "array", "zlib", "hashlib", "contextlib", "ast", "ipaddress",
))  # fmt: skip
REFUSED_NAMES = frozenset((
    "open", "exec", "eval", "compile", "input", "__import__", "print", "globals", "locals", "vars",
    "exit", "quit", "breakpoint", "help", "memoryview", "id", "hash", "super", "__file__", "__name__",
    "sys", "os", "warnings", "logging", "logger", "log",
))  # fmt: skip
REFUSED_ATTRIBUTES = frozenset((
    "now", "today", "utcnow", "system", "popen", "remove", "unlink", "__globals__", "__subclasses__",
    "__code__", "__builtins__", "f_globals", "modules",
))  # fmt: skip
MAX_MODULE_LINES = 120
PYTEST_VALUE_CHARS = (80 - 15 - len("==") - 2) // 2
"""How much of either side pytest shows in `assert LEFT == RIGHT` (assertrepr_compare)."""
CHILD_CPU_S = 20
MODULE_FILE = "<module under test>"
CASE_LIMIT_S = 0.15


class Slice:
    """Definitions of one module by name, and what each of them uses."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.tree = ast.parse(text)
        self.nodes: dict[str, ast.stmt] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        for node in self.tree.body:
            self._collect(node)

    def _collect(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                text = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                self.imports[bound] = (alias.name, text)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                text = f"from {module} import {alias.name}"
                text += f" as {alias.asname}" if alias.asname else ""
                self.imports[alias.asname or alias.name] = (module, text)
        elif isinstance(node, ast.FunctionDef):
            self.nodes[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        self.nodes[name.id] = node

    def source(self, node: ast.stmt) -> str:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        return "\n".join(self.lines[first - 1 : node.end_lineno])

    def cut(self, name: str) -> str | None:
        """A module that holds the function and all it needs, or None when that is not pure."""
        needed: list[ast.stmt] = []
        imports: dict[str, None] = {}
        queue = [self.nodes.get(name)]
        while queue:
            node = queue.pop()
            if node is None or any(node is other for other in needed):
                continue
            needed.append(node)
            free = free_names(node)
            if free is None:
                return None
            for used in sorted(free):
                if used in self.nodes:
                    queue.append(self.nodes[used])
                elif used in self.imports:
                    module, text = self.imports[used]
                    if module not in SAFE_MODULES:
                        return None
                    imports[text] = None
                elif not hasattr(builtins, used):
                    return None
        needed.sort(key=lambda node: node.lineno)
        future = [text for _, text in self.imports.values() if "__future__" in text]
        parts = ["\n".join(sorted({*future, *imports}, key=lambda t: "__future__" not in t))]
        parts += [self.source(node) for node in needed]
        module = "\n\n\n".join(part for part in parts if part) + "\n"
        return module if module.count("\n") <= MAX_MODULE_LINES else None


def free_names(node: ast.stmt) -> set[str] | None:
    """Names a definition takes from outside; None when it does something refused."""
    bound: set[str] = set()
    loaded: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            (loaded if isinstance(child.ctx, ast.Load) else bound).add(child.id)
        elif isinstance(child, ast.arg):
            bound.add(child.arg)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(child.name)
        elif isinstance(child, ast.ExceptHandler):
            bound.update([child.name] if child.name else [])
        elif isinstance(child, ast.alias):
            bound.add((child.asname or child.name).split(".")[0])
            if child.name not in SAFE_MODULES and isinstance(node, ast.FunctionDef):
                return None
        elif (isinstance(child, ast.Attribute) and child.attr in REFUSED_ATTRIBUTES) or isinstance(
            child, ast.Global | ast.Nonlocal | ast.Await | ast.AsyncFor | ast.AsyncWith
        ):
            return None
    free = loaded - bound if isinstance(node, ast.FunctionDef) else loaded
    return None if free & REFUSED_NAMES else free


POOL: tuple[str, ...] = (
    "0", "1", "2", "3", "5", "7", "10", "-1", "-4", "12", "100", "0.5", "2.5", "-1.5", "''", "'a'",
    "'abc'", "'hello world'", "'Hello, World'", "'a,b,c'", "'1'", "'12'", "'foo_bar'", "'  x y '",
    "'key=value'", "'a/b/c.txt'", "'2024-01-15'", "[]", "[1, 2, 3]", "[3, 1, 2]", "[1, 2, 2, 3, 5]",
    "['a', 'b']", "['b', 'a', 'c']", "[[1, 2], [3, 4]]", "[(1, 'a'), (2, 'b')]", "(1, 2)",
    "(3, 4, 5)", "{}", "{'a': 1}", "{'a': 1, 'b': 2}", "{1, 2, 3}", "True", "False", "None",
    "[0, 1]", "'x'", "[1.0, 2.0, 4.0]", "b'abc'", "range(5)", "'line one\\nline two'", "'ABC'", "4", "6",
    "20", "255", "'<b>'", "[5, 4, 3, 2, 1]", "{'x': [1, 2]}", "[None, 1]", "str", "int", "len", "abs",
    "(lambda x: x > 1)", "(lambda x: x * 2)", "(lambda a, b: a + b)",
)  # fmt: skip
INTS = ("0", "1", "2", "3", "4", "5", "7", "10", "12", "-1", "-3", "100", "17", "255")
FLOATS = ("0.0", "0.5", "1.0", "2.5", "-1.5", "10.0", "3")
STRINGS = (
    "''", "'a'", "'abc'", "'hello world'", "'Hello, World'", "'a,b,c'", "'12'", "'foo_bar'", "'  x y '",
    "'key=value'", "'a/b/c.txt'", "'line one\\nline two'", "'ABC def'", "'x'", "'http://a.b/c?d=e'",
    "'fooBarBaz'", "'a.b.c'", "'\"quoted\"'", "'3.14'", "'one two  three'", "'2024-01-15'", "'aab'",
)  # fmt: skip
LISTS = (
    "[]", "[1]", "[1, 2, 3]", "[3, 1, 2]", "[1, 2, 2, 3, 5]", "['a', 'b', 'c']", "[[1, 2], [3, 4]]",
    "[(1, 'a'), (2, 'b')]", "(3, 4, 5)", "[0, 1]", "[1.0, 2.0, 4.0]", "'abcd'", "range(6)",
    "[5, 4, 3, 2, 1]", "['b', 'a', 'b']", "[1, None, 2]", "[0, '', 1]",
)  # fmt: skip
DICTS = ("{}", "{'a': 1}", "{'a': 1, 'b': 2}", "{'x': [1, 2], 'y': []}", "{1: 'one', 2: 'two'}",
         "{'a': {'b': 1}}")  # fmt: skip
BOOLS = ("True", "False")
CALLABLES = ("(lambda x: x > 1)", "(lambda x: x * 2)", "str", "int", "len", "bool",
             "(lambda a, b: a + b)", "abs", "(lambda x: x % 2)")  # fmt: skip
HINTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("func", "pred", "key", "callable", "fn", "callback", "function"), CALLABLES),
    (("str", "text", "name", "line", "path", "word", "sep", "prefix", "suffix", "url", "label",
      "title", "char", "msg", "message", "value_s", "filename", "pattern", "delim", "source"), STRINGS),
    (("list", "iter", "seq", "items", "values", "args", "elements", "tuple", "data", "points",
      "arr", "nums", "lines", "words", "names", "keys", "xs", "rows"), LISTS),
    (("dict", "mapping", "map", "kw", "options", "params"), DICTS),
    (("bool", "is_", "flag", "strict", "reverse"), BOOLS),
    (("float", "ratio", "scale", "alpha", "weight", "angle"), FLOATS),
    (("int", "num", "count", "size", "len", "index", "start", "stop", "step", "width", "height",
      "idx", "pos", "depth", "level", "year", "month", "day", "limit", "max", "min"), INTS),
)  # fmt: skip


def argument_pool(arg: ast.arg) -> tuple[str, ...]:
    """Literals worth trying for a parameter, by its annotation and name."""
    if arg.annotation is not None:
        text = ast.unparse(arg.annotation).lower()
        for words, pool in HINTS:
            if words[0] in text or (words[0] == "func" and "callable" in text):
                return pool
    name = arg.arg.lower()
    if name in ("n", "k", "i", "j", "m", "x", "y", "a", "b"):
        return INTS + FLOATS + LISTS if name in "xyab" else INTS
    if name in ("s", "c", "p"):
        return STRINGS
    for words, pool in HINTS:
        if any(name == word or name.startswith(word) or name.endswith(word) for word in words):
            return pool
    return POOL


def candidate_calls(function: ast.FunctionDef, rng: random.Random, count: int) -> list[str]:
    """Call expressions with literal arguments, each different."""
    args = function.args
    plain = [*args.posonlyargs, *args.args]
    num_optional = len(args.defaults)
    calls: dict[str, None] = {}
    for _ in range(count * 2):
        keep = len(plain) - (rng.randint(0, num_optional) if num_optional else 0)
        chosen = []
        for arg in plain[:keep]:
            pool = argument_pool(arg) if rng.random() < 0.85 else POOL
            chosen.append(rng.choice(pool))
        if args.vararg is not None:
            chosen += [rng.choice(POOL) for _ in range(rng.randint(0, 3))]
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
            if default is None or rng.random() < 0.3:
                chosen.append(f"{arg.arg}={rng.choice(argument_pool(arg))}")
        calls[f"{function.name}({', '.join(chosen)})"] = None
        if len(calls) == count:
            break
    return list(calls)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call gave: a value (as literal and as pytest shows it) or an exception."""

    literal: str = ""
    shown: str = ""
    error: str = ""
    lines: tuple[int, ...] = ()


class TooSlow(BaseException):
    pass


def _on_alarm(_signal: int, _frame: object) -> None:
    raise TooSlow


def outcome_of(
    namespace: dict[str, Any], call: str, span: tuple[int, int], expected: str = ""
) -> Outcome:
    """Evaluate one call; `lines` are the module lines within `span` that a traceback shows."""
    signal.setitimer(signal.ITIMER_REAL, CASE_LIMIT_S)
    try:
        value = eval(call, namespace)
        literal = repr(value) if not hasattr(value, "__next__") else "<iterator>"
        shown = shown_value(value, ast.literal_eval(expected)) if expected else ""
        return Outcome(literal=literal, shown=shown)
    except TooSlow:
        return Outcome(error="slow")
    except Exception as error:  # noqa: BLE001 (anything may come out of a mutant)
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = "".join(traceback.format_exception_only(type(error), error)).strip()
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno or 0 for f in frames if f.filename == MODULE_FILE]
        inside = tuple(line for line in dict.fromkeys(lines) if span[0] <= line <= span[1])
        return Outcome(error=text.split("\n")[0] or "Error", lines=inside)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def shown_value(actual: Any, expected: Any) -> str:
    """`actual` as pytest prints it in `assert ACTUAL == EXPECTED` (assertrepr_compare)."""
    both_text = isinstance(actual, str) and isinstance(expected, str)
    is_compared = both_text or all(
        isinstance(value, Iterable) and not isinstance(value, str) for value in (actual, expected)
    )
    return saferepr(actual, maxsize=PYTEST_VALUE_CHARS if is_compared else 240)


def is_literal(text: str) -> bool:
    """The text survives a round trip through repr and is short and address-free."""
    if len(text) > 300 or " at 0x" in text:
        return False
    try:
        return repr(ast.literal_eval(text)) == text and "nan" not in text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def load(module: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "target"}
    exec(compile(module, MODULE_FILE, "exec"), namespace)
    return namespace


def in_child(work: Callable[[], Any], limit_s: float = CHILD_CPU_S) -> Any:
    """Result (as JSON) of `work` in a forked child with limits, or None when it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 1))
            resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            signal.signal(signal.SIGALRM, _on_alarm)
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            payload = json.dumps(work()).encode()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(payload)
        except BaseException:  # noqa: BLE001 (the child must end here)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        payload = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(payload) if status == 0 and payload else None


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug that the tests of its function notice. Line numbers are 0-based in the function."""

    buggy: str
    kinds: tuple[str, ...]
    report: TestReport
    failing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A pure function in its own small module, with calls whose results are known."""

    module: str
    source: str
    first_line: int
    cases: tuple[tuple[str, str], ...]

    def replaced(self, source: str) -> str:
        return self.module.replace(self.source, source, 1)


MAX_TEST_CASES = 6
TESTS_LIMIT_S = 0.5


def explore(module: str, name: str, rng: random.Random, num_calls: int) -> list[tuple[str, str]]:
    """(call, result literal) pairs, results as varied as the tried inputs allow."""
    tree = ast.parse(module)
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    namespace = load(module)
    found: dict[str, list[str]] = {}
    for call in candidate_calls(function, rng, num_calls):
        outcome = outcome_of(namespace, call, (0, 0))
        if outcome.literal == "<iterator>":
            call = f"list({call})"
            outcome = outcome_of(namespace, call, (0, 0))
        if outcome.error or not is_literal(outcome.literal) or len(call) > 110:
            continue
        again = outcome_of(load(module), call, (0, 0))
        if again.literal == outcome.literal:
            found.setdefault(outcome.literal, []).append(call)
    cases: list[tuple[str, str]] = []
    while found and len(cases) < MAX_TEST_CASES:
        for literal in list(found):
            calls = found[literal]
            cases.append((calls.pop(0), literal))
            if not calls:
                del found[literal]
            if len(cases) == MAX_TEST_CASES:
                break
    return cases


def run_mutant(subject: Subject, buggy: str, kinds: tuple[str, ...]) -> Mutant | None:
    """The mutant with its report, or None when no test fails, one hangs, or it does not load."""
    span = (subject.first_line, subject.first_line + subject.source.count("\n"))
    try:
        namespace = load(subject.replaced(buggy))
    except Exception:  # noqa: BLE001 (anything may come out of a mutant)
        return None
    cases: list[FailingCase] = []
    lines: set[int] = set()
    failing: list[int] = []
    for number, (call, literal) in enumerate(subject.cases):
        outcome = outcome_of(namespace, call, span, literal)
        if outcome.error == "slow":
            return None
        if not outcome.error and is_equal(outcome.literal, literal):
            continue
        statement = f"assert {call} == {literal}"
        shown = outcome.error or f"assert {outcome.shown} == {literal}"
        case = canonical_case(statement, [shown])
        if case is not None:
            cases.append(case)
        failing.append(number)
        lines.update(line - subject.first_line for line in outcome.lines)
    if not cases:
        return None
    return Mutant(buggy, kinds, TestReport(tuple(cases[:8]), frozenset(lines)), tuple(failing))


def is_equal(actual: str, expected: str) -> bool:
    """Equality of two results by value, as the assertion will judge it."""
    if actual == expected:
        return True
    try:
        return bool(ast.literal_eval(actual) == ast.literal_eval(expected))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def subject_of(slices: Slice, name: str, rng: random.Random, num_calls: int) -> Subject | None:
    """Explore one function in this process (call it inside `in_child`)."""
    module = slices.cut(name)
    if module is None:
        return None
    source = slices.source(slices.nodes[name])
    if module.count(source) != 1:
        return None
    cases = explore(module, name, rng, num_calls)
    first_line = module[: module.index(source)].count("\n") + 1
    return Subject(module, source, first_line, tuple(cases))


def mutants_of(subject: Subject, rng: random.Random, counts: list[int]) -> list[Mutant]:
    """Noticed mutants of a subject, one attempt per entry of `counts` (bugs in it)."""
    found: dict[str, Mutant] = {}
    for count in counts:
        injected = inject(subject.source, rng, count)
        if injected is None or injected[0] in found:
            continue
        mutant = run_mutant(subject, injected[0], tuple(edit.kind for edit in injected[1]))
        if mutant is not None:
            found[mutant.buggy] = mutant
    return list(found.values())


def passes(module: str, tests: str) -> bool:
    """Every test function passes with this module as `target`; runs in a limited child."""

    def work() -> bool:
        signal.setitimer(signal.ITIMER_VIRTUAL, TESTS_LIMIT_S)  # its signal ends the child
        target = types.ModuleType("target")
        sys.modules["target"] = target
        exec(compile(module, MODULE_FILE, "exec"), target.__dict__)
        namespace: dict[str, Any] = {}
        exec(compile(tests, "test_target.py", "exec"), namespace)
        found = [value for name, value in namespace.items() if name.startswith("test_")]
        for test in found:
            test()
        return bool(found)

    return in_child(work, TESTS_LIMIT_S + 2) is True
