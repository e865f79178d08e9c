"""The table and the plot of `bench growth`."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from .tables import number, table

COLOURS = {
    "plain": "#000000",
    "set_mask": "#999999",
    "set_area": "#56b4e9",
    "multidiffusion": "#e69f00",
    "layered": "#d55e00",
    "layered_crop": "#009e73",
    "guidance": "#cc79a7",
    "soft_bias": "#0072b2",
    "soft_merge": "#7f7f00",
}
MEASURES = {"tflop": "TFLOP", "evaluations": "evaluations", "rows": "rows", "peak_mb": "peak MB", "seconds": "s"}
LOGARITHMIC = 2


def growth_table(rows: Sequence[dict], measures: Sequence[str] = ("tflop", "seconds")) -> str:
    """A line for each network, axis, value and measure, and a column for each method.

    Args:
        rows: of `bench growth`.
        measures: keys of `MEASURES`; lines without any number are left out.
    """
    methods = [method for method in COLOURS if any(row["method"] == method for row in rows)]
    points = dict.fromkeys((row["network"], row["axis"], row["value"]) for row in rows)
    cells = []
    for measure in measures:
        for point in points:
            found = {
                row["method"]: row[measure] for row in rows if (row["network"], row["axis"], row["value"]) == point
            }
            if any(value is not None for value in found.values()):
                shown = [number(found.get(method), 2) for method in methods]
                cells.append([*map(str, point), MEASURES[measure], *shown])
    return table(["network", "axis", "value", "in", *methods], cells)


def counts_table(rows: Sequence[dict]) -> str:
    """Evaluations of the network, their rows and the peak memory along the regions of one network."""
    first = rows[0]["network"]
    regions = [row for row in rows if row["network"] == first and row["axis"] == "regions"]
    return growth_table(regions, ("evaluations", "rows", "peak_mb"))


def draw_growth(rows: Sequence[dict]) -> Figure:
    """A row of panels for each network, a panel for each axis, a line for each method: operations of a step."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(3.0 * len(axes_names) + 0.6, 3.0 * len(networks) + 0.8), layout="constrained")
    grid = figure.subplots(len(networks), len(axes_names), sharey="row", sharex="col", squeeze=False)
    handles = {}
    for line, network in zip(grid, networks, strict=True):
        for panel, axis in zip(line, axes_names, strict=True):
            here = [row for row in rows if (row["network"], row["axis"]) == (network, axis)]
            for method, colour in COLOURS.items():
                shown = [row for row in here if row["method"] == method and row["tflop"] is not None]
                if shown:
                    x, y = ([row[key] for row in shown] for key in ("value", "tflop"))
                    (handles[method],) = panel.plot(x, y, "o-", markersize=3, color=colour, label=method)
            values = list(dict.fromkeys(row["value"] for row in here))
            panel.set_xscale("log", base=LOGARITHMIC)
            panel.set_yscale("log")
            panel.set_xticks(values, map(str, values))
            panel.minorticks_off()
        line[0].set_ylabel(f"{network}: TFLOP of a step")
    for panel, axis in zip(grid[-1], axes_names, strict=True):
        panel.set_xlabel(axis)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)
    return figure
