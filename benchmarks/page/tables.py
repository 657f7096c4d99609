"""Tables of experiments in Markdown: one line for each condition, one column for each variant."""

from collections.abc import Sequence

from benchmarks.lab.record import Experiment, Figure, Row, number


def cell(figure: Figure | None) -> str:
    """Median and the middle 80 %."""
    if figure is None:
        return "-"
    if figure.n == 1:
        return number(figure.median)
    return f"{number(figure.median)} [{number(figure.p10)}, {number(figure.p90)}]"


def pivot(
    rows: Sequence[Row], figure: str, by: Sequence[str], across: str = "variant"
) -> list[str]:
    """``figure`` with a line for each value of the parameters ``by`` and a column for each ``across``.

    The variant counts as a parameter.
    """
    known = [
        ({"variant": row.variant, **row.params}, row.figures[figure])
        for row in rows
        if figure in row.figures
    ]
    if not known:
        return []
    columns = list(dict.fromkeys(str(params.get(across, "")) for params, _ in known))
    keys = [key for key in by if any(key in params for params, _ in known)]
    lines = ["| " + " | ".join([*keys, *columns]) + " |", "|---" * (len(keys) + len(columns)) + "|"]
    found: dict[tuple[str, ...], dict[str, Figure]] = {}
    for params, value in known:
        place = tuple(str(params.get(key, "")) for key in keys)
        found.setdefault(place, {})[str(params.get(across, ""))] = value
    for place, values in found.items():
        cells = [*place, *(cell(values.get(column)) for column in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return [f"{figure}, {known[0][1].unit}:", "", *lines, ""]


def listing(rows: Sequence[Row]) -> list[str]:
    """A line a row, a column for each parameter and figure."""
    rows = [row for row in rows if row.figures]
    if not rows:
        return []
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    units = {name: row.figures[name].unit for row in rows for name in row.figures}
    titles = ["variant", *keys, *(f"{name}, {units[name]}" for name in names)]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [row.variant, *(str(row.params.get(key, "")) for key in keys)]
        cells += [cell(row.figures.get(name)) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def circumstances(experiment: Experiment) -> list[str]:
    """Date, machine, settings, versions, notes, and what could not be measured."""
    machine = experiment.machine
    llama = f", {machine.llama}" if machine.llama else ""
    settings = ", ".join(f"{key} {value}" for key, value in experiment.settings.items())
    lines = [
        f"Measured {experiment.made} on {machine.num_cores} cores of {machine.cpu},"
        f" {machine.kernel}, Python {machine.python}{llama}, load {machine.load_1min} at the time."
        f" Settings: {settings}.",
    ]
    if experiment.versions:
        named = ", ".join(f"{name} {version}" for name, version in experiment.versions.items())
        lines.append(f"Versions: {named}.")
    lines += ["", *(f"- {note}" for note in experiment.notes)]
    gone = dict.fromkeys((row.variant, row.missing) for row in experiment.rows if row.missing)
    lines += [f"- {variant}: not measured: {reason}" for variant, reason in gone]
    return [*lines, ""]
