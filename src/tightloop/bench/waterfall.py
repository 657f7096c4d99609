"""A turn drawn in the terminal: one row a step, all on one time axis.

Each part of the ledger has a colour and a glyph of its own, so that it reads without colour too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from tightloop.trace.ledger import Segment

STYLES: dict[str, tuple[str, str]] = {
    "client": ("·", "bright_black"),
    "network": ("░", "cyan"),
    "server": ("▒", "blue"),
    "queue": ("▪", "yellow"),
    "prefill": ("▓", "magenta"),
    "decode": ("█", "green"),
    "tool": ("▬", "bright_blue"),
    "test": ("■", "red"),
    "waiting": ("◌", "bright_yellow"),
}
"""Part -> (glyph, colour)."""

_MODEL_PARTS = ("network", "server", "queue", "prefill", "decode")
_STEPS = {**dict.fromkeys(_MODEL_PARTS, "model"), "waiting": "wait"}


@dataclass(frozen=True, slots=True)
class Row:
    """One step of the turn: a round trip with the model, a tool, or a test run."""

    title: str
    label: str
    segments: tuple[Segment, ...]

    @property
    def duration_ms(self) -> float:
        """Length of the step, gaps excluded, in milliseconds."""
        return sum(s.end_ns - s.start_ns for s in self.segments) / 1e6


def rows(segments: Sequence[Segment]) -> list[Row]:
    """Group consecutive segments into steps; the client's own work joins the step after it."""
    made: list[Row] = []
    pending: list[Segment] = []
    current: list[Segment] = []
    kind = ""

    def flush() -> None:
        if current:
            label = next((s.label for s in current if s.label), "")
            made.append(Row(kind, label, tuple(current)))
            current.clear()

    for segment in segments:
        if segment.part == "client":
            pending.append(segment)
            continue
        step = _STEPS.get(segment.part, segment.part)
        if step != kind or pending or step != "model":
            flush()
            kind = step
            current.extend(pending)
            pending.clear()
        current.append(segment)
    flush()
    if pending:
        made.append(Row("client", "", tuple(pending)))
    return made


def bar(row: Row, start_ns: int, end_ns: int, width: int) -> Text:
    """The row on an axis from ``start_ns`` to ``end_ns``, ``width`` characters wide.

    A character shows the part that fills most of it; a part shorter than a character still gets
    one when the cell is otherwise empty, so that nothing that happened is invisible.
    """
    cell_ns = max(1.0, (end_ns - start_ns) / width)
    weights: list[dict[str, float]] = [{} for _ in range(width)]
    for segment in row.segments:
        first = min(width - 1, int((segment.start_ns - start_ns) / cell_ns))
        last = min(width - 1, int((segment.end_ns - 1 - start_ns) / cell_ns))
        for cell in range(first, last + 1):
            low = start_ns + cell * cell_ns
            overlap = min(segment.end_ns, low + cell_ns) - max(segment.start_ns, low)
            weights[cell][segment.part] = weights[cell].get(segment.part, 0.0) + overlap
    text = Text()
    for weight in weights:
        if weight:
            glyph, style = STYLES[max(weight, key=lambda part: weight[part])]
            text.append(glyph, style=style)
        else:
            text.append(" ")
    return text


def draw(segments: Sequence[Segment], *, width: int = 80) -> RenderableType:
    """The whole turn, with a legend, at most ``width`` characters wide."""
    if not segments:
        return Text("(an empty turn)")
    start_ns, end_ns = segments[0].start_ns, segments[-1].end_ns
    label_width = 22
    bar_width = max(10, width - label_width - 19)
    lines: list[RenderableType] = []
    for row in rows(segments):
        line = Text(f"{row.title:<6}", no_wrap=True)
        line.append_text(bar(row, start_ns, end_ns, bar_width))
        line.append(f" {row.duration_ms:7.1f} ms ", style="bold")
        label = row.label if len(row.label) <= label_width else row.label[: label_width - 1] + "…"
        line.append(label, style="dim")
        lines.append(line)
    legend = Text("      ")
    present = {segment.part for segment in segments}
    for part, (glyph, style) in STYLES.items():
        if part in present:
            legend.append(f"{glyph} {part} ", style=style)
    return Group(*lines, legend)
