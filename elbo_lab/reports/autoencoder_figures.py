"""The figure of the study autoencoder."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from elbo_lab.reports import svg_figures, tiles
from elbo_lab.reports.figures import class_colours

# Resolution of the parts that are drawn as pixels.
_DPI = 140
_COLUMNS = 10
_INK = svg_figures.PALETTE["ink"]
# Dark on a white outline, in a page of either setting.
_NAME = "#111111"


def side_by_side(pictures: Mapping[str, Any], radius: float) -> str:
    """SVG with a column for each system: reconstructions, codes, decoded draws from the prior.

    Args:
      pictures: name of a system -> its arrays `inputs` and `reconstructions` ([n, H, W] or
        [n, H, W, C], from 0 to 1), `codes` [N, 2], `labels` ([N] or None), and `draws` [m, H, W].
      radius: of the circle that is drawn around 0, in which codes are counted.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 6.0), layout="constrained", dpi=_DPI)
    figure.patch.set_alpha(0.0)
    panels = figure.subplots(3, len(pictures), height_ratios=(0.56, 2.7, 1.1), squeeze=False)
    for column, (name, own) in enumerate(pictures.items()):
        rows = np.concatenate([own.inputs[:_COLUMNS], own.reconstructions[:_COLUMNS]])
        _images(
            panels[0, column],
            rows,
            min(_COLUMNS, len(own.inputs)),
            f"{name}: images, decoded codes",
        )
        _codes(panels[1, column], own.codes, own.labels, radius)
        title = "codes; dashed: 99% of the prior"
        panels[1, column].set_title(title, fontsize=svg_figures.SMALL, color=_INK)
        _images(panels[2, column], own.draws, _COLUMNS, "decoded draws from the prior")
    return svg_figures.svg_text(figure, "autoencoder")


def _images(axes, images: np.ndarray, columns: int, title: str) -> None:
    mosaic = tiles.mosaic(tiles.levels(images), columns, gap=1)
    grey_or_rgb = mosaic.squeeze(-1) if mosaic.shape[-1] == 1 else mosaic
    axes.imshow(grey_or_rgb, cmap="gray", vmin=0, vmax=1, rasterized=True)
    axes.set_axis_off()
    axes.set_title(title, fontsize=svg_figures.MEDIUM, color=_INK)


def _codes(axes, codes: np.ndarray, labels: np.ndarray | None, radius: float) -> None:
    """Codes as points, coloured by class, the class's name at their median, and the circle."""
    style = {"s": 3, "linewidths": 0, "alpha": 0.7, "rasterized": True}
    if labels is None:
        axes.scatter(*codes.T, color=svg_figures.PALETTE["series-1"], **style)
    else:
        classes, index = np.unique(labels, return_inverse=True)
        colours = np.array([_rgb(colour) for colour in class_colours(len(classes))])
        axes.scatter(*codes.T, color=colours[index], **style)
        for name in classes:
            _name(axes, str(name), np.median(codes[labels == name], axis=0))
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = radius * np.cos(angle), radius * np.sin(angle)
    axes.plot(*circle, "--", color=_INK, linewidth=1.2)
    # A few far codes would shrink all others.
    reach = 1.08 * max(radius, float(np.quantile(np.abs(codes).max(axis=1), 0.995)))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    svg_figures.finish(axes, grid="both")
    axes.grid(False)
    axes.set_xlabel("z\N{SUBSCRIPT ONE}", fontsize=svg_figures.SMALL)
    axes.set_ylabel("z\N{SUBSCRIPT TWO}", fontsize=svg_figures.SMALL)


def _rgb(colour: Any) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _name(axes, text: str, place: np.ndarray) -> None:
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text,
        place,
        ha="center",
        va="center",
        fontsize=svg_figures.MEDIUM,
        fontweight="bold",
        color=_NAME,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )
