"""Figures of quality against the compute that it took, as SVG text for a page."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from elbo_lab.reports import svg_figures, words
from elbo_lab.reports.svg_figures import MEDIUM, PALETTE, SMALL

# Most candidates that have a colour and a name.
MOST_NAMED = 7


class Point(NamedTuple):
    """A run of a protocol."""

    minutes: float  # of training
    nll: float  # nats per test image
    standard_error: float | None


def named(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The candidates that have a name in the figure, the best first: at most MOST_NAMED of the last
    rung that was begun.

    Args:
      content: of study.json.
    """
    last = max(len(candidate["rungs"]) for candidate in content["candidates"])
    measured = [c for c in content["candidates"] if len(c["rungs"]) == last and _values(c)]
    sign = _sign(content)
    return sorted(measured, key=lambda c: -sign * _values(c)[-1])[:MOST_NAMED]


def candidates(content: dict[str, Any]) -> str:
    """A study with rungs: value against compute, a line a candidate; "" without results.

    The candidates that are not `named` are grey. Values far below the others are cut off.

    Args:
      content: of study.json.
    """
    shown = [candidate for candidate in content["candidates"] if _values(candidate)]
    if not shown:
        return ""
    with_name = named(content)
    figure = svg_figures.new_figure(1.35 * svg_figures.HEIGHT, 2 * len(with_name))
    axes = figure.subplots()
    names = [candidate["name"] for candidate in with_name]
    for candidate in shown:
        if candidate["name"] not in names:
            style = {"color": PALETTE["axis"], "marker": "o", "markersize": 2.5, "zorder": 1}
            _line(axes, candidate, linewidth=0.7, **style)
    for index, candidate in enumerate(with_name):
        label, style = candidate["name"], svg_figures.style(index)
        _line(axes, candidate, linewidth=1.4, label=label, zorder=3, **style)
    axes.set_xscale("log")
    svg_figures.ticks_at(axes, [rung["budget"] for rung in content["rungs"]])
    _cut(axes, shown, with_name, _sign(content))
    quantity = content["quantity"]
    unit = words.short_unit(quantity["unit"])
    axes.set_ylabel(f"held-out {quantity['symbol']}, {unit}", fontsize=MEDIUM)
    axes.set_xlabel("compute of training, reference steps", fontsize=MEDIUM)
    svg_figures.finish(axes)
    svg_figures.legend(figure, axes)
    return svg_figures.svg_text(figure, "compute")


def _line(axes, candidate: dict[str, Any], **style) -> None:
    rungs = [rung for rung in candidate["rungs"] if rung.get("value") is not None]
    axes.errorbar(
        [rung["compute"] for rung in rungs],
        [rung["value"] for rung in rungs],
        [rung["standard_error"] or 0.0 for rung in rungs] if style.get("label") else None,
        capsize=2,
        **style,
    )


def _values(candidate: dict[str, Any]) -> list[float]:
    """The values of a candidate, of the rungs that have one."""
    return [r["value"] for r in candidate["rungs"] if r.get("value") is not None]


def _sign(content: dict[str, Any]) -> float:
    """1 if a higher value is better, -1 if a lower one is."""
    quantity = content["quantity"]
    return -1.0 if quantity and quantity["better"] == "lower" else 1.0


def _cut(axes, shown: Sequence[dict], with_name: Sequence[dict], sign: float) -> None:
    """Limits the vertical axis to the values of named candidates and the better half of others."""
    values = [
        sign * (entry["value"] + side * (entry["standard_error"] or 0.0))
        for candidate in with_name
        for entry in candidate["rungs"]
        if entry.get("value") is not None
        for side in (-1.0, 1.0)
    ]
    values.append(float(np.median([sign * _values(candidate)[0] for candidate in shown])))
    best = max(sign * value for candidate in shown for value in _values(candidate))
    low, high = min(values), max(best, *values)
    margin = 0.06 * (high - low) or 1.0
    axes.set_ylim(*sorted((sign * (low - margin), sign * (high + margin))))


def time_to_quality(
    series: Mapping[str, Sequence[Point]], thresholds: Sequence[float], published: float
) -> str:
    """NLL against minutes of training, a line with markers for each protocol.

    Values far above the thresholds are cut off, unless there are no others.

    Args:
      series: name of a protocol -> its runs; none is empty.
      thresholds: NLLs at which there is a horizontal line, nats.
      published: the NLL of a paper, which has a line of its own, nats.
    """
    figure = svg_figures.new_figure(1.35 * svg_figures.HEIGHT, 2 * len(series))
    axes = figure.subplots()
    for threshold in thresholds:
        axes.axhline(threshold, color=PALETTE["axis"], linewidth=0.7, linestyle=":", zorder=0)
    axes.axhline(published, color=PALETTE["ink"], linewidth=0.9, linestyle="--", zorder=0)
    label = axes.annotate(
        f"published {published:g}",
        (0.0, published),
        xycoords=("axes fraction", "data"),
        xytext=(3, -3),
        textcoords="offset points",
        verticalalignment="top",
        fontsize=SMALL,
        color=PALETTE["ink"],
    )
    label.set_in_layout(False)  # outside of the frame it would leave no room for the panel
    for index, (name, points) in enumerate(series.items()):
        points = sorted(points)
        axes.errorbar(
            [point.minutes for point in points],
            [point.nll for point in points],
            [point.standard_error or 0.0 for point in points],
            **svg_figures.style(index),
            linewidth=1.2,
            capsize=2,
            label=name,
        )
    values = [point.nll for points in series.values() for point in points]
    if min(values) <= max(thresholds):
        low = min(*values, published)
        high = max(published, min(max(values), max(thresholds) + 4.0))
        axes.set_ylim(low - 0.8, high + 0.2)
    svg_figures.log_if_wide(axes, [p.minutes for points in series.values() for p in points])
    axes.set_ylabel("test NLL, nats", fontsize=MEDIUM)
    axes.set_xlabel("minutes of training on one core", fontsize=MEDIUM)
    svg_figures.finish(axes, "x")
    svg_figures.legend(figure, axes)
    return svg_figures.svg_text(figure, "minutes")
