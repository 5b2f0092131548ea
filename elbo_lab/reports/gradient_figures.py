"""Figures of a study of gradient estimators: one panel per group of parameters, both axes
logarithmic.
"""

import math
from typing import NamedTuple

from elbo_lab.losses import ESTIMATORS
from elbo_lab.reports.figure_style import (
    GREY,
    LABEL_SIZE,
    TEXT,
    TICK_SIZE,
    TITLE_SIZE,
    clean_axes,
    new_figure,
    save,
)

# Colours of Okabe and Ito, a grey and a brown, and a marker each, in the order of ESTIMATORS: an
# estimator looks the same in every figure.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
    *("#56B4E9", "#F0E442", "#000000", "#777777", "#8B4513"),
)
_MARKERS = "osD^vPX<>ph8dH*"
_PANEL, _HEIGHT = 480, 480  # pixels


class Panel(NamedTuple):
    """Points (x, y) of each estimator, for one group of parameters."""

    title: str
    curves: dict[str, list[tuple[float, float]]]
    # Exponents of x of the dashed lines, which start at the first point of the first curve.
    powers: tuple[float, ...] = ()
    floor: float | None = None  # height of a dotted line; None: no line


def panels(path, parts: list[Panel], x_label: str, y_label: str) -> None:
    """Draws panels side by side, with one legend.

    Args:
      path: the PNG file.
      parts: the panels from left to right; values that are not positive and finite are left out.
      x_label: of the horizontal axes, e.g. "K".
      y_label: of the vertical axes.
    """
    figure = new_figure(_PANEL * len(parts) + 160, _HEIGHT)
    axes = None
    for place, part in enumerate(parts, start=1):
        axes = figure.add_subplot(1, len(parts), place)
        _draw(axes, part)
        axes.set_title(part.title, loc="left", fontsize=TITLE_SIZE, color=TEXT)
        axes.set_xlabel(x_label, fontsize=LABEL_SIZE)
        if place == 1:
            axes.set_ylabel(y_label, fontsize=LABEL_SIZE)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=TICK_SIZE, frameon=False)
    save(figure, path)


def _draw(axes, part: Panel) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    shown = {name: _positive(points) for name, points in part.curves.items()}
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, points in shown.items():
        index = list(ESTIMATORS).index(name)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index],
            markersize=4,
            linewidth=1.3,
            label=name,
        )
    xs = sorted({x for points in shown.values() for x, _ in points})
    if xs:
        first_x, first_y = next(points[0] for points in shown.values() if points)
        for power in part.powers:
            ys = [first_y * (x / first_x) ** power for x in xs]
            axes.plot(xs, ys, color=GREY, linewidth=1, linestyle="--", zorder=1)
    if part.floor is not None:
        axes.axhline(part.floor, color=GREY, linewidth=1, linestyle=":", zorder=1)
    if xs:
        axes.xaxis.set_major_locator(FixedLocator(xs))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    clean_axes(axes)


def _positive(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that a logarithmic axis can show."""
    return [(x, y) for x, y in points if math.isfinite(y) and y > 0]
