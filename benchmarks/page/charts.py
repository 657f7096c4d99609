"""Three kinds of charts: lines over sizes, dots in groups, stacked bars."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.lab.record import Figure, number
from benchmarks.page.canvas import CHAR_PX, COLOURS, FAINT, Canvas, Scale, short, span_of

WIDTH = 820.0
ROW_PX = 20.0
LABEL_PX = 15.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line with a point for each place on the horizontal axis; None where there is none."""

    name: str
    points: Sequence[Figure | None]


def line_chart(
    title: str, places: Sequence[str], lines: Sequence[Line], x_label: str, y_label: str
) -> str:
    """Medians with the middle 80 % over named places, on a logarithmic axis; names at the right."""
    height, top, bottom, left = 420.0, 46.0, 64.0, 64.0
    right = 24.0 + CHAR_PX * max(len(line.name) for line in lines)
    canvas = Canvas(WIDTH, height, title)
    values = [end for line in lines for each in line.points if each for end in (each.p10, each.p90)]
    y = Scale(*span_of(values, is_log=True), height - bottom, top, is_log=True)
    step = (WIDTH - left - right) / max(len(places) - 1, 1)
    canvas.text(left, 16, title, is_bold=True)
    for tick in y.ticks():
        canvas.line(left, y.at(tick), WIDTH - right, y.at(tick), FAINT, opacity=0.3)
        canvas.text(left - 8, y.at(tick), short(tick), "end")
    for index, place in enumerate(places):
        canvas.text(left + index * step, height - bottom + 20, place, "middle")
    canvas.text((left + WIDTH - right) / 2, height - 14, x_label, "middle")
    canvas.text(8, top - 14, y_label)
    ends: list[tuple[float, str, str]] = []
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        spots = [
            (left + place * step, each)
            for place, each in enumerate(line.points)
            if each is not None
        ]
        canvas.path([(x, y.at(each.median)) for x, each in spots], colour)
        for x, each in spots:
            canvas.line(x, y.at(max(each.p10, y.low)), x, y.at(each.p90), colour, 1.5)
            canvas.dot(x, y.at(each.median), colour)
        if spots:
            ends.append((y.at(spots[-1][1].median), line.name, colour))
    for at, name, colour in spread_out(ends, height - 12):
        canvas.text(WIDTH - right + 10, at, name, colour=colour)
    return canvas.svg()


def spread_out(
    labels: Sequence[tuple[float, str, str]], bottom: float
) -> list[tuple[float, str, str]]:
    """The labels from top to bottom, moved apart so that none covers another or leaves the chart."""
    ordered = sorted(labels)
    places: list[float] = []
    for at, _, _ in ordered:
        places.append(max(at, places[-1] + LABEL_PX) if places else at)
    limit = bottom
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - LABEL_PX
    return [(at, name, colour) for at, (_, name, colour) in zip(places, ordered, strict=True)]


@dataclass(frozen=True, slots=True)
class Dot:
    """One value with its middle 80 %."""

    name: str
    figure: Figure


def dot_chart(
    title: str, groups: Sequence[tuple[str, Sequence[Dot]]], x_label: str, *, is_log: bool = False
) -> str:
    """A line of text and a dot for each value, group under group; one name has one colour."""
    names = list(dict.fromkeys(dot.name for _, dots in groups for dot in dots))
    values = [end for _, dots in groups for dot in dots for end in (dot.figure.p10, dot.figure.p90)]
    left = 20.0 + CHAR_PX * max(len(name) for name in names)
    right = 70.0
    num_rows = sum(len(dots) + 1 for _, dots in groups)
    height = 34 + num_rows * ROW_PX + 46
    canvas = Canvas(WIDTH, height, title)
    x = Scale(*span_of(values, is_log=is_log), left, WIDTH - right, is_log=is_log)
    canvas.text(8, 16, title, is_bold=True)
    bottom = height - 44
    for tick in x.ticks():
        canvas.line(x.at(tick), 34, x.at(tick), bottom, FAINT, opacity=0.3)
        canvas.text(x.at(tick), bottom + 14, short(tick), "middle")
    canvas.text((left + WIDTH - right) / 2, height - 10, x_label, "middle")
    at = 34 + ROW_PX / 2
    for group, dots in groups:
        canvas.text(8, at, group, is_bold=True)
        at += ROW_PX
        for dot in dots:
            colour = COLOURS[names.index(dot.name) % len(COLOURS)]
            canvas.text(left - 10, at, dot.name, "end")
            canvas.line(x.at(dot.figure.p10), at, x.at(dot.figure.p90), at, colour, 2)
            canvas.dot(x.at(dot.figure.median), at, colour)
            beyond = x.at(max(dot.figure.p90, dot.figure.median)) + 9
            canvas.text(beyond, at, number(dot.figure.median))
            at += ROW_PX
    return canvas.svg()


def stacked_bars(
    title: str, bars: Sequence[tuple[str, dict[str, float]]], parts: Sequence[str], x_label: str
) -> str:
    """A bar a row, its parts side by side in the order of ``parts``, the whole at its end."""
    shown = [part for part in parts if any(values.get(part, 0.0) > 0 for _, values in bars)]
    left = 20.0 + CHAR_PX * max(len(name) for name, _ in bars)
    right, bar_px = 70.0, 24.0
    height = 70 + len(bars) * (bar_px + 12) + 46
    canvas = Canvas(WIDTH, height, title)
    totals = [sum(values.values()) for _, values in bars]
    x = Scale(*span_of(totals, is_log=False), left, WIDTH - right)
    canvas.text(8, 16, title, is_bold=True)
    at_x = left
    for index, part in enumerate(shown):
        canvas.box(at_x, 34, 12, 12, COLOURS[index % len(COLOURS)])
        canvas.text(at_x + 17, 40, part)
        at_x += 34 + CHAR_PX * len(part)
    bottom = height - 44
    for tick in x.ticks():
        canvas.line(x.at(tick), 56, x.at(tick), bottom, FAINT, opacity=0.3)
        canvas.text(x.at(tick), bottom + 14, short(tick), "middle")
    canvas.text((left + WIDTH - right) / 2, height - 10, x_label, "middle")
    at = 64.0
    for (name, values), total in zip(bars, totals, strict=True):
        canvas.text(left - 10, at + bar_px / 2, name, "end")
        begin = 0.0
        for index, part in enumerate(shown):
            length = values.get(part, 0.0)
            start, end = x.at(begin), x.at(begin + length)
            canvas.box(start, at, end - start, bar_px, COLOURS[index % len(COLOURS)])
            begin += length
        canvas.text(x.at(total) + 8, at + bar_px / 2, number(total))
        at += bar_px + 12
    return canvas.svg()
