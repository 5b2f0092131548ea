"""The figure of the study likelihoods."""

from collections.abc import Sequence
from typing import Any

from elbo_lab.reports import svg_figures

_WIDTH, _HEIGHT = 6.6, 6.4  # inches
# A quantity of the stored results -> its label.
_ROWS = {
    "bias": "nats below log p(x)",
    "sd": "standard deviation, nats",
    "cosine": "cosine of gradients",
}
# Values below are rounding errors of float32.
_LEAST = 1e-3
_INK = svg_figures.PALETTE["ink"]


def estimates(models: Sequence[dict[str, Any]]) -> str:
    """SVG of bias, standard deviation and gradient against K: a column for each model, a line for
    each estimate.

    Args:
      models: of the stored results, each with the same estimates and numbers of draws.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    figure.patch.set_alpha(0.0)
    panels = figure.subplots(len(_ROWS), len(models), sharex=True, sharey="row", squeeze=False)
    for column, model in enumerate(models):
        for axes, quantity in zip(panels[:, column], _ROWS, strict=True):
            for index, estimate in enumerate(model["estimates"]):
                axes.plot(
                    *_points(model["draws"], estimate, quantity),
                    **svg_figures.style(index),
                    linewidth=1.3,
                    label=estimate["estimate"],
                )
            axes.set_xscale("log")
            if quantity != "cosine":
                axes.set_yscale("log")
            svg_figures.finish(axes)
        svg_figures.ticks_at(panels[-1, column], model["draws"])
        title = f"L = {model['latent_dim']}"
        panels[0, column].set_title(title, fontsize=svg_figures.MEDIUM, color=_INK)
        panels[-1, column].set_xlabel("K, draws", fontsize=svg_figures.SMALL)
    for axes, label in zip(panels[:, 0], _ROWS.values(), strict=True):
        axes.set_ylabel(label, fontsize=svg_figures.SMALL)
    svg_figures.legend(figure, panels[0, 0])
    return svg_figures.svg_text(figure, "likelihoods")


def _points(
    draws: Sequence[int], estimate: dict[str, Any], quantity: str
) -> tuple[list[int], list[float]]:
    """The points of a line, without those that a logarithmic axis cannot show."""
    values = estimate[quantity]
    if quantity == "bias":
        # A bias of less than two standard errors has no sign, and so no logarithm.
        errors = estimate["bias_error"]
        shown = [v < -2 * e and v < -_LEAST for v, e in zip(values, errors, strict=True)]
        values = [-value for value in values]
    elif quantity == "sd":
        shown = [value > _LEAST for value in values]
    else:
        shown = [True] * len(values)
    points = [(k, v) for k, v, keep in zip(draws, values, shown, strict=True) if keep]
    return [k for k, _ in points], [v for _, v in points]
