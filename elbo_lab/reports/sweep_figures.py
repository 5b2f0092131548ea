"""Figures of a sweep as SVG text for a page, whose style sheet gives the colours.

All take the `cells` of sweep.json that have results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elbo_lab.reports import svg_figures, sweep_cells, words
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE

# Axes of a grid whose values need no name beside them.
_NAMELESS = ("objective", "estimator", "dataset", "binarization", "likelihood", "model")
_NAMELESS += ("candidate", "protocol")


def short_name(values: dict[str, str]) -> str:
    """A cell's values as "iwae, k = 5, dreg"; axes that do not apply to the cell are left out."""
    applicable = {name: value for name, value in values.items() if value != NOT_APPLICABLE}
    return ", ".join(
        value if name in _NAMELESS else f"{name} = {value}" for name, value in applicable.items()
    )


def cell_label(cell: dict[str, Any]) -> str:
    """A cell's short name; in a grid without axes its name, by objective and K."""
    return short_name(cell["values"]) or cell["name"]


def has_several_k(cells: Sequence[dict[str, Any]]) -> bool:
    """True if a figure against k has more than one point in a line."""
    return len(_ks(cells)) > 1


def bound_against_k(cells: Sequence[dict[str, Any]]) -> str:
    """The headline and the other compared quantities against k, a panel each: a line for each
    choice of the other axes, with bars of one standard error. Cells without k or without a headline
    are left out.
    """
    styles = _styles(cells)
    cells = [cell for cell in cells if cell["config"]["k"] is not None and cell["headline"]]
    names = _compared(cells)
    figure = svg_figures.new_figure(
        (0.35 + 0.5 * len(names)) * svg_figures.HEIGHT, len(_series(cells))
    )
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for text, same in _series(cells).items():
            points = [cell for cell in _by_k(same) if name in cell["results"]]
            entries = sweep_cells.entries(points, name)
            axes.errorbar(
                [cell["config"]["k"] for cell in points],
                [entry["mean"] for entry in entries],
                [entry["standard_error"] or 0.0 for entry in entries],
                **styles[text],
                linewidth=1.3,
                capsize=2,
                label=text,
            )
        axes.set_xscale("log")
        axes.set_ylabel(_label(sweep_cells.entries(cells, name)), fontsize=svg_figures.MEDIUM)
        svg_figures.finish(axes)
    svg_figures.ticks_at(panels[-1], _ks(cells))
    panels[-1].set_xlabel("k, draws inside the bound", fontsize=svg_figures.MEDIUM)
    svg_figures.legend(figure, panels[0])
    return svg_figures.svg_text(figure, "k")


def bound_against_time(cells: Sequence[dict[str, Any]]) -> str:
    """The headline against the seconds that training one replicate took, in a panel for each group
    of headlines that compare. Cells without a headline are left out.
    """
    styles = _styles(cells)
    cells = [cell for cell in cells if cell["headline"]]
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        target = sweep_cells.headline(cell)["target"] or cell["headline"]
        groups.setdefault(target, []).append(cell)
    figure = svg_figures.new_figure(
        (0.35 + 0.65 * len(groups)) * svg_figures.HEIGHT, len(_series(cells))
    )
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for axes, own in zip(panels, groups.values(), strict=True):
        for text, same in _series(own).items():
            points = _by_k(same)
            entries = sweep_cells.headlines(points)
            axes.errorbar(
                [cell["training_seconds"] for cell in points],
                [entry["mean"] for entry in entries],
                [entry["standard_error"] or 0.0 for entry in entries],
                **styles[text],
                linewidth=0.8,
                capsize=2,
                label=text,
            )
            if has_several_k(cells):
                _annotate_k(axes, points)
        axes.set_ylabel(_label(sweep_cells.headlines(own)), fontsize=svg_figures.MEDIUM)
        axes.margins(x=0.1, y=0.12)
        svg_figures.finish(axes)
    svg_figures.log_if_wide(panels[-1], [cell["training_seconds"] for cell in cells])
    numbers = ", numbers: k" if has_several_k(cells) else ""
    panels[-1].set_xlabel(
        f"wall time of training a replicate, s{numbers}", fontsize=svg_figures.MEDIUM
    )
    svg_figures.legend(figure, *panels)
    return svg_figures.svg_text(figure, "time")


