"""Figures of a sweep as SVG text to stand inside a page, whose style sheet colours them.

They are narrow, so that their text stays legible where a phone shrinks them. All take the `cells`
of sweep.json that have results.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from elbo_lab.reports import sweep_cells
from elbo_lab.reports.figures import _clean
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE

# Colours by the names of the page's style sheet. Series: Okabe and Ito's, and a grey.
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
_BARE = ("objective", "estimator", "dataset", "binarization", "likelihood", "model")


def short_name(values: dict[str, str]) -> str:
    """ "iwae, k = 5, dreg" of a cell's values; axes that do not apply to it are left out."""
    own = {name: v for name, v in values.items() if v != NOT_APPLICABLE}
    texts = [v if name in _BARE else f"{name} = {v}" for name, v in own.items()]
    return ", ".join(texts)


def cell_label(cell: dict[str, Any]) -> str:
    """A cell's short name; of a grid without axes its objective and K."""
    return short_name(cell["values"]) or cell["name"]


def has_several_k(cells: Sequence[dict[str, Any]]) -> bool:
    """Whether a figure against k has more than one point in a line."""
    return len(_ks(cells)) > 1


def bound_against_k(cells: Sequence[dict[str, Any]]) -> str:
    """The headline and what else is compared, against k: a line for each choice of the other axes,
    bars of one standard error. Cells without k or without a headline are left out.
    """
    styles = _styles(cells)
    cells = [cell for cell in cells if cell["config"]["k"] is not None and cell["headline"]]
    names = _compared(cells)
    figure = _figure((0.35 + 0.5 * len(names)) * _HEIGHT, len(_series(cells)))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for text, same in _series(cells).items():
            points = [cell for cell in _by_k(same) if name in cell["results"]]
            found = [cell["results"][name] for cell in points]
            axes.errorbar(
                [cell["config"]["k"] for cell in points],
                [value["mean"] for value in found],
                [value["standard_error"] or 0.0 for value in found],
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
    """The headline against the seconds that training one replicate took, in a panel for each kind
    of headlines that compare. Cells without one are left out.
    """
    styles = _styles(cells)
    cells = [cell for cell in cells if cell["headline"]]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        kinds.setdefault(sweep_cells.headline(cell)["target"] or cell["headline"], []).append(cell)
    figure = _figure((0.35 + 0.65 * len(kinds)) * _HEIGHT, len(_series(cells)))
    panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, own in zip(panels, kinds.values(), strict=True):
        for text, same in _series(own).items():
            points = _by_k(same)
            found = sweep_cells.headlines(points)
            axes.errorbar(
                [cell["training_seconds"] for cell in points],
                [value["mean"] for value in found],
                [value["standard_error"] or 0.0 for value in found],
                **styles[text],
                linewidth=0.8,
                capsize=2,
                label=text,
            )
            for cell, value in zip(points, found, strict=True):
                if has_several_k(cells) and cell["config"]["k"] is not None:
                    offset = {"xytext": (4, 5), "textcoords": "offset points"}
                    font = {"fontsize": _SMALL, "color": PALETTE["ink"]}
                    point = (cell["training_seconds"], value["mean"])
                    axes.annotate(str(cell["config"]["k"]), point, **offset, **font)
        axes.set_ylabel(_label(sweep_cells.headlines(own)), fontsize=_MEDIUM)
        axes.margins(x=0.1, y=0.12)
        _finish(axes)
    _log_if_wide(panels[-1], [cell["training_seconds"] for cell in cells])
    numbers = ", numbers: k" if has_several_k(cells) else ""
    panels[-1].set_xlabel(f"wall time of training a replicate, s{numbers}", fontsize=_MEDIUM)
    _legend(figure, *panels)
    return _svg(figure, "time")


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
                    # At its end: there are more lines than colours. A curve may be lost.
                    markevery=[-1] if values else None,
                    linestyle="-" if k is None else _LINES[ks.index(k) % len(_LINES)],
                    linewidth=1.2,
                )
            axes.plot([], [], **styles[text], label=text)
        _cut_start([cell["curve"]["values"] for cell in own], axes)
        axes.set_ylabel(f"{title}, {unit.removesuffix(' per image')}", fontsize=_MEDIUM)
        _finish(axes)
    for i, k in enumerate(ks if len(ks) > 1 else []):
        style = {"color": PALETTE["ink"], "linestyle": _LINES[i % len(_LINES)], "linewidth": 1.2}
        panels[-1].plot([], [], label=f"k = {k}", **style)
    _log_if_wide(panels[-1], [cell["training_seconds"] for cell in cells])
    panels[-1].set_xlabel("wall time of training a replicate, s", fontsize=_MEDIUM)
    _legend(figure, *panels)
    return _svg(figure, "curves")


