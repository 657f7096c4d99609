"""Why a patch was refused, with what the model needs to repair it."""

from dataclasses import dataclass, replace
from typing import Any

MAX_TEXT_LINES = 20
MAX_LINE_CHARS = 160


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first line at which the file differs from the chunk. ``actual`` None: end of file."""

    line: int
    expected: str
    actual: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Everything known about a refusal; bounded in size. Line numbers count from 1.

    ``error`` is one of ``bad_syntax``, ``empty_patch``, ``context_not_found``, ``ambiguous``,
    ``missing_file``, ``forbidden_path``, ``not_text``, ``too_large``, ``changed``, ``io_error``.
    """

    error: str
    message: str
    file: str | None = None
    chunk: int | None = None
    patch_line: int | None = None
    tier_tried: str | None = None
    best_line: int | None = None
    num_matched: int = 0
    num_expected: int = 0
    first_diverging: Divergence | None = None
    nearby: tuple[tuple[int, str], ...] = ()
    candidates: tuple[int, ...] = ()
    sha256: str | None = None
    hint: str = ""
    is_undone: bool = True
    """Whether every file is as it was. False only when the way back failed too."""

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form; absent facts are left out."""
        body: dict[str, Any] = {"ok": False, "error": self.error, "message": self.message}
        for name in ("file", "chunk", "patch_line", "tier_tried", "sha256"):
            if getattr(self, name) is not None:
                body[name] = getattr(self, name)
        if self.best_line is not None:
            body["best"] = {
                "line": self.best_line,
                "matched": self.num_matched,
                "of": self.num_expected,
            }
        if self.first_diverging is not None:
            at = self.first_diverging
            body["first_diverging"] = {
                "line": at.line,
                "expected": at.expected,
                "actual": at.actual,
            }
        if self.nearby:
            body["nearby"] = [[number, text] for number, text in self.nearby]
        if self.candidates:
            body["candidates"] = list(self.candidates)
        if not self.is_undone:
            body["is_undone"] = False
        return body

    def as_text(self) -> str:
        """What the model reads: at most 20 lines, and that no file was changed."""
        where = f" in {self.file}" if self.file else ""
        where += f", chunk {self.chunk}" if self.chunk else ""
        where += f" (patch line {self.patch_line})" if self.patch_line else ""
        state = "No file was changed." if self.is_undone else "SOME FILES MAY HAVE CHANGED."
        lines = [f"apply_patch failed: {self.error}{where}. {state}"]
        lines += [_clip(line) for line in self.message.splitlines()[:3]]
        if self.best_line is not None:
            lines.append(
                f"Closest place: line {self.best_line}, "
                f"{self.num_matched} of {self.num_expected} lines agree."
            )
        if self.first_diverging is not None:
            at = self.first_diverging
            actual = "(end of file)" if at.actual is None else _clip(at.actual)
            lines += [
                f"At line {at.line} expected: {_clip(at.expected)}",
                f"but the file has: {actual}",
            ]
        tail = [_clip(self.hint)] if self.hint else []
        room = MAX_TEXT_LINES - len(lines) - len(tail) - 1
        if self.nearby and room > 0:
            focus = self.first_diverging.line if self.first_diverging else self.best_line or 0
            shown = sorted(self.nearby, key=lambda row: (abs(row[0] - focus), row[0]))[:room]
            lines.append("The file there:")
            lines += [f"{number:>5}|{_clip(text)}" for number, text in sorted(shown)]
        return "\n".join([*lines, *tail])


class PatchError(Exception):
    """A patch cannot be parsed, located or applied; carries the ``Failure``."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def at(self, **facts: Any) -> "PatchError":
        """The same error with facts filled in that only an outer layer knows."""
        return PatchError(replace(self.failure, **facts))


def bad_syntax(message: str, patch_line: int | None = None, **facts: Any) -> PatchError:
    """The patch text itself is wrong."""
    return PatchError(Failure("bad_syntax", message, patch_line=patch_line, **facts))


def _clip(text: str) -> str:
    return text if len(text) <= MAX_LINE_CHARS else text[: MAX_LINE_CHARS - 3] + "..."
