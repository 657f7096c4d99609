"""What test modules and ``conftest.py`` do before and while the project is imported.

Pure. With project modules resident, imports have happened before any test module runs a line.
That is the same only if no line could have made a difference to them; so anything here that is
not known to be harmless speaks against it.
"""

import ast
from collections.abc import Iterator

Import = tuple[str, tuple[str, ...]]
"""A module, and what is wanted from it: ``import a.b`` wants nothing of ``a.b``."""

_TELLING = frozenset(
    """
    environ environb putenv unsetenv meta_path path_hooks path_importer_cache setattr delattr
    chdir fchdir umask seed setstate filterwarnings simplefilter setlocale setrecursionlimit
    setprofile settrace addaudithook patch reload exec eval __import__ import_module run_path
    run_module basicConfig tzset signal setdefault configure setup register_assert_rewrite
    settings site addsitedir __dict__ globals vars
    """.split()  # noqa: SIM905 - as a list it fills a page
)
_OF_SYS = frozenset(("path", "modules", "argv", "flags", "stdout", "stderr", "stdin"))
# Called once collection is over, when everything is imported in a cold run too.
_LATE_HOOKS = ("pytest_runtest", "pytest_terminal", "pytest_unconfigure", "pytest_sessionfinish")
_SIMPLE = (ast.Import, ast.ImportFrom, ast.Pass, ast.Assert, ast.Global)
_Functions = (ast.FunctionDef, ast.AsyncFunctionDef)


def imports(text: bytes) -> tuple[str, ...]:
    """The statements outside functions that import something, as they are nested, in order.

    Equal results mean equal imports when the module runs to its end. Raises SyntaxError.
    """
    found: list[str] = []
    for statement in ast.parse(text).body:
        nodes = list(_importing(statement))
        if isinstance(statement, ast.ClassDef):
            found += map(ast.dump, nodes)
        elif nodes:
            found.append(ast.dump(statement))
    return tuple(found)


def outside_bodies(text: bytes) -> tuple[str, tuple[str, ...]]:
    """A conftest without the bodies of its functions, and its hooks whole. Raises SyntaxError."""
    tree = ast.parse(text)
    hooks = []
    for statement in tree.body:
        if isinstance(statement, _Functions):
            if statement.name.startswith("pytest_"):
                hooks.append(ast.dump(statement))
            statement.body = []
    return ast.dump(tree), tuple(hooks)


def first_imports(text: bytes, package: str) -> list[Import]:
    """The imports that a module certainly makes if it runs to its end, in order: not nested ones.

    ``package`` is where relative imports start. Raises SyntaxError.
    """
    found: list[Import] = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = node.module or ""
            if node.level:
                parent = package.rsplit(".", node.level - 1)[0]
                base = f"{parent}.{base}".strip(".")
            found.append((base, tuple(alias.name for alias in node.names)))
    return found


def _importing(node: ast.AST) -> Iterator[ast.AST]:
    """Imports in a statement that run when it does, those of functions left out."""
    if isinstance(node, ast.Import | ast.ImportFrom) or _name(node) == "importorskip":
        yield node
    elif not isinstance(node, _Functions):
        for child in ast.iter_child_nodes(node):
            yield from _importing(child)


def effect(text: bytes) -> str:
    """The first thing that might make a difference to imports; empty when there is none.

    Raises SyntaxError.
    """
    body = [statement for statement in ast.parse(text).body if not _is_main(statement)]
    for node in _early(body):
        found = _telling(node)
        if found:
            return f"line {getattr(node, 'lineno', 0)} mentions {found}"
    for statement in _statements(body):
        if not _is_harmless(statement):
            return f"line {statement.lineno} may do anything"
    return ""


def _is_main(statement: ast.stmt) -> bool:
    """Whether it is for running the file as a program."""
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Compare)
        and _name(statement.test.left) == "__name__"
    )


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when the module does, without functions; blocks and classes are looked into."""
    for statement in body:
        if isinstance(statement, _Functions):
            continue
        if isinstance(statement, ast.ClassDef | ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)
        else:
            yield statement


def _is_harmless(statement: ast.stmt) -> bool:
    if isinstance(statement, _SIMPLE):
        return True
    if isinstance(statement, ast.Assign):
        return all(map(_is_own_name, statement.targets))
    if isinstance(statement, ast.AnnAssign | ast.AugAssign):
        return isinstance(statement.target, ast.Name)
    if isinstance(statement, ast.Expr):
        value = statement.value
        if isinstance(value, ast.Call):
            return _name(value.func) == "importorskip"
        return isinstance(value, ast.Constant)
    return False


def _is_own_name(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(map(_is_own_name, target.elts))
    return isinstance(target, ast.Name)


def _early(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node that may run before the last import: not the bodies of tests and fixtures, and
    not decorators, which tell of such state (``patch``, ``skipif``) without touching it yet."""
    called = {
        _name(node.func)
        for statement in body
        if not isinstance(statement, _Functions)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
    }
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from _early(statement.body)
        elif isinstance(statement, _Functions):
            is_hook = statement.name.startswith("pytest_")
            is_hook = is_hook and not statement.name.startswith(_LATE_HOOKS)
            if is_hook or statement.name in called:
                yield from ast.walk(statement)
        else:
            yield from ast.walk(statement)


def _telling(node: ast.AST) -> str:
    """The name in a node that has to do with state that imports look at."""
    name = _name(node)
    if name in _TELLING:
        return name
    is_sys = isinstance(node, ast.Attribute) and _name(node.value) == "sys"
    if is_sys and name in _OF_SYS:
        return f"sys.{name}"
    if isinstance(node, ast.ImportFrom) and node.module == "sys":
        return "sys"
    return ""


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
