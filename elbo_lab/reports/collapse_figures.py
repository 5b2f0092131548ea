"""The figure of the study collapse."""

import math
from collections.abc import Sequence
from typing import Any

from elbo_lab.reports import svg_figures


def figure(rows: Sequence[dict[str, Any]], num_draws: int) -> str:
    """SVG of KL and L_K over the steps of training, a line for each remedy.

    Args:
      rows: of `collapse_results.content`.
      num_draws: K.
    """
    drawn = svg_figures.new_figure(1.7 * svg_figures.HEIGHT, len(rows))
    kl, probe = drawn.subplots(2, 1, sharex=True)
    for index, row in enumerate(rows):
        curves, style = row["curves"], {**svg_figures.style(index), "linewidth": 1.2}
        style["linestyle"] = svg_figures.dashes(index)
        for axes, name, steps in ((kl, "kl", "kl_steps"), (probe, "probe", "probe_steps")):
            values = [math.nan if value is None else value for value in curves[name]]
            # A marker at its end, since lines of several remedies may cover each other.
            markevery = [-1] if values else None
            axes.plot(curves[steps], values, **style, markevery=markevery, label=row["name"])
    kl.set_ylabel("KL, nats", fontsize=svg_figures.MEDIUM)
    kl.set_ylim(bottom=0)
    probe.set_ylabel(f"L_{num_draws}, nats", fontsize=svg_figures.MEDIUM)
    probe.set_xlabel("step of training", fontsize=svg_figures.MEDIUM)
    _cut_start([row["curves"]["probe"] for row in rows], probe)
    for axes in (kl, probe):
        svg_figures.finish(axes)
    svg_figures.legend(drawn, kl)
    return svg_figures.svg_text(drawn, "collapse")


def _cut_start(curves: Sequence[Sequence[float | None]], axes) -> None:
    """Limits the axis to the values of the second half of each curve: the first are far off."""
    late = [v for curve in curves for v in curve[len(curve) // 2 :] if v is not None]
    if late:
        margin = 0.06 * (max(late) - min(late)) or 1.0
        axes.set_ylim(min(late) - margin, max(late) + margin)