def _annotate_k(axes, cells: Sequence[dict[str, Any]]) -> None:
    """Writes k beside the points of a panel against time."""
    for cell in cells:
        k = cell["config"]["k"]
        if k is not None:
            axes.annotate(
                str(k),
                (cell["training_seconds"], sweep_cells.headline(cell)["mean"]),
                xytext=(4, 5),
                textcoords="offset points",
                fontsize=svg_figures.SMALL,
                color=svg_figures.PALETTE["ink"],
            )


def training_curves(cells: Sequence[dict[str, Any]]) -> str:
    """The first term of each cell's loss against wall time, mean over replicates, in a panel for
    each kind of term.
    """
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        curve = cell["curve"]
        kinds.setdefault((curve["title"], curve["unit"]), []).append(cell)
    ks, styles = _ks(cells), _styles(cells)
    number = len(styles) + (len(ks) if len(ks) > 1 else 0)
    figure = svg_figures.new_figure((0.35 + 0.65 * len(kinds)) * svg_figures.HEIGHT, number)
    panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, ((title, unit), own) in zip(panels, kinds.items(), strict=True):
        for text, same in _series(own).items():
            for cell in _by_k(same):
                k, values = cell["config"]["k"], cell["curve"]["values"]
                dashes = ks.index(k) % len(svg_figures.LINES) if k is not None else 0
                axes.plot(
                    cell["curve"]["seconds"],
                    values,
                    **styles[text],
                    # A marker at its end, since there are more lines than colours. A curve is
                    # empty if the run has lost its metrics.
                    markevery=[-1] if values else None,
                    linestyle=svg_figures.LINES[dashes],
                    linewidth=1.2,
                )
            axes.plot([], [], **styles[text], label=text)
        _cut_start([cell["curve"]["values"] for cell in own], axes)
        axes.set_ylabel(f"{title}, {words.short_unit(unit)}", fontsize=svg_figures.MEDIUM)
        svg_figures.finish(axes)
    for i, k in enumerate(ks if len(ks) > 1 else []):
        style = {
            "color": svg_figures.PALETTE["ink"],
            "linestyle": svg_figures.LINES[i % len(svg_figures.LINES)],
            "linewidth": 1.2,
        }
        panels[-1].plot([], [], label=f"k = {k}", **style)
    svg_figures.log_if_wide(panels[-1], [cell["training_seconds"] for cell in cells])
    panels[-1].set_xlabel("wall time of training a replicate, s", fontsize=svg_figures.MEDIUM)
    svg_figures.legend(figure, *panels)
    return svg_figures.svg_text(figure, "curves")


