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

from elbo_lab.reports.figures import _clean

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
    """ "iwae, k = 5, dreg" of a cell's values."""
    texts = [v if name in _BARE else f"{name} = {v}" for name, v in values.items()]
    return ", ".join(texts)


def cell_label(cell: dict[str, Any]) -> str:
    """A cell's short name; of a grid without axes its objective and K."""
    return short_name(cell["values"]) or cell["name"]


def has_several_k(cells: Sequence[dict[str, Any]]) -> bool:
    """Whether a figure against k has more than one point in a line."""
    return len({cell["config"]["k"] for cell in cells}) > 1


def bound_against_k(cells: Sequence[dict[str, Any]]) -> str:
    """Test log-likelihood and ELBO against k: a line for each choice of the other axes, bars of one
    standard error.
    """
    figure = _figure(1.35 * _HEIGHT, len(_series(cells)))
    panels = figure.subplots(2, 1, sharex=True)
    for axes, name, label in zip(
        panels, ("log_likelihood", "elbo"), (_log_likelihood(cells), "test ELBO, nats"), strict=True
    ):
        for index, (text, same) in enumerate(_series(cells).items()):
            points = sorted(same, key=lambda cell: cell["config"]["k"])
            found = [cell["results"][name] for cell in points]
            axes.errorbar(
                [cell["config"]["k"] for cell in points],
                [value["mean"] for value in found],
                [value["standard_error"] or 0.0 for value in found],
                **_style(index),
                linewidth=1.3,
                capsize=2,
                label=text,
            )
        axes.set_xscale("log")
        axes.set_ylabel(label, fontsize=_MEDIUM)
        _finish(axes)
    _ticks_at(panels[1], sorted({cell["config"]["k"] for cell in cells}))
    panels[1].set_xlabel("k, draws inside the bound", fontsize=_MEDIUM)
    _legend(figure, panels[0])
    return _svg(figure, "k")


def bound_against_time(cells: Sequence[dict[str, Any]]) -> str:
    """Test log-likelihood against the seconds that training one replicate took."""
    figure = _figure(_HEIGHT, len(_series(cells)))
    axes = figure.subplots()
    for index, (text, same) in enumerate(_series(cells).items()):
        points = sorted(same, key=lambda cell: cell["config"]["k"])
        seconds = [cell["results"]["training_seconds"] for cell in points]
        found = [cell["results"]["log_likelihood"] for cell in points]
        axes.errorbar(
            seconds,
            [value["mean"] for value in found],
            [value["standard_error"] or 0.0 for value in found],
            **_style(index),
            linewidth=0.8,
            capsize=2,
            label=text,
        )
        for cell, x, value in zip(points, seconds, found, strict=True):
            if has_several_k(cells):
                offset = {"xytext": (4, 5), "textcoords": "offset points"}
                font = {"fontsize": _SMALL, "color": PALETTE["ink"]}
                axes.annotate(str(cell["config"]["k"]), (x, value["mean"]), **offset, **font)
    _log_if_wide(axes, [cell["results"]["training_seconds"] for cell in cells])
    numbers = ", numbers: k" if has_several_k(cells) else ""
    axes.set_xlabel(f"wall time of training a replicate, s{numbers}", fontsize=_MEDIUM)
    axes.set_ylabel(_log_likelihood(cells), fontsize=_MEDIUM)
    axes.margins(x=0.1, y=0.12)
    _finish(axes)
    _legend(figure, axes)
    return _svg(figure, "time")


