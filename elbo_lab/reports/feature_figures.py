"""The figure of the study features."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from elbo_lab.reports import svg_figures


def accuracies(rows: Sequence[dict[str, Any]]) -> str:
    """SVG of accuracy against the number of labels, a line with a band for each method.

    Args:
      rows: each with "method", "labels", "accuracy" in 0..1 and "standard_error", which is None
        where there is no band; the methods in the order of the legend.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = svg_figures.new_figure(1.25 * svg_figures.HEIGHT, 2 * len(methods))
    axes = figure.subplots()
    for index, method in enumerate(methods):
        own = sorted((row for row in rows if row["method"] == method), key=lambda r: r["labels"])
        labels = [row["labels"] for row in own]
        accuracy = 100 * np.array([row["accuracy"] for row in own])
        error = 100 * np.array([row["standard_error"] or 0.0 for row in own])
        style = svg_figures.style(index)
        axes.fill_between(
            labels,
            accuracy - error,
            accuracy + error,
            color=style["color"],
            alpha=0.25,
            linewidth=0,
        )
        axes.plot(labels, accuracy, linewidth=1.4, label=method, **style)
    axes.set_xscale("log")
    svg_figures.ticks_at(axes, sorted({row["labels"] for row in rows}))
    axes.set_xlabel("labelled training examples", fontsize=svg_figures.MEDIUM)
    axes.set_ylabel("test accuracy, %", fontsize=svg_figures.MEDIUM)
    svg_figures.finish(axes)
    svg_figures.legend(figure, axes)
    return svg_figures.svg_text(figure, "features")
