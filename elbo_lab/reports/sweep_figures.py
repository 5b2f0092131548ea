"""Figures of a sweep as SVG text for a page, whose style sheet gives the colours.

They are narrow, so that their text stays legible where a phone shrinks them. All take the `cells`
of sweep.json that have results.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from elbo_lab.reports import sweep_cells, words
from elbo_lab.reports.figure_style import clean_axes
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE

# Colours by their names in the page's style sheet. The series are Okabe and Ito's and a grey.
PALETTE = {
    "ink": "#222222",
    "axis": "#999999",
    "grid": "#dddddd",
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#009e73",
    "series-4": "#cc79a7",
    "series-5": "#b58900",
    "series-6": "#56b4e9",
    "series-7": "#777777",
}
_SERIES = [colour for name, colour in PALETTE.items() if name.startswith("series")]
_MARKERS, _LINES = "osD^vP<", ("-", "--", ":", "-.")
_WIDTH, _HEIGHT = 4.4, 3.3  # inches
_SMALL, _MEDIUM = 9.5, 10.5
# Axes of a grid whose values need no name beside them.
_NAMELESS = ("objective", "estimator", "dataset", "binarization", "likelihood", "model")


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
    figure = _figure((0.35 + 0.5 * len(names)) * _HEIGHT, len(_series(cells)))
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
        axes.set_ylabel(_label(sweep_cells.entries(cells, name)), fontsize=_MEDIUM)
        _finish(axes)
    _ticks_at(panels[-1], _ks(cells))
    panels[-1].set_xlabel("k, draws inside the bound", fontsize=_MEDIUM)
    _legend(figure, panels[0])
    return _svg(figure, "k")


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
    figure = _figure((0.35 + 0.65 * len(groups)) * _HEIGHT, len(_series(cells)))
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
        axes.set_ylabel(_label(sweep_cells.headlines(own)), fontsize=_MEDIUM)
        axes.margins(x=0.1, y=0.12)
        _finish(axes)
    _log_if_wide(panels[-1], [cell["training_seconds"] for cell in cells])
    numbers = ", numbers: k" if has_several_k(cells) else ""
    panels[-1].set_xlabel(f"wall time of training a replicate, s{numbers}", fontsize=_MEDIUM)
    _legend(figure, *panels)
    return _svg(figure, "time")


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
                fontsize=_SMALL,
                color=PALETTE["ink"],
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
    figure = _figure((0.35 + 0.65 * len(kinds)) * _HEIGHT, number)
    panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, ((title, unit), own) in zip(panels, kinds.items(), strict=True):
        for text, same in _series(own).items():
            for cell in _by_k(same):
                k, values = cell["config"]["k"], cell["curve"]["values"]
                axes.plot(
                    cell["curve"]["seconds"],
                    values,
                    **styles[text],
                    # A marker at its end, since there are more lines than colours. A curve is
                    # empty if the run has lost its metrics.
                    markevery=[-1] if values else None,
                    linestyle="-" if k is None else _LINES[ks.index(k) % len(_LINES)],
                    linewidth=1.2,
                )
            axes.plot([], [], **styles[text], label=text)
        _cut_start([cell["curve"]["values"] for cell in own], axes)
        axes.set_ylabel(f"{title}, {words.short_unit(unit)}", fontsize=_MEDIUM)
        _finish(axes)
    for i, k in enumerate(ks if len(ks) > 1 else []):
        style = {"color": PALETTE["ink"], "linestyle": _LINES[i % len(_LINES)], "linewidth": 1.2}
        panels[-1].plot([], [], label=f"k = {k}", **style)
    _log_if_wide(panels[-1], [cell["training_seconds"] for cell in cells])
    panels[-1].set_xlabel("wall time of training a replicate, s", fontsize=_MEDIUM)
    _legend(figure, *panels)
    return _svg(figure, "curves")


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


def differences(cells: Sequence[dict[str, Any]], level: float) -> str:
    """Each cell's headline minus that of the baseline, with its interval. Cells that do not compare
    with the baseline are left out.
    """
    styles, compared = _styles(cells), sweep_cells.compared(cells)
    figure, axes = _rows(compared)
    for row, cell in enumerate(compared):
        difference, style = sweep_cells.difference(cell), styles[_without_k(cell)]
        axes.plot([difference["low"], difference["high"]], [row, row], color=style["color"])
        axes.plot([difference["mean"]], [row], **style)
    axes.axvline(0.0, color=PALETTE["axis"], linewidth=1.0, zorder=0)
    unit = sweep_cells.unit(sweep_cells.headlines(compared))
    label = f"minus the baseline, {unit}; {level:.0%} interval"
    # Aligned to the right: the axis is shorter than its label beside long names of cells.
    axes.set_xlabel(label, fontsize=_MEDIUM, loc="right")
    return _svg(figure, "differences")


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
                marker=_MARKERS[layer],
                markersize=5,
                capsize=2,
            )
    if layers > 1:
        for layer in range(layers):
            style = {"color": PALETTE["ink"], "marker": _MARKERS[layer], "linestyle": "none"}
            axes.plot([], [], label=f"layer {layer + 1}", markersize=5, **style)
        _legend(figure, axes)
    most = max(
        units["mean"] + (units["standard_error"] or 0.0)
        for cell in cells
        for units in cell["active_units"]
    )
    axes.set_xlim(0.0, 1.05 * max(most, 1.0))
    axes.set_xlabel("active units", fontsize=_MEDIUM, loc="right")
    return _svg(figure, "active")


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
    return {text: _style(index) for index, text in enumerate(_series(cells))}


def _style(index: int) -> dict[str, Any]:
    # The markers shift with each round of the colours, so that the pairs differ.
    rounds = index // len(_SERIES)
    return {
        "color": _SERIES[index % len(_SERIES)],
        "marker": _MARKERS[(index + rounds) % len(_MARKERS)],
        "markersize": 4.5,
    }


def _label(entries: Sequence[dict[str, Any]]) -> str:
    """ "test L_5000, nats", with the title if symbols differ."""
    return f"test {sweep_cells.heading(entries)}, {sweep_cells.unit(entries)}"


def _figure(height: float, labels: int = 1):
    """A figure of a height in inches, with room below for so many labels in two columns."""
    from matplotlib.figure import Figure

    height += 0.19 * math.ceil(labels / 2) if labels > 1 else 0.0
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    return figure


def _rows(cells: Sequence[dict[str, Any]]):
    """A figure with a row for each cell, the first one on top."""
    figure = _figure(0.9 + 0.28 * max(len(cells), 2))
    axes = figure.subplots()
    axes.set_yticks(range(len(cells)), [cell_label(cell) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    _finish(axes, "x")
    return figure, axes


def _finish(axes, grid: str = "y") -> None:
    """Applies the page's style to a panel, with grid lines across one axis."""
    axes.patch.set_alpha(0.0)
    clean_axes(axes)
    axes.tick_params(which="both", labelsize=_SMALL)
    axes.grid(axis=grid, color=PALETTE["grid"], linewidth=0.6)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(PALETTE["ink"])


