"""The figure of the study mixtures."""

import numpy as np

from elbo_lab.reports import svg_figures

# Resolution of the parts that are drawn as pixels, whose paths would take megabytes.
_DPI = 130


def em_figure(
    examples: np.ndarray,
    draws: np.ndarray,
    density: tuple[np.ndarray, np.ndarray, np.ndarray],
    log_px: np.ndarray,
    elbo: np.ndarray,
) -> str:
    """SVG of a mixture in two dimensions: data, density, draws, and the path of EM.

    Args:
      examples: the training examples, [N, 2].
      draws: of the mixture, [n, 2].
      density: the horizontal and the vertical coordinates of a grid, and p(x) on it, a row for each
        value of the vertical one.
      log_px: mean log p(x) before the first iteration of EM and after each, [T + 1].
      elbo: the mean bound after each M-step, [T].
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.2), layout="constrained", dpi=_DPI)
    figure.patch.set_alpha(0.0)
    panels = figure.subplots(2, 2)
    horizontal, vertical, values = density
    extent = (horizontal[0], horizontal[-1], vertical[0], vertical[-1])
    for axes, points, title in (
        (panels[0, 0], examples, f"{len(examples):,} training examples"),
        (panels[1, 0], draws, f"{len(draws):,} draws of the mixture"),
    ):
        axes.scatter(
            *points.T, s=2, color=svg_figures.PALETTE["series-1"], alpha=0.6, rasterized=True
        )
        _plane(axes, extent, title)
    # By the density's root, so that thin parts of the arms can be seen.
    panels[0, 1].imshow(
        values,
        cmap="Blues",
        norm=PowerNorm(0.5),
        origin="lower",
        extent=extent,
        rasterized=True,
    )
    _plane(panels[0, 1], extent, "density of the mixture")
    _path(panels[1, 1], log_px, elbo)
    return svg_figures.svg_text(figure, "mixtures")


def _plane(axes, extent: tuple[float, ...], title: str) -> None:
    svg_figures.finish(axes, grid="both")
    axes.grid(False)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    axes.set_aspect("equal")
    axes.set_xlabel("x\N{SUBSCRIPT ONE}", fontsize=svg_figures.SMALL)
    axes.set_ylabel("x\N{SUBSCRIPT TWO}", fontsize=svg_figures.SMALL)
    axes.set_title(title, fontsize=svg_figures.MEDIUM, color=svg_figures.PALETTE["ink"])


def _path(axes, log_px: np.ndarray, elbo: np.ndarray) -> None:
    """Steps of the bound: up by an M-step (solid), then up to log p(x) by an E-step (dotted)."""
    shown = min(len(elbo), 12)
    colours = svg_figures.PALETTE["series-1"], svg_figures.PALETTE["series-2"]
    for t in range(shown):
        axes.plot([t, t + 1], [log_px[t], elbo[t]], color=colours[1], linewidth=1.4)
        axes.plot([t + 1, t + 1], [elbo[t], log_px[t + 1]], ":", color=colours[1], linewidth=1.4)
    iterations = np.arange(shown + 1)
    axes.plot(
        iterations, log_px[: shown + 1], "o", color=colours[0], markersize=4, label="log p(x)"
    )
    axes.plot(
        iterations[1:],
        elbo[:shown],
        "v",
        color=colours[1],
        markersize=4,
        label="ELBO after the M-step",
    )
    svg_figures.finish(axes)
    axes.set_xticks(range(0, shown + 1, 3))
    axes.set_xlabel("iteration of EM", fontsize=svg_figures.SMALL)
    axes.set_ylabel("nats per training example", fontsize=svg_figures.SMALL)
    axes.set_title("bound and likelihood", fontsize=svg_figures.MEDIUM)
    axes.title.set_color(svg_figures.PALETTE["ink"])
    axes.legend(
        fontsize=svg_figures.SMALL,
        frameon=False,
        loc="lower right",
        labelcolor=svg_figures.PALETTE["ink"],
    )
