"""A small SVG canvas: shapes and text in colours that can be read on light and dark backgrounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

INK = "#768390"
"""Of text and axes: contrast about 4 to white and 5 to near-black."""

FAINT = "#768390"
COLOURS = (
    *("#3b82c4", "#d9822b", "#2f9e63", "#9b6bd3", "#d1495b", "#8a8f3c"),
    *("#2aa1b3", "#b0658f", "#7a869a", "#a9744f", "#5c6bc0", "#c2a335"),
)
FONT_PX = 13
CHAR_PX = 7.4
"""About how wide a character is; good enough to leave room for labels."""


@dataclass(slots=True)
class Canvas:
    """Shapes in the order of drawing; ``svg`` is the file."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def line(
        self, x1: float, y1: float, x2: float, y2: float,
        colour: str = INK, width: float = 1.0, opacity: float = 1.0,
    ) -> None:  # fmt: skip
        """A straight line."""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
            f' stroke-width="{width:g}" stroke-opacity="{opacity:g}"/>'
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """Points joined by lines."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )

    def dot(self, x: float, y: float, colour: str) -> None:
        """A filled circle."""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"'
            f' fill="{colour}"/>'
        )

    def text(
        self, x: float, y: float, text: str, anchor: str = "start",
        colour: str = INK, *, is_bold: bool = False,
    ) -> None:  # fmt: skip
        """A line of text whose middle is at ``y``."""
        weight = ' font-weight="600"' if is_bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>'
            f"{escape(text)}</text>"
        )

    def svg(self) -> str:
        """The whole file; its title is what a screen reader says."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
            f' width="{self.width:.0f}" height="{self.height:.0f}" role="img" font-size="{FONT_PX}"'
            ' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
        )
        return "\n".join([head, f"<title>{escape(self.title)}</title>", *self.parts, "</svg>\n"])


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where ``value`` is drawn; values outside are drawn at the edge."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers: 1, 2, 5 times powers of ten, or about five equal steps."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            sizes = (1, 2, 5) if last - first <= 3 else (1,)
            every = [size * 10.0**power for power in range(first, last + 1) for size in sizes]
            return [tick for tick in every if self.low * 0.999 <= tick <= self.high * 1.001]
        step = nice_step((self.high - self.low) / 5)
        count = math.floor((self.high - self.low) / step + 1e-9)
        return [self.low + step * number for number in range(count + 1)]


def nice_step(about: float) -> float:
    """The next of 1, 2, 5 times a power of ten that is not smaller."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * size for size in (1, 2, 5, 10) if power * size >= about * (1 - 1e-9))


def span_of(values: Sequence[float], *, is_log: bool) -> tuple[float, float]:
    """Ends of an axis that shows ``values``; from 0 where it is linear. Raises ValueError for none."""
    if is_log:
        known = [value for value in values if value > 0]
        high = nice_step(max(known))
        below = 10.0 ** math.floor(math.log10(min(known)))
        low = max(below * size for size in (1, 2, 5) if below * size <= min(known))
        return low, max(high, low * 10)
    high = max([*values, 0.0]) or 1.0
    step = nice_step(high / 5)
    return 0.0, step * math.ceil(high / step - 1e-9)


def short(value: float) -> str:
    """A tick's label: 20, 0.5, 2k, 1M."""
    for size, mark in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{mark}"
    return f"{value:g}"
