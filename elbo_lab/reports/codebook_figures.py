"""The figure of the study codebooks."""

from collections.abc import Sequence
from typing import Any

from elbo_lab.reports import svg_figures

# Title of a line -> the model of its rows, the field of a row that is its rate, and its dashes.
_LINES = {
    "VAE: KL; numbers: beta": ("conv", "rate", "-"),
    "VQ-VAE: M log K; numbers: K": ("vqvae", "fixed_rate", "--"),
    "VQ-VAE: table for each position": ("vqvae", "rate", "-"),
}
# Lines whose points are named by their settings: the third has the points of the second, moved.
_NAMED = 2
_LABEL_GAP = 5  # points


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """SVG of distortion against rate, nats per image: a line for each rate of each model.

    Args:
      rows: of `codebook_analysis.compute`.
    """
    drawn = svg_figures.new_figure(1.35 * svg_figures.HEIGHT, 2 * len(_LINES) + 2)
    axes = drawn.subplots()
    for index, (title, (model, field, dashes)) in enumerate(_LINES.items()):
        own = [row for row in rows if row["model"] == model]
        if own:
            _line(axes, own, field, index, label=title, linestyle=dashes)
    # Room for the name of the last point.
    axes.margins(x=0.1)
    axes.set_xlabel("rate, nats per image", fontsize=svg_figures.MEDIUM)
    axes.set_ylabel("distortion, nats per image", fontsize=svg_figures.MEDIUM)
    svg_figures.finish(axes)
    axes.grid(False)
    _equal_bounds(axes)
    svg_figures.legend(drawn, axes)
    return svg_figures.svg_text(drawn, "codebooks")


def _line(axes, rows: Sequence[dict[str, Any]], field: str, index: int, **drawing: str) -> None:
    """Points of the rows, joined in their order; the first lines have the names of the points."""
    rates = [row[field] if field == "fixed_rate" else row[field]["mean"] for row in rows]
    distortions = [row["distortion"]["mean"] for row in rows]
    style = svg_figures.style(index)
    axes.plot(rates, distortions, **style, linewidth=1.4, **drawing)
    if index >= _NAMED:
        return
    for row, rate, distortion in zip(rows, rates, distortions, strict=True):
        axes.annotate(
            row["setting"],
            (rate, distortion),
            xytext=(_LABEL_GAP, _LABEL_GAP),
            textcoords="offset points",
            fontsize=svg_figures.SMALL,
            color=style["color"],
        )


def _equal_bounds(axes) -> None:
    """Dotted lines of equal rate + distortion across the panel, each with its sum."""
    from matplotlib.ticker import MaxNLocator

    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    style = {"color": svg_figures.PALETTE["axis"], "zorder": 0.5}
    for total in MaxNLocator(6).tick_values(left + bottom, right + top):
        start, end = max(left, total - top), min(right, total - bottom)
        # Lines that only cut a corner have no room for their number.
        if end - start < 0.2 * (right - left):
            continue
        ends = [start, end], [total - start, total - end]
        axes.plot(*ends, ":", linewidth=0.9, label="equal rate + distortion", **style)
        axes.annotate(
            f"{total:g}",
            (end, total - end),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=svg_figures.SMALL - 1,
            **style,
        )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
