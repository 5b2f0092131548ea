"""Figures of a study of gradient estimators: one panel per group of parameters, both axes
logarithmic.
"""

import math
from typing import NamedTuple

from elbo_lab.losses import ESTIMATORS
from elbo_lab.reports.figures import _GREY, _LABEL, _TEXT, _TICK, _TITLE, _clean, _figure, _save

# Okabe and Ito's colours, with a grey, and a marker each: an estimator looks the same everywhere.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
    *("#56B4E9", "#F0E442", "#000000", "#777777"),
)
_MARKERS = "osD^vPX<>"
_PANEL, _HEIGHT = 480, 480  # pixels


class Panel(NamedTuple):
    """Points (x, y) of each estimator, for one group of parameters."""

    title: str
    curves: dict[str, list[tuple[float, float]]]
    # Powers of x that dashed lines through the first curve's first point show.
    powers: tuple[float, ...] = ()
    floor: float | None = None  # a dotted line


def panels(path, parts: list[Panel], x_label: str, y_label: str) -> None:
    """Draws panels side by side, with one legend.

    Args:
      path: the PNG file.
      parts: from left to right; values that are not positive and finite are left out.
      x_label: of the horizontal axes, e.g. "K".
      y_label: of the vertical axes.
    """
    figure = _figure(_PANEL * len(parts) + 160, _HEIGHT)
    axes = None
    for place, part in enumerate(parts, start=1):
        axes = figure.add_subplot(1, len(parts), place)
        _draw(axes, part)
        axes.set_title(part.title, loc="left", fontsize=_TITLE, color=_TEXT)
        axes.set_xlabel(x_label, fontsize=_LABEL)
        if place == 1:
            axes.set_ylabel(y_label, fontsize=_LABEL)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=_TICK, frameon=False)
    _save(figure, path)


def _draw(axes, part: Panel) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    shown = {name: _positive(points) for name, points in part.curves.items()}
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, points in shown.items():
        index = list(ESTIMATORS).index(name)
        axes.plot(
            *(zip(*points, strict=True) if points else ([], [])),
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index],
            markersize=4,
            linewidth=1.3,
            label=name,
        )
    xs = sorted({x for points in shown.values() for x, _ in points})
    first = next((points[0] for points in shown.values() if points), None)
    for power in part.powers if first else ():
        y = [first[1] * (x / first[0]) ** power for x in xs]
        axes.plot(xs, y, color=_GREY, linewidth=1, linestyle="--", zorder=1)
    if part.floor is not None:
        axes.axhline(part.floor, color=_GREY, linewidth=1, linestyle=":", zorder=1)
    if xs:
        axes.xaxis.set_major_locator(FixedLocator(xs))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    _clean(axes)


def _positive(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y) and y > 0]
