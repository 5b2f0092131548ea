"""The figure of the study discrete."""

import math
from collections.abc import Sequence
from typing import Any

from elbo_lab.reports import svg_figures

_TEST, _TRAIN = svg_figures.PALETTE["series-1"], svg_figures.PALETTE["series-3"]
_NOISE, _BIAS = svg_figures.PALETTE["series-2"], svg_figures.PALETTE["series-4"]
_SIZE = 6


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """SVG of the ways to train: test and training likelihoods, noise and bias of the gradient.

    Args:
      rows: of `discrete_results.content`.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.6, 1.5 + 0.27 * len(rows)), layout="constrained")
    drawn.patch.set_alpha(0.0)
    likelihoods, gradients = drawn.subplots(1, 2, sharey=True)
    places = range(len(rows))
    open_marker = {"linestyle": "none", "markerfacecolor": "none"}
    likelihoods.errorbar(
        [row["test"] for row in rows],
        places,
        xerr=[row["standard_error"] or 0.0 for row in rows],
        **{"color": _TEST, "marker": "o", "linestyle": "none", "markersize": _SIZE, "capsize": 2},
        label="test images",
    )
    likelihoods.plot(
        [row["train"] for row in rows],
        places,
        **{"color": _TRAIN, "marker": "o", "markersize": _SIZE + 2} | open_marker,
        label="training images",
    )
    _gradients(gradients, rows)
    likelihoods.set_yticks(places, [row["name"] for row in rows])
    likelihoods.set_ylim(len(rows) - 0.5, -0.5)
    likelihoods.set_xlabel("log p(x), nats", fontsize=svg_figures.MEDIUM)
    gradients.set_xlabel("relative to the exact gradient", fontsize=svg_figures.MEDIUM)
    for axes in (likelihoods, gradients):
        svg_figures.finish(axes, "both")
    svg_figures.legend(drawn, likelihoods, gradients)
    return svg_figures.svg_text(drawn, "discrete")


def _gradients(axes, rows: Sequence[dict[str, Any]]) -> None:
    """Standard deviation and bias of the gradient, on a logarithmic axis."""
    measured = [(i, row["gradient"]) for i, row in enumerate(rows) if "gradient" in row]
    noisy = [(i, math.sqrt(g["variance"])) for i, g in measured if g["variance"] > 0]
    biased = [(i, g["bias"]) for i, g in measured if g["verdict"] == "biased"]
    if noisy:
        places, values = zip(*noisy, strict=True)
        axes.plot(values, places, "o", color=_NOISE, markersize=_SIZE, label="standard deviation")
        axes.set_xscale("log")
    if biased:
        places, values = zip(*biased, strict=True)
        style = {"color": _BIAS, "markersize": _SIZE + 1, "markerfacecolor": "none"}
        axes.plot(values, places, "D", **style, label="bias")
