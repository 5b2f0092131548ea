"""Figures of mutual information: bounds of a run against N, and those of the study information."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from elbo_lab.reports import svg_figures

# Estimate -> its label, in the order of colours.
LABELS = {
    "lower": "InfoNCE (lower)",
    "corrected": "bias corrected",
    "upper": "leave-one-out (upper)",
    "rate": "rate (upper)",
    "model": "Barber-Agakov (lower)",
}
# Estimates of pairs of examples, drawn with bars of two standard errors.
_OF_PAIRS = ("lower", "corrected", "upper")
_AXIS, _INK = svg_figures.PALETTE["axis"], svg_figures.PALETTE["ink"]
# Room above the greatest value that is shown, as a share of it: leave-one-out has no limit.
_ROOM = 1.3


def by_size(curve: Mapping[str, Any]) -> str:
    """SVG of the bounds of a run against N, with log N and the rate.

    Args:
      curve: of `informing.summary`.
    """
    figure = svg_figures.new_figure(svg_figures.HEIGHT, 6)
    axes = figure.subplots()
    numbers = curve["examples"]
    _lines(axes, numbers, curve, _OF_PAIRS)
    axes.axhline(curve["rate"], label=LABELS["rate"], **_line("rate") | {"marker": ""})
    axes.plot(numbers, [math.log(n) for n in numbers], **_limit("log N"))
    axes.set_xscale("log")
    svg_figures.ticks_at(axes, numbers)
    shown = [curve["rate"], math.log(numbers[-1]), *curve["lower"], *curve["corrected"]]
    _limits(axes, shown)
    axes.set_xlabel("N, examples of q(z)", fontsize=svg_figures.MEDIUM)
    axes.set_ylabel("I(x; z), nats", fontsize=svg_figures.MEDIUM)
    svg_figures.finish(axes)
    svg_figures.legend(figure, axes)
    return svg_figures.svg_text(figure, "information")


def study(results: Mapping[str, Any]) -> str:
    """SVG of the study information: two laws of equal covariance, estimates against the truth, and
    VAEs while they train.

    Args:
      results: "laws", "gaussians" and "training" of `information_results.content`.
    """
    from matplotlib.figure import Figure

    by_latents: dict[str, list[Mapping[str, Any]]] = {}
    for row in results["training"]:
        by_latents.setdefault(row["latent_dims"], []).append(row)
    count = 2 + len(by_latents)
    figure = Figure(figsize=(6.6, 0.6 + 2.5 * count), layout="constrained")
    figure.patch.set_alpha(0.0)
    panels = figure.subplots(count, 2, squeeze=False)
    for axes, law in zip(panels[0], results["laws"], strict=True):
        _points(axes, law)
    by_number: dict[int, list[Mapping[str, Any]]] = {}
    for row in results["gaussians"]:
        by_number.setdefault(row["examples"], []).append(row)
    for axes, (number, rows) in zip(panels[1], by_number.items(), strict=True):
        _against_truth(axes, number, rows)
    for pair, (latents, rows) in zip(panels[2:], by_latents.items(), strict=True):
        _training(*pair, latents, sorted(rows, key=lambda row: row["epochs"]))
    svg_figures.legend(figure, panels[1, 0], *panels[2:, 1])
    return svg_figures.svg_text(figure, "information")


def _points(axes, law: Mapping[str, Any]) -> None:
    """Draws of a law of x and z in the plane."""
    x, z = law["points"]
    colour = svg_figures.style(0)["color"]
    axes.plot(x, z, "o", color=colour, markersize=2, alpha=0.5, markeredgewidth=0)
    axes.set_aspect("equal")
    axes.set_xlim(-3.5, 3.5)
    axes.set_ylim(-3.5, 3.5)
    _title(axes, f"{law['law']}: covariance 0, I = {law['exact']:.2f} nats")
    _finish(axes, "x", "z")


def _against_truth(axes, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Estimates of N pairs against the exact information of Gaussians."""
    exact = [row["exact"] for row in rows]
    axes.plot([0, exact[-1]], [0, exact[-1]], color=_AXIS, linewidth=1, label="exact")
    axes.axhline(math.log(number), **_limit("log N"))
    names = (*_OF_PAIRS, "model")
    columns = {name: [row[name] for row in rows] for name in names}
    columns |= {f"{name}_error": [row[f"{name}_error"] for row in rows] for name in names}
    _lines(axes, exact, columns, names)
    axes.set_ylim(0, _ROOM * exact[-1])
    _title(axes, f"Gaussians, N = {number:,}: log N = {math.log(number):.1f}")
    _finish(axes, "exact I(x; z), nats", "estimate, nats")


def _training(left, right, latents: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """ELBO and information of a VAE against its epochs."""
    epochs = [row["epochs"] for row in rows]
    errors = [2 * row["elbo_error"] for row in rows]
    left.errorbar(
        epochs,
        [row["elbo"] for row in rows],
        yerr=errors,
        **svg_figures.style(6),
        linewidth=1.4,
        capsize=2,
    )
    names = tuple(LABELS)
    columns = {name: [row[name] for row in rows] for name in names}
    columns |= {f"{name}_error": [row[f"{name}_error"] for row in rows] for name in names}
    _lines(right, epochs, columns, names)
    right.axhline(math.log(rows[0]["examples"]), **_limit("log N"))
    shown = [value for name in ("lower", "rate", "model") for value in columns[name]]
    _limits(right, [*shown, math.log(rows[0]["examples"])])
    for axes in (left, right):
        axes.set_xscale("log")
        svg_figures.ticks_at(axes, epochs)
    _title(left, f"VAE, latents: {latents}")
    _title(right, f"VAE, latents: {latents}")
    _finish(left, "epochs", "ELBO, nats")
    _finish(right, "epochs", "I(x; z), nats")


def _limits(axes, values: Sequence[float | None]) -> None:
    """Limits of the vertical axis around 0 and the finite values, with room above for what ends."""
    shown = [value for value in values if value is not None and math.isfinite(value)]
    greatest, least = max(shown), min(0.0, *shown)
    axes.set_ylim(least - 0.1 * (greatest - least) * (least < 0), _ROOM * greatest)


def _lines(axes, places: Sequence[float], columns: Mapping[str, Any], names) -> None:
    """A line with bars of two standard errors for each estimate; infinite values are left out."""
    for name in names:
        bars = zip(places, columns[name], columns[f"{name}_error"], strict=True)
        kept = [bar for bar in bars if bar[1] is not None and math.isfinite(bar[1])]
        if kept:
            at, values, errors = zip(*kept, strict=True)
            style = _line(name) | {"capsize": 2, "label": LABELS[name]}
            errors = [2 * error if error and math.isfinite(error) else 0.0 for error in errors]
            axes.errorbar(at, values, yerr=errors, **style)


def _line(name: str) -> dict[str, Any]:
    return svg_figures.style(list(LABELS).index(name)) | {"linewidth": 1.3}


def _limit(label: str) -> dict[str, Any]:
    """The style of the line at log N."""
    return {"color": _INK, "linestyle": ":", "linewidth": 1.2, "label": label}


def _title(axes, text: str) -> None:
    axes.set_title(text, fontsize=svg_figures.SMALL, color=_INK)


def _finish(axes, horizontal: str, vertical: str) -> None:
    axes.set_xlabel(horizontal, fontsize=svg_figures.SMALL)
    axes.set_ylabel(vertical, fontsize=svg_figures.SMALL)
    svg_figures.finish(axes)
