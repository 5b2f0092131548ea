"""The figure of the measure `classification`: a confusion matrix and calibration curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from elbo_lab.reports import svg_figures

# The most classes whose counts are written into the cells.
_MOST_NUMBERS = 12
# Examples of a bin that is drawn: the share of fewer is mostly noise.
_LEAST_EXAMPLES = 10


def figure(classifiers: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """SVG of the confusion matrix of one classifier and the calibration curves of all.

    Args:
      classifiers: name -> "confusion" [C, C], examples by true class (rows) and predicted class,
        and "calibration", the fields of `evaluation.classification.Calibration`.
      name: of the classifier whose confusion matrix is drawn; its curve is the first.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8.6, 4.1), layout="constrained")
    drawn.patch.set_alpha(0.0)
    left, right = drawn.subplots(1, 2)
    _confusion(left, np.asarray(classifiers[name]["confusion"]), name)
    names = [name, *(other for other in classifiers if other != name)]
    _calibration(right, {other: classifiers[other]["calibration"] for other in names})
    return svg_figures.svg_text(drawn, "classification")


def _confusion(axes, counts: np.ndarray, name: str) -> None:
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.patch.set_alpha(0.0)
    edges = np.arange(classes + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    if classes <= _MOST_NUMBERS:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for row, column in np.argwhere(counts > 0):
            is_dark = shares[row, column] > 0.5
            axes.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=svg_figures.SMALL - 2,
                color="white" if is_dark else svg_figures.PALETTE["ink"],
            )
    axes.tick_params(labelsize=svg_figures.SMALL, length=0)
    axes.spines[:].set_visible(False)
    _label(axes, "predicted class", "true class", f"confusion of {name}, test examples")


def _calibration(axes, curves: Mapping[str, Mapping[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], "--", color=svg_figures.PALETTE["axis"], linewidth=1)
    for index, (name, curve) in enumerate(curves.items()):
        drawn = np.asarray(curve["count"]) >= _LEAST_EXAMPLES
        axes.plot(
            np.asarray(curve["confidence"])[drawn],
            np.asarray(curve["accuracy"])[drawn],
            linewidth=1.4,
            label=f"{name} (ECE {curve['error']:.3f})",
            **svg_figures.style(index),
        )
    title = f"calibration, bins of {_LEAST_EXAMPLES} or more examples"
    svg_figures.finish(axes)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    _label(axes, "confidence, the greatest p(y|x)", "share that is right", title)
    axes.legend(
        loc="upper left",
        fontsize=svg_figures.SMALL,
        frameon=False,
        labelcolor=svg_figures.PALETTE["ink"],
    )


def _label(axes, horizontal: str, vertical: str, title: str) -> None:
    ink = svg_figures.PALETTE["ink"]
    axes.set_xlabel(horizontal, fontsize=svg_figures.SMALL, color=ink)
    axes.set_ylabel(vertical, fontsize=svg_figures.SMALL, color=ink)
    axes.set_title(title, fontsize=svg_figures.MEDIUM, color=ink)
