"""Figures of a run: arrays in, a PNG file out. Matplotlib is imported when one is drawn."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elbo_lab.reports import tiles
from elbo_lab.reports.figure_style import (
    BLUE,
    GREEN,
    GREY,
    LABEL_SIZE,
    ORANGE,
    PALE,
    TEXT,
    TICK_SIZE,
    TITLE_SIZE,
    clean_axes,
    new_figure,
    save,
)

# Ten classes: M. Petroff, "Accessible color sequences for data visualization", 2021.
_TEN = [
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
]
_CENTRED = {"ha": "center", "va": "center", "fontsize": 14, "fontweight": "bold", "color": TEXT}


class Curve(NamedTuple):
    """A term of the loss over training, averaged over replicates."""

    steps: np.ndarray  # [T]
    mean: np.ndarray  # [T]
    error: np.ndarray | None  # [T], standard errors; None for a single replicate
    replicates: int


def learning_curves(path, records: list[dict], curves: Mapping[str, tuple[str, str]]) -> None:
    """Draws the first curve on the left, and the others below each other on the right.

    The values of the first steps are far from the later ones, so the vertical axes show the range
    of the last nine tenths of the records.

    Args:
      path: the PNG file.
      records: as `metrics.read_metrics` returns them, each with "step" and the curves' names;
        values that are lists of R replicates are drawn as mean and standard error over the finite
        ones.
      curves: name -> title and unit.
    """
    first, *right = curves
    figure = new_figure(1440, max(630, 270 * len(right)))
    grid = figure.add_gridspec(max(1, len(right)), 2 if right else 1)
    if right:
        grid.set_width_ratios([3, 2])
    axes = figure.add_subplot(grid[:, 0])
    _draw_panel(axes, _curve(records, first), curves[first], BLUE)
    axes.set_xlabel("step", fontsize=LABEL_SIZE)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=TICK_SIZE, frameon=False, loc="lower right")
    for row, name in enumerate(right):
        axes = figure.add_subplot(grid[row, 1])
        _draw_panel(axes, _curve(records, name), curves[name], (ORANGE, GREEN)[row % 2])
        if row == len(right) - 1:  # The panels above have the same steps.
            axes.set_xlabel("step", fontsize=LABEL_SIZE)
    save(figure, path)


def image_grid(path, images, columns: int, title: str, rows: Sequence[str] = ()) -> None:
    """Draws images in rows, from left to right and from the top down.

    Args:
      path: the PNG or SVG file.
      images: [n, H, W] from black to white, or [n, H, W, 3] in colours: uint8, or floats from 0
        to 1.
      columns: number of images in a row.
      title: above them, e.g. "means of 100 samples from the prior".
      rows: the name of each row, at its left; empty for none.
    """
    images = tiles.levels(images)
    scale = tiles.scale_of(images)
    image = tiles.enlarge(tiles.mosaic(images, min(columns, len(images)), gap=1), scale)
    left = 110 if rows else 24
    figure, axes = tiles.image_figure(image, left=left, right=24, bottom=24, top=60, min_width=480)
    tops = np.arange(len(rows)) * (images.shape[1] + 1)
    centres = (tops + images.shape[1] / 2) * scale - 0.5
    axes.set_yticks(centres, rows, fontsize=TICK_SIZE)
    axes.set_xticks([])
    axes.tick_params(length=0, labelcolor=TEXT)
    axes.set_title(title, fontsize=TITLE_SIZE, color=TEXT)
    save(figure, path)


def reconstructions(path, inputs, outputs, columns: int = 10) -> None:
    """Draws images, and the reconstruction of each below it.

    Args:
      path: the PNG file.
      inputs: [n, H, W] from black to white, or [n, H, W, 3] in colours: uint8, or floats from 0
        to 1.
      outputs: of the same shape, the means of p(x|z) (draws, where it has no mean in closed
        form), each for one draw z from its input's posterior.
      columns: number of pairs in a row.
    """
    inputs, outputs = tiles.levels(inputs), tiles.levels(outputs)
    scale, columns = tiles.scale_of(inputs), min(columns, len(inputs))
    height = inputs.shape[1]
    bands, centres, top = [], [], 0
    for start in range(0, len(inputs), columns):
        upper = tiles.mosaic(inputs[start : start + columns], columns, gap=1)
        lower = tiles.mosaic(outputs[start : start + columns], columns, gap=1)
        if bands:
            bands.append(np.ones((height // 4, *upper.shape[1:])))
            top += height // 4
        bands += [upper, np.ones((1, *upper.shape[1:])), lower]
        centres += [top + height / 2, top + height + 1 + height / 2]
        top += 2 * height + 1
    image = tiles.enlarge(np.concatenate(bands), scale)
    figure, axes = tiles.image_figure(image, left=190, right=24, bottom=24, top=24)
    labels = ["input", "reconstruction"] * (len(centres) // 2)
    axes.set_yticks(np.array(centres) * scale - 0.5, labels, fontsize=LABEL_SIZE)
    axes.set_xticks([])
    axes.tick_params(length=0)
    save(figure, path)


def active_units(path, activity: Sequence[np.ndarray], threshold: float = 0.01) -> None:
    """Draws Var_x E_q[z|x] of every latent unit, sorted, one panel per stochastic layer.

    Args:
      path: the PNG file.
      activity: an array [L] for each stochastic layer, from the data upwards.
      threshold: units above it count as active.
    """
    activity = [np.sort(np.asarray(layer, np.float64).ravel())[::-1] for layer in activity]
    positive = np.concatenate([layer[layer > 0] for layer in activity] + [[threshold]])
    bottom = 10 ** math.floor(math.log10(max(min(positive.min(), threshold / 10), 1e-8)))
    top = 10 ** (math.log10(positive.max()) + 0.25)
    figure = new_figure(900 if len(activity) == 1 else 690 * len(activity), 540)
    for index, layer in enumerate(activity):
        axes = figure.add_subplot(1, len(activity), index + 1)
        active = layer > threshold
        axes.bar(
            np.arange(1, len(layer) + 1),
            np.maximum(layer, bottom) - bottom,
            bottom=bottom,
            width=0.8 if len(layer) <= 60 else 1.0,
            color=np.where(active, BLUE, GREY),
        )
        axes.set_yscale("log")
        axes.set_ylim(bottom, top)
        axes.set_xlim(0.25, len(layer) + 0.75)
        axes.axhline(threshold, color=ORANGE, linewidth=1.2, linestyle="--")
        name = f"layer {index + 1}: " if len(activity) > 1 else ""
        title = f"{name}{active.sum()} of {len(layer)} units active (above {threshold:g})"
        axes.set_title(title, loc="left", fontsize=TITLE_SIZE, color=TEXT)
        axes.set_xlabel("latent unit, sorted by activity", fontsize=LABEL_SIZE)
        if index == 0:
            axes.set_ylabel(
                r"activity $\mathrm{Var}_x\,\mathrm{E}_q[z\,|\,x]$", fontsize=LABEL_SIZE
            )
        axes.xaxis.get_major_locator().set_params(integer=True)
        clean_axes(axes)
    save(figure, path)


def latent_scatter(path, means, labels=None, title: str = "") -> None:
    """Draws images as points in a two-dimensional latent space, coloured by class.

    Args:
      path: the PNG or SVG file.
      means: [N, 2], E_q[z|x] of each image.
      labels: [N] classes, or None.
      title: above them; "" for none.
    """
    means = np.asarray(means, np.float64)
    figure = new_figure(1020 if labels is not None else 930, 900)
    axes = figure.add_subplot()
    size = float(np.clip(20_000 / max(1, len(means)), 3, 20))
    style = {"s": size, "linewidths": 0, "alpha": 0.75}
    if labels is None:
        axes.scatter(means[:, 0], means[:, 1], color=BLUE, **style)
    else:
        classes, index = np.unique(np.asarray(labels), return_inverse=True)
        colours = class_colours(len(classes))
        # All points in one call, in the order of the images: no class lies above all others.
        axes.scatter(means[:, 0], means[:, 1], color=[colours[i] for i in index], **style)
        for name, colour in zip(classes, colours, strict=True):
            axes.scatter([], [], s=40, color=colour, linewidths=0, label=str(name))
            # The name also stands at the median of its points, for readers who cannot tell all
            # the colours apart.
            median = np.median(means[np.asarray(labels) == name], axis=0)
            axes.annotate(str(name), median, path_effects=_halo(), **_CENTRED)
        axes.legend(
            title="class",
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0,
            frameon=False,
            fontsize=LABEL_SIZE,
            title_fontsize=LABEL_SIZE,
            ncols=1 + (len(classes) - 1) // 20,
            handletextpad=0.2,
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(title, fontsize=TITLE_SIZE, color=TEXT)
    axes.set_xlabel(r"$z_1$ (posterior mean)", fontsize=LABEL_SIZE)
    axes.set_ylabel(r"$z_2$ (posterior mean)", fontsize=LABEL_SIZE)
    clean_axes(axes)
    save(figure, path)


def latent_grid(
    path, images, n: int, quantiles, title: str = "", source: str = "the prior"
) -> None:
    """Draws images decoded on a grid over a two-dimensional latent space.

    Args:
      path: the PNG or SVG file.
      images: [n * n, H, W] or [n * n, H, W, 3]; the one at index i * n + j is decoded from
        (z_1, z_2) = (quantiles[0, i], quantiles[1, j]). z_1 runs to the right and z_2 upwards.
      n: values along each axis.
      quantiles: [2, n] ascending, the values of z_1 and of z_2; or [n], the same for both.
      title: above them; "" for none.
      source: what has these quantiles, for the labels of the axes.

    Raises:
      ValueError: there are not n * n images, or not n quantiles of an axis.
    """
    images = tiles.levels(images)
    height, width, channels = images.shape[1:]
    quantiles = np.asarray(quantiles, np.float64)
    if len(images) != n * n or quantiles.shape not in ((n,), (2, n)):
        raise ValueError(
            f"{n} x {n} images and {n} quantiles are needed; got {len(images)} images and "
            f"quantiles of shape {quantiles.shape}"
        )
    # [z_1, z_2] -> rows from the top down (z_2 falling), columns z_1
    rows = images.reshape(n, n, height, width, channels).transpose(1, 0, 2, 3, 4)[::-1]
    scale = max(1, 1200 // (n * max(height, width)))
    image = tiles.enlarge(tiles.mosaic(rows.reshape(-1, height, width, channels), n, gap=0), scale)
    top = 90 if title else 24  # room for two lines
    figure, axes = tiles.image_figure(image, left=120, right=24, bottom=110, top=top)
    shown = np.arange(n)[:: math.ceil(n * 70 / image.shape[1])]
    shown += (n - 1 - shown[-1]) // 2
    columns, rows = (
        [f"{value:.2f}".replace("-", "\N{MINUS SIGN}") for value in values[shown]]
        for values in np.broadcast_to(quantiles, (2, n))
    )
    axes.set_xticks((shown + 0.5) * width * scale - 0.5, columns, fontsize=TICK_SIZE)
    axes.set_yticks((n - shown - 0.5) * height * scale - 0.5, rows, fontsize=TICK_SIZE)
    axes.tick_params(length=3, color=GREY)
    axes.set_title(title, fontsize=TITLE_SIZE, color=TEXT)
    axes.set_xlabel(rf"$z_1$ (quantiles of {source})", fontsize=LABEL_SIZE)
    axes.set_ylabel(rf"$z_2$ (quantiles of {source})", fontsize=LABEL_SIZE)
    save(figure, path)


def _curve(records: list[dict], name: str) -> Curve:
    """The curve of a term, its mean and standard error over the finite replicates."""
    steps = np.array([record["step"] for record in records], np.int64)
    values = np.array([np.atleast_1d(record[name]) for record in records], np.float64)  # [T, R]
    if values.ndim < 2 or values.shape[1] < 2:
        return Curve(steps, values.ravel(), None, 1)
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(1), 1)
    mean = np.where(finite.any(1), np.where(finite, values, 0).sum(1) / count, np.nan)
    squares = np.where(finite, values - mean[:, None], 0) ** 2
    error = np.sqrt(squares.sum(1) / np.maximum(count - 1, 1) / count)
    return Curve(steps, mean, error, values.shape[1])


def _draw_panel(axes, curve: Curve, title_and_unit: tuple[str, str], colour: str) -> None:
    """Draws a curve with its title, its unit and the limits of its later part."""
    _draw_curve(axes, curve, colour)
    _set_robust_limits(axes, curve)
    title, unit = title_and_unit
    axes.set_title(title, loc="left", fontsize=TITLE_SIZE, color=TEXT)
    axes.set_ylabel(unit, fontsize=LABEL_SIZE)


def _draw_curve(axes, curve: Curve, colour: str) -> None:
    steps, mean, error, replicates = curve
    label = None
    if error is not None:
        label = f"mean of {replicates} replicates, \N{PLUS-MINUS SIGN} 1 standard error"
        axes.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)
    marker = "o" if len(steps) < 10 else None
    axes.plot(steps, mean, color=colour, linewidth=1.4, marker=marker, markersize=4, label=label)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.margins(x=0.02)
    clean_axes(axes)


def _set_robust_limits(axes, curve: Curve) -> None:
    """Limits the vertical axis to the last nine tenths of a curve, without its outliers."""
    late = slice(len(curve.mean) // 10, None)
    mean = curve.mean[late]
    spread = 0 if curve.error is None else curve.error[late]
    values = np.concatenate([mean - spread, mean + spread])
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)


def class_colours(count: int) -> list:
    """A colour for each of so many classes."""
    if count <= len(_TEN):
        return list(_TEN[:count])
    from matplotlib import colormaps

    return list(colormaps["turbo"](np.linspace(0.03, 0.97, count)))


def _halo() -> list:
    """A white outline around letters."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]