def _ticks_at(axes, values: Sequence[int]) -> None:
    """Puts the ticks of the horizontal axis at these values alone."""
    from matplotlib.ticker import NullLocator

    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def _log_if_wide(axes, values: Sequence[float]) -> None:
    """Makes the horizontal axis logarithmic if the values spread by more than a factor of 5."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if min(values) > 0 and max(values) > 5 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure, *panels) -> None:
    """Draws a legend of the panels' labels, each once; none for a single label."""
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels, handles = list(entries), list(entries.values())
    if len(labels) > 1:
        columns = 1 if max(map(len, labels)) > 22 else 2
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            fontsize=_SMALL,
            frameon=False,
            labelcolor=PALETTE["ink"],
        )


def _svg(figure, name: str) -> str:
    """The figure's <svg> element. Its ids begin with `name`; colours and fonts are the page's."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # Without metadata the same cells give the same text.
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(content, metadata=no_metadata)
    text = content.getvalue()
    text = text[text.index("<svg") :]
    # A style sheet inside an <svg> would apply to the whole page.
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*;?|(font: [\d.]+px) [^;\"]*", r"\1", text)
    for colour_name, colour in PALETTE.items():
        text = text.replace(colour, f"var(--{colour_name})")
    return text.replace("#000000", "var(--ink)").strip()


def standalone(svg: str) -> str:
    """A page's figure as a separate file, with the colours of PALETTE in place of the page's."""
    for name, colour in PALETTE.items():
        svg = svg.replace(f"var(--{name})", colour)
    return svg.replace("<svg ", '<svg font-family="sans-serif" ', 1)