def _cut_start(curves: Sequence[Sequence[float]], axes) -> None:
    """Limits a panel to where curves are after their start, which is far off."""
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
    """Each cell's difference of the headline to the baseline, with its interval (where it has
    one).
    """
    styles, compared = _styles(cells), sweep_cells.compared(cells)
    figure, axes = _rows(compared)
    for row, cell in enumerate(compared):
        found, style = sweep_cells.difference(cell), styles[_without_k(cell)]
        axes.plot([found["low"], found["high"]], [row, row], color=style["color"])
        axes.plot([found["mean"]], [row], **style)
    axes.axvline(0.0, color=PALETTE["axis"], linewidth=1.0, zorder=0)
    unit = sweep_cells.unit(sweep_cells.headlines(compared))
    label = f"minus the baseline, {unit}; {level:.0%} interval"
    # Beside long names of cells the axis is shorter than its label.
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
        for layer, found in enumerate(cell["active_units"]):
            axes.errorbar(
                [found["mean"]],
                [row],
                xerr=[found["standard_error"] or 0.0],
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
    found = [layer for cell in cells for layer in cell["active_units"]]
    most = max(layer["mean"] + (layer["standard_error"] or 0.0) for layer in found)
    axes.set_xlim(0.0, 1.05 * max(most, 1.0))
    axes.set_xlabel("active units", fontsize=_MEDIUM, loc="right")
    return _svg(figure, "active")


def _ks(cells: Sequence[dict[str, Any]]) -> list[int]:
    """The different k, of the cells that have one."""
    return sorted({k for cell in cells if (k := cell["config"]["k"]) is not None})


def _by_k(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(cells, key=lambda cell: cell["config"]["k"] or 0)


def _compared(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The headlines, then the other quantities that are compared."""
    first = list(dict.fromkeys(cell["headline"] for cell in cells))
    others = sweep_cells.other_quantities(cells)
    compared = [n for n in others if sweep_cells.entries(cells, n)[0]["compared"]]
    return list(dict.fromkeys(first + compared))


def _without_k(cell: dict[str, Any]) -> str:
    """A cell's name by its values but k."""
    return short_name({n: v for n, v in cell["values"].items() if n != "k"})


def _series(cells: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Cells that differ in k alone, by their other values."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault(_without_k(cell), []).append(cell)
    return found


def _styles(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The colour and marker of each series of all cells, the same in every figure."""
    return {text: _style(index) for index, text in enumerate(_series(cells))}


def _style(index: int) -> dict[str, Any]:
    turn = index // len(_SERIES)
    return {
        "color": _SERIES[index % len(_SERIES)],
        "marker": _MARKERS[(index + turn) % len(_MARKERS)],
        "markersize": 4.5,
    }


def _label(found: Sequence[dict[str, Any]]) -> str:
    """ "test L_5000, nats", or the title where symbols differ."""
    return f"test {sweep_cells.heading(found)}, {sweep_cells.unit(found)}"


def _figure(height: float, labels: int = 1):
    """A figure with room below it for a legend of so many labels in two columns."""
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
    axes.patch.set_alpha(0.0)
    _clean(axes)
    axes.tick_params(which="both", labelsize=_SMALL)
    axes.grid(axis=grid, color=PALETTE["grid"], linewidth=0.6)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(PALETTE["ink"])


def _ticks_at(axes, values: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def _log_if_wide(axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if min(values) > 0 and max(values) > 5 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure, *panels) -> None:
    """A legend of all panels' labels, each once."""
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
    """The figure's <svg> element, with ids of its own, and colours and fonts left to the page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(content, metadata=nothing)
    text = content.getvalue()
    text = text[text.index("<svg") :]
    # A style sheet inside a page's <svg> would be the whole page's.
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*;?|(font: [\d.]+px) [^;\"]*", r"\1", text)
    for colour_name, colour in PALETTE.items():
        text = text.replace(colour, f"var(--{colour_name})")
    return text.replace("#000000", "var(--ink)").strip()


def standalone(svg: str) -> str:
    """A page's figure as a file of its own, with the colours that the page's style sheet gives."""
    for name, colour in PALETTE.items():
        svg = svg.replace(f"var(--{name})", colour)
    return svg.replace("<svg ", '<svg font-family="sans-serif" ', 1)