def _cut_start(curves: Sequence[Sequence[float]], axes) -> None:
    """Limits the vertical axis to the values after the first tenth of each curve, since the first
    values are far off.
    """
    arrays = [np.array(curve, np.float64) for curve in curves]
    values = np.concatenate([array[len(array) // 10 :] for array in arrays])
    values = values[np.isfinite(values)]
    if not len(values):
        return
    rise = sum(array[-1] - array[0] for array in arrays if len(array))
    low, high = np.quantile(values, [0.0, 0.98] if rise < 0 else [0.02, 1.0])
    margin = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def differences(
    cells: Sequence[dict[str, Any]], level: float, published: Mapping[str, float] | None = None
) -> str:
    """Each cell's headline minus that of the baseline, with its interval. Cells that do not compare
    with the baseline are left out.

    Args:
      cells: of sweep.json, with results.
      level: probability of the intervals.
      published: name of a cell -> the same difference in a paper, an open marker.
    """
    styles, compared = _styles(cells), sweep_cells.compared(cells)
    figure, axes = _rows(compared)
    for row, cell in enumerate(compared):
        difference, style = sweep_cells.difference(cell), styles[_without_k(cell)]
        axes.plot([difference["low"], difference["high"]], [row, row], color=style["color"])
        axes.plot([difference["mean"]], [row], **style)
        if published and cell["name"] in published:
            ink = svg_figures.PALETTE["ink"]
            open_marker = {"marker": "o", "markersize": 7, "markerfacecolor": "none"}
            axes.plot([published[cell["name"]]], [row], **open_marker, markeredgecolor=ink)
    axes.axvline(0.0, color=svg_figures.PALETTE["axis"], linewidth=1.0, zorder=0)
    unit = sweep_cells.unit(sweep_cells.headlines(compared))
    label = f"minus the baseline, {unit}; {level:.0%} interval"
    # Aligned to the right: the axis is shorter than its label beside long names of cells.
    axes.set_xlabel(label, fontsize=svg_figures.MEDIUM, loc="right")
    return svg_figures.svg_text(figure, "differences")


def active_units(cells: Sequence[dict[str, Any]]) -> str:
    """Each cell's active units, a marker for each stochastic layer. Cells without layers are left
    out.
    """
    styles, cells = _styles(cells), sweep_cells.with_layers(cells)
    figure, axes = _rows(cells)
    layers = max(len(cell["active_units"]) for cell in cells)
    for row, cell in enumerate(cells):
        for layer, units in enumerate(cell["active_units"]):
            axes.errorbar(
                [units["mean"]],
                [row],
                xerr=[units["standard_error"] or 0.0],
                color=styles[_without_k(cell)]["color"],
                marker=svg_figures.MARKERS[layer],
                markersize=5,
                capsize=2,
            )
    if layers > 1:
        for layer in range(layers):
            style = {
                "color": svg_figures.PALETTE["ink"],
                "marker": svg_figures.MARKERS[layer],
                "linestyle": "none",
            }
            axes.plot([], [], label=f"layer {layer + 1}", markersize=5, **style)
        svg_figures.legend(figure, axes)
    most = max(
        units["mean"] + (units["standard_error"] or 0.0)
        for cell in cells
        for units in cell["active_units"]
    )
    axes.set_xlim(0.0, 1.05 * max(most, 1.0))
    axes.set_xlabel("active units", fontsize=svg_figures.MEDIUM, loc="right")
    return svg_figures.svg_text(figure, "active")


def _ks(cells: Sequence[dict[str, Any]]) -> list[int]:
    """The distinct k of the cells that have one, ascending."""
    return sorted({cell["config"]["k"] for cell in cells} - {None})


def _by_k(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(cells, key=lambda cell: cell["config"]["k"] or 0)


def _compared(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The names of the headlines, then those of the other quantities that are compared."""
    headlines = [cell["headline"] for cell in cells]
    others = sweep_cells.other_quantities(cells)
    compared = [n for n in others if sweep_cells.entries(cells, n)[0]["compared"]]
    return list(dict.fromkeys(headlines + compared))


def _without_k(cell: dict[str, Any]) -> str:
    """A cell's short name without k."""
    return short_name({n: v for n, v in cell["values"].items() if n != "k"})


def _series(cells: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Groups of cells that differ in k alone, by their name without k."""
    series: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        series.setdefault(_without_k(cell), []).append(cell)
    return series


def _styles(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The colour and marker of each series of all cells, the same in every figure."""
    return {text: svg_figures.style(index) for index, text in enumerate(_series(cells))}


def _label(entries: Sequence[dict[str, Any]]) -> str:
    """ "test L_5000, nats", with the title if symbols differ."""
    return f"test {sweep_cells.heading(entries)}, {sweep_cells.unit(entries)}"


def _rows(cells: Sequence[dict[str, Any]]):
    """A figure with a row for each cell, the first one on top."""
    figure = svg_figures.new_figure(0.9 + 0.28 * max(len(cells), 2))
    axes = figure.subplots()
    axes.set_yticks(range(len(cells)), [cell_label(cell) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    svg_figures.finish(axes, "x")
    return figure, axes
