"""The figure of the study disentangle."""

from collections.abc import Sequence
from typing import Any

from elbo_lab.reports import svg_figures

# Score -> the title of its panel.
_PANELS = {"mig": "MIG", "dci_disentanglement": "DCI, D", "factor_vae": "FactorVAE score"}


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """SVG of three scores against the reconstruction: a line an objective, a point a weight.

    Args:
      rows: of `disentangle_results.content`.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.6, 3.0), layout="constrained")
    drawn.patch.set_alpha(0.0)
    panels = drawn.subplots(1, len(_PANELS))
    objectives = list(dict.fromkeys(row["objective"] for row in rows))
    for axes, (score, title) in zip(panels, _PANELS.items(), strict=True):
        for index, objective in enumerate(objectives):
            own = [row for row in rows if row["objective"] == objective]
            _line(axes, own, score, index)
        axes.set_title(title, fontsize=svg_figures.SMALL, color=svg_figures.PALETTE["ink"])
        svg_figures.finish(axes)
    panels[1].set_xlabel("E log p(x|z), nats per test image", fontsize=svg_figures.MEDIUM)
    svg_figures.legend(drawn, panels[0])
    return svg_figures.svg_text(drawn, "disentangle")


def _line(axes, rows: Sequence[dict[str, Any]], score: str, index: int) -> None:
    """The rows of one objective in the order of their weights, each with its weight."""
    across = [row["reconstruction"] for row in rows]
    up = [row[score] for row in rows]
    axes.errorbar(
        [value["mean"] for value in across],
        [value["mean"] for value in up],
        xerr=[value["standard_error"] or 0.0 for value in across],
        yerr=[value["standard_error"] or 0.0 for value in up],
        **svg_figures.style(index),
        linewidth=1.2,
        capsize=2,
        label=rows[0]["objective"],
    )
    for row, x, y in zip(rows, across, up, strict=True):
        axes.annotate(
            row["weight"],
            (x["mean"], y["mean"]),
            xytext=(3, 4),
            textcoords="offset points",
            fontsize=svg_figures.SMALL - 1,
            color=svg_figures.style(index)["color"],
        )
