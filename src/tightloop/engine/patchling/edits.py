"""The declared bug kinds, each a set of one-line source-to-source edits.

`mutations(source)` lists every edit of every kind for one function. Training draws its bugs from this
list; at run time a proposed repair is admissible when one of these edits turns it back into the
line it repairs. All other lines keep their bytes.
"""

import ast
import builtins
import io
import keyword
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KINDS = (
    "comparison", "identity", "membership", "boolean", "negation", "arithmetic", "sign",
    "off_by_one", "constant", "bool_constant", "swapped_arguments", "missing_return",
    "return_value", "wrong_name", "misspelt_name", "attribute", "api_swap", "loop_control",
    "missing_self", "yield_return", "slice_bound", "assignment",
)  # fmt: skip

COMPARISONS = {
    "<": ("<=", ">", ">="), "<=": ("<", ">=", ">"), ">": (">=", "<", "<="),
    ">=": (">", "<=", "<"), "==": ("!=",), "!=": ("==",),
}  # fmt: skip
ARITHMETIC = {
    "+": ("-",), "-": ("+",), "*": ("/", "+", "//"), "/": ("*", "//"), "//": ("/", "%", "*"),
    "%": ("//", "*"), "**": ("*",), "<<": (">>",), ">>": ("<<",), "&": ("|",), "|": ("&",),
    "^": ("&", "|"), "+=": ("-=",), "-=": ("+=",), "*=": ("/=", "+="), "/=": ("*=",),
    "//=": ("/=", "%="), "%=": ("//=",), "|=": ("&=",), "&=": ("|=",), "<<=": (">>=",),
    ">>=": ("<<=",),
}  # fmt: skip
API_GROUPS = (
    ("append", "extend"), ("append", "appendleft"), ("pop", "popleft"), ("min", "max"),
    ("startswith", "endswith"), ("any", "all"), ("lstrip", "rstrip", "strip"), ("find", "rfind"),
    ("index", "rindex"), ("split", "rsplit"), ("lower", "upper"), ("keys", "values", "items"),
    ("add", "discard"), ("remove", "discard"), ("floor", "ceil"), ("partition", "rpartition"),
    ("ljust", "rjust"), ("isdigit", "isalpha"), ("islower", "isupper"), ("setdefault", "get"),
    ("union", "intersection", "difference"), ("int", "float"), ("list", "tuple", "set"),
    ("encode", "decode"), ("sum", "max"), ("sorted", "list"), ("isinstance", "issubclass"),
    ("bisect_left", "bisect_right"), ("match", "search", "fullmatch"), ("ord", "chr"),
    ("update", "add"), ("extend", "update"), ("getattr", "hasattr"), ("append", "add"),
)  # fmt: skip
SEPARATORS = ("''", "' '", "','", "'\\n'", "'.'", "'-'", "'_'", "'/'", "':'", "', '", "'='")
BUILTIN_NAMES = frozenset(dir(builtins))


def _api_table() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = {}
    for group in API_GROUPS:
        for name in group:
            table.setdefault(name, []).extend(other for other in group if other != name)
    return {name: tuple(dict.fromkeys(others)) for name, others in table.items()}