def training_curves(cells: Sequence[dict[str, Any]]) -> str:
    """Each cell's training bound against wall time, mean over replicates."""
    ks = sorted({cell["config"]["k"] for cell in cells})
    figure = _figure(_HEIGHT, len(_series(cells)) + (len(ks) if len(ks) > 1 else 0))
    axes = figure.subplots()
    late = []
    for index, (text, same) in enumerate(_series(cells).items()):
        style = _style(index)
        for cell in sorted(same, key=lambda cell: cell["config"]["k"]):
            curve, k = cell["results"]["curve"], cell["config"]["k"]
            bound = np.array(curve["training_bound"], np.float64)
            late.append(bound[len(bound) // 10 :])
            axes.plot(
                curve["seconds"],
                bound,
                **style,
                # At its end: there are more lines than colours. A curve may be lost.
                markevery=[-1] if len(bound) else None,
                linestyle=_LINES[ks.index(k) % len(_LINES)],
                linewidth=1.2,
            )
        axes.plot([], [], **style, label=text)
    for i, k in enumerate(ks if len(ks) > 1 else []):
        style = {"color": PALETTE["ink"], "linestyle": _LINES[i % len(_LINES)], "linewidth": 1.2}
        axes.plot([], [], label=f"k = {k}", **style)
    values = np.concatenate(late)
    values = values[np.isfinite(values)]
    if len(values):
        low, high = np.quantile(values, [0.02, 1.0])
        margin = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    _log_if_wide(axes, [cell["results"]["training_seconds"] for cell in cells])
    axes.set_xlabel("wall time of training a replicate, s", fontsize=_MEDIUM)
    axes.set_ylabel("training objective, nats", fontsize=_MEDIUM)
    _finish(axes)
    _legend(figure, axes)
    return _svg(figure, "curves")


def differences(cells: Sequence[dict[str, Any]], level: float) -> str:
    """Each cell's difference of test log-likelihood to the baseline, with its interval (where it
    has one).
    """
    indexed = zip(cells, _series_indices(cells), strict=True)
    shown = [(c, i) for c, i in indexed if "log_likelihood" in c.get("difference", {})]
    figure, axes = _rows([cell for cell, _ in shown])
    for row, (cell, index) in enumerate(shown):
        found = cell["difference"]["log_likelihood"]
        axes.plot([found["low"], found["high"]], [row, row], color=_style(index)["color"])
        axes.plot([found["mean"]], [row], **_style(index))
    axes.axvline(0.0, color=PALETTE["axis"], linewidth=1.0, zorder=0)
    label = f"minus the baseline, nats; {level:.0%} interval"
    # Beside long names of cells the axis is shorter than its label.
    axes.set_xlabel(label, fontsize=_MEDIUM, loc="right")
    return _svg(figure, "differences")


def active_units(cells: Sequence[dict[str, Any]]) -> str:
    """Each cell's active units, a marker for each stochastic layer."""
    figure, axes = _rows(cells)
    layers = max(len(cell["results"]["active_units"]) for cell in cells)
    for row, (cell, index) in enumerate(zip(cells, _series_indices(cells), strict=True)):
        for layer, found in enumerate(cell["results"]["active_units"]):
            axes.errorbar(
                [found["mean"]],
                [row],
                xerr=[found["standard_error"] or 0.0],
                color=_style(index)["color"],
                marker=_MARKERS[layer],
                markersize=5,
                capsize=2,
            )
    if layers > 1:
        for layer in range(layers):
            style = {"color": PALETTE["ink"], "marker": _MARKERS[layer], "linestyle": "none"}
            axes.plot([], [], label=f"layer {layer + 1}", markersize=5, **style)
        _legend(figure, axes)
    found = [layer for cell in cells for layer in cell["results"]["active_units"]]
    most = max(layer["mean"] + (layer["standard_error"] or 0.0) for layer in found)
    axes.set_xlim(0.0, 1.05 * max(most, 1.0))
    axes.set_xlabel("active units", fontsize=_MEDIUM, loc="right")
    return _svg(figure, "active")


def _series(cells: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Cells that differ in k alone, by their other values."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        text = short_name({n: v for n, v in cell["values"].items() if n != "k"})
        found.setdefault(text, []).append(cell)
    return found


def _series_indices(cells: Sequence[dict[str, Any]]) -> list[int]:
    names = {id(c): i for i, same in enumerate(_series(cells).values()) for c in same}
    return [names[id(cell)] for cell in cells]


def _style(index: int) -> dict[str, Any]:
    turn = index // len(_SERIES)
    return {
        "color": _SERIES[index % len(_SERIES)],
        "marker": _MARKERS[(index + turn) % len(_MARKERS)],
        "markersize": 4.5,
    }


def _log_likelihood(cells: Sequence[dict[str, Any]]) -> str:
    draws = {cell["config"]["eval_k"] for cell in cells}
    return f"test L_{draws.pop()}, nats" if len(draws) == 1 else "test log-likelihood, nats"


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


def _legend(figure, axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
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