API_SWAPS = _api_table()


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace columns [start, end) of line `line` (0-based, both in characters) by `text`."""

    kind: str
    line: int
    start: int
    end: int
    text: str

    def apply(self, line: str) -> str:
        return line[: self.start] + self.text + line[self.end :]


def parse_function(source: str) -> tuple[ast.Module, int]:
    """Tree of a possibly indented function, and by how many lines its line numbers are off.

    Raises SyntaxError (or ValueError for null bytes) when the text is not Python.
    """
    if source[:1] in " \t":
        return ast.parse("if 1:\n" + source), 1
    return ast.parse(source), 0


def apply_edit(lines: list[str], edit: Edit) -> list[str]:
    return [*lines[: edit.line], edit.apply(lines[edit.line]), *lines[edit.line + 1 :]]


class _Source:
    """One function as tree, tokens and lines, with character columns."""

    def __init__(self, source: str, line: int | None) -> None:
        self.only = line
        self.lines = source.split("\n")
        self.tree, self.shift = parse_function(source)
        self.tokens = [
            token
            for token in tokenize.generate_tokens(io.StringIO(source + "\n").readline)
            if token.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
        ]
        self.starts = {token.start: index for index, token in enumerate(self.tokens)}
        self.ascii = [line.isascii() for line in self.lines]
        self.nodes = list(ast.walk(self.tree))

    def span(self, node: ast.AST) -> tuple[int, int, int] | None:
        """(line, start, end) of a node on one ASCII line, else None."""
        first = getattr(node, "lineno", None)
        last = getattr(node, "end_lineno", None)
        if first is None or first != last:
            return None
        line = first - 1 - self.shift
        if self.only is not None and line != self.only:
            return None
        if not 0 <= line < len(self.lines) or not self.ascii[line]:
            return None
        return line, node.col_offset, node.end_col_offset  # type: ignore[attr-defined]

    def token_between(self, left: ast.AST, right: ast.AST, texts: frozenset[str]) -> int | None:
        """Index of the first token with one of the texts between two sibling nodes."""
        row = left.end_lineno - self.shift  # type: ignore[attr-defined]
        if not self.ascii[row - 1]:
            return None
        start = (row, left.end_col_offset)  # type: ignore[attr-defined]
        stop = (right.lineno - self.shift, right.col_offset)  # type: ignore[attr-defined]
        for index in range(self._bisect(start), len(self.tokens)):
            token = self.tokens[index]
            if token.start >= stop:
                return None
            if token.string in texts:
                return index
        return None

    def _bisect(self, position: tuple[int, int]) -> int:
        low, high = 0, len(self.tokens)
        while low < high:
            middle = (low + high) // 2
            if self.tokens[middle].start < position:
                low = middle + 1
            else:
                high = middle
        return low

    def text(self, span: tuple[int, int, int]) -> str:
        return self.lines[span[0]][span[1] : span[2]]

    def token_edit(self, kind: str, index: int, text: str, last: int | None = None) -> Edit | None:
        first, final = self.tokens[index], self.tokens[index if last is None else last]
        if first.start[0] != final.end[0]:
            return None
        return Edit(kind, first.start[0] - 1, first.start[1], final.end[1], text)


def typos(name: str) -> Iterator[str]:
    """Misspellings of a name: one letter dropped, two neighbours exchanged, one doubled."""
    for i in range(1, len(name)):
        if name[i] != "_" and name[i] != name[i - 1]:
            yield name[:i] + name[i + 1 :]
        if i + 1 < len(name) and name[i] != name[i + 1] and "_" not in name[i : i + 2]:
            yield name[:i] + name[i + 1] + name[i] + name[i + 2 :]
    yield name + name[-1]


def local_names(tree: ast.AST) -> list[str]:
    """Parameters and assigned names, in order of appearance."""
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            names[node.arg] = None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = None
    return list(names)


def _operators(src: _Source) -> Iterator[Edit | None]:
    for index, token in enumerate(src.tokens):
        text = token.string
        if token.type == tokenize.OP and text in COMPARISONS:
            yield from (src.token_edit("comparison", index, new) for new in COMPARISONS[text])
        elif token.type == tokenize.OP and text.endswith("=") and text in ARITHMETIC:
            yield from (src.token_edit("arithmetic", index, new) for new in ARITHMETIC[text])
            yield src.token_edit("assignment", index, "=")
        elif token.type != tokenize.NAME:
            continue
        elif text in ("and", "or"):
            yield src.token_edit("boolean", index, "or" if text == "and" else "and")
        elif text == "is":
            if src.tokens[index + 1].string == "not":
                yield src.token_edit("identity", index, "is", index + 1)
            else:
                yield src.token_edit("identity", index, "is not")
        elif text in ("True", "False"):
            yield src.token_edit("bool_constant", index, "False" if text == "True" else "True")
        elif text in ("break", "continue"):
            other = "continue" if text == "break" else "break"
            yield src.token_edit("loop_control", index, other)
        elif text == "yield" and src.tokens[index + 1].string != "from":
            yield src.token_edit("yield_return", index, "return")


def _tree_operators(src: _Source) -> Iterator[Edit | None]:
    binary = frozenset(text for text in ARITHMETIC if not text.endswith("="))
    for node in src.nodes:
        if isinstance(node, ast.BinOp):
            index = src.token_between(node.left, node.right, binary)
            if index is None:
                continue
            operator = src.tokens[index].string
            for new in ARITHMETIC[operator]:
                yield src.token_edit("arithmetic", index, new)
            yield from _drop_one(src, node, operator)
            yield from _swap(src, [node.left, node.right], operator)
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for i, op in enumerate(node.ops):
                if not isinstance(op, ast.In | ast.NotIn):
                    continue
                index = src.token_between(operands[i], operands[i + 1], frozenset(("in", "not")))
                if index is not None and isinstance(op, ast.In):
                    yield src.token_edit("membership", index, "not in")
                elif index is not None:
                    yield src.token_edit("membership", index, "in", index + 1)
        elif isinstance(node, ast.UnaryOp):
            span, operand = src.span(node), src.span(node.operand)
            if span is None or operand is None:
                continue
            if isinstance(node.op, ast.Not):
                yield Edit("negation", span[0], span[1], operand[1], "")
            elif isinstance(node.op, ast.USub):
                yield Edit("sign", span[0], span[1], span[1] + 1, "")


def _drop_one(src: _Source, node: ast.BinOp, operator: str) -> Iterator[Edit | None]:
    right = node.right
    if operator in "+-" and isinstance(right, ast.Constant) and right.value == 1:
        left, whole = src.span(node.left), src.span(node)
        if left is not None and whole is not None and src.lines[whole[0]][whole[2] - 1] == "1":
            yield Edit("off_by_one", left[0], left[2], whole[2], "")


def _swap(src: _Source, nodes: list[ast.expr], operator: str) -> Iterator[Edit | None]:
    simple = (ast.Name, ast.Constant, ast.Attribute, ast.Call, ast.Subscript)
    spans = [src.span(node) for node in nodes]
    if operator not in ("-", "/", "//", "%", "**", ",") or None in spans:
        return
    left, right = spans[0], spans[1]
    assert left is not None
    assert right is not None
    if operator != "," and not all(isinstance(node, simple) for node in nodes):
        return
    if left[0] == right[0] and src.text(left) != src.text(right):
        middle = src.lines[left[0]][left[2] : right[1]]
        new = src.text(right) + middle + src.text(left)
        yield Edit("swapped_arguments", left[0], left[1], right[2], new)


def _conditions(src: _Source) -> Iterator[Edit | None]:
    for node in src.nodes:
        tests: list[ast.expr] = []
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            tests = [node.test]
        elif isinstance(node, ast.comprehension):
            tests = node.ifs
        for test in tests:
            span = src.span(test)
            wrapped = span is None or (isinstance(test, ast.UnaryOp))
            if not wrapped and span is not None and not isinstance(test, ast.NamedExpr):
                yield Edit("negation", span[0], span[1], span[1], "not ")


def _constants(src: _Source) -> Iterator[Edit | None]:
    for index, token in enumerate(src.tokens):
        if token.type == tokenize.NUMBER and token.string.isdecimal() and len(token.string) < 6:
            value = int(token.string)
            near = {value + 1, value - 1} - {-1}
            for new in sorted(near):
                yield src.token_edit("off_by_one", index, str(new))
            for new in sorted({0, 1, 2, 10, 100, value * 2, value * 10} - near - {value}):
                yield src.token_edit("constant", index, str(new))
        elif token.type == tokenize.NUMBER and token.string.replace(".", "").isdecimal():
            for text in ("0.0", "1.0", "0.5", "2.0"):
                if text != token.string:
                    yield src.token_edit("constant", index, text)
        elif token.type == tokenize.STRING:
            plain = token.string.replace('"', "'")
            if plain in SEPARATORS:
                quote = token.string[0]
                for text in SEPARATORS:
                    if text != plain:
                        yield src.token_edit("constant", index, text.replace("'", quote))


def _bounds(src: _Source) -> Iterator[Edit | None]:
    for node in src.nodes:
        ends: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            ends = node.args[:2] if node.func.id == "range" else []
        elif isinstance(node, ast.Slice):
            ends = [end for end in (node.lower, node.upper) if end is not None]
            for end in ends:
                span = src.span(end)
                if span is not None:
                    yield Edit("slice_bound", span[0], span[1], span[2], "")
        for end in ends:
            span = src.span(end)
            if span is not None and isinstance(end, ast.Name | ast.Call | ast.Attribute):
                yield Edit("off_by_one", span[0], span[2], span[2], " + 1")
                yield Edit("off_by_one", span[0], span[2], span[2], " - 1")


def _calls(src: _Source) -> Iterator[Edit | None]:
    for node in src.nodes:
        if isinstance(node, ast.Call):
            for left, right in zip(node.args, node.args[1:], strict=False):
                yield from _swap(src, [left, right], ",")


def _returns(src: _Source) -> Iterator[Edit | None]:
    for node in src.nodes:
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        line, column = node.lineno - 1 - src.shift, node.col_offset
        if not src.ascii[line] or src.lines[line][column : column + 7] != "return ":
            continue
        yield Edit("missing_return", line, column, column + 7, "")
        yield Edit("yield_return", line, column, column + 6, "yield")
        span = src.span(node.value)
        is_none = isinstance(node.value, ast.Constant) and node.value.value is None
        if span is not None and not is_none and span[2] - span[1] <= 16:
            yield Edit("return_value", span[0], span[1], span[2], "None")
        if span is not None and isinstance(node.value, ast.Name):
            yield Edit("return_value", span[0], span[1], span[1], "not ")


def _names(src: _Source) -> Iterator[Edit | None]:
    names = [name for name in local_names(src.tree) if name not in ("self", "cls")]
    called = {id(node.func) for node in src.nodes if isinstance(node, ast.Call)}
    for node in src.nodes:
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        span = src.span(node)
        if span is None or src.text(span) != node.id or node.id in ("self", "cls"):
            continue
        for new in API_SWAPS.get(node.id, ()):
            if id(node) in called:
                yield Edit("api_swap", *span, new)
        if node.id in names:
            for other in names:
                if other != node.id:
                    yield Edit("wrong_name", *span, other)
        if len(node.id) >= 3 and not keyword.iskeyword(node.id):
            for typo in typos(node.id):
                if typo not in BUILTIN_NAMES and not keyword.iskeyword(typo):
                    yield Edit("misspelt_name", *span, typo)


def _attributes(src: _Source) -> Iterator[Edit | None]:
    nodes = [node for node in src.nodes if isinstance(node, ast.Attribute)]
    attrs: dict[str, dict[str, None]] = {}
    for node in nodes:
        base = node.value.id if isinstance(node.value, ast.Name) else ""
        attrs.setdefault(base, {})[node.attr] = None
    for node in nodes:
        span = src.span(node)
        if span is None or not src.text(span).endswith("." + node.attr):
            continue
        line, start, end = span[0], span[2] - len(node.attr), span[2]
        base = node.value.id if isinstance(node.value, ast.Name) else ""
        for new in API_SWAPS.get(node.attr, ()):
            yield Edit("api_swap", line, start, end, new)
        for other in attrs[base]:
            if other != node.attr:
                yield Edit("attribute", line, start, end, other)
        if len(node.attr) >= 3:
            for typo in typos(node.attr):
                if not keyword.iskeyword(typo):
                    yield Edit("misspelt_name", line, start, end, typo)
        if base == "self" and isinstance(node.ctx, ast.Load):
            yield Edit("missing_self", line, span[1], start, "")


_FAMILIES: tuple[Callable[[_Source], Iterator[Edit | None]], ...] = (
    _operators, _tree_operators, _conditions, _constants, _bounds, _calls, _returns, _names,
    _attributes,
)  # fmt: skip


def mutations(source: str, line: int | None = None) -> list[Edit]:
    """Every declared edit of a function's text (of one 0-based line of it), in a fixed order.

    Edits that would leave the line unchanged are left out; whether the result parses is not
    checked. Raises SyntaxError, ValueError or tokenize.TokenError when the text is not Python.
    """
    src = _Source(source, line)
    edits: dict[Edit, None] = {}
    for family in _FAMILIES:
        for edit in family(src):
            if edit is None or (line is not None and edit.line != line):
                continue
            if edit.apply(src.lines[edit.line]) != src.lines[edit.line]:
                edits[edit] = None
    return list(edits)


def undoes_declared(fixed: str, line: int, buggy_line: str) -> bool:
    """Some declared edit of line `line` (0-based) of `fixed` gives `buggy_line`."""
    try:
        edits = mutations(fixed, line)
    except (SyntaxError, ValueError, tokenize.TokenError, IndexError):
        return False
    fixed_line = fixed.split("\n")[line]
    return any(edit.apply(fixed_line) == buggy_line for edit in edits)
