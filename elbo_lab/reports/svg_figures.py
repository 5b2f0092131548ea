"""Parts of the figures on a page: SVG text whose colours and fonts are those of the style sheet.

Figures are narrow, so that their text stays legible where a phone shrinks them.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

from elbo_lab.reports.figure_style import clean_axes

# Colours by their names in the page's style sheet. The series are Okabe and Ito's and a grey.
PALETTE = {
    "ink": "#222222",
    "axis": "#999999",
    "grid": "#dddddd",
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#009e73",
    "series-4": "#cc79a7",
    "series-5": "#b58900",
    "series-6": "#56b4e9",
    "series-7": "#777777",
}
_SERIES = [colour for name, colour in PALETTE.items() if name.startswith("series")]
MARKERS, LINES = "osD^vP<", ("-", "--", ":", "-.")
WIDTH, HEIGHT = 4.4, 3.3  # inches
SMALL, MEDIUM = 9.5, 10.5


def style(index: int) -> dict[str, Any]:
    """The colour and marker of the series with this index."""
    # The markers shift with each round of the colours, so that the pairs differ.
    rounds = index // len(_SERIES)
    return {
        "color": _SERIES[index % len(_SERIES)],
        "marker": MARKERS[(index + rounds) % len(MARKERS)],
        "markersize": 4.5,
    }


def dashes(index: int) -> str:
    """The line style of the series with this index: another for each round of the colours."""
    return LINES[index // len(_SERIES) % len(LINES)]


def new_figure(height: float, labels: int = 1):
    """A figure of a height in inches, with room below for so many labels in two columns."""
    from matplotlib.figure import Figure

    height += 0.19 * math.ceil(labels / 2) if labels > 1 else 0.0
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    return figure


def finish(axes, grid: str = "y") -> None:
    """Applies the page's style to a panel, with grid lines across one axis."""
    axes.patch.set_alpha(0.0)
    clean_axes(axes)
    axes.tick_params(which="both", labelsize=SMALL)
    axes.grid(axis=grid, color=PALETTE["grid"], linewidth=0.6)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(PALETTE["ink"])


def ticks_at(axes, values: Sequence[float]) -> None:
    """Puts the ticks of the horizontal axis at these values alone."""
    from matplotlib.ticker import NullLocator

    axes.set_xticks(values, [f"{value:,.10g}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def log_if_wide(axes, values: Sequence[float]) -> None:
    """Makes the horizontal axis logarithmic if the values spread by more than a factor of 5."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if min(values) > 0 and max(values) > 5 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def legend(figure, *panels) -> None:
    """Draws a legend of the panels' labels, each once; none for a single label."""
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels, handles = list(entries), list(entries.values())
    if len(labels) > 1:
        columns = 1 if max(map(len, labels)) > 22 else 2
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            fontsize=SMALL,
            frameon=False,
            labelcolor=PALETTE["ink"],
        )


def svg_text(figure, name: str) -> str:
    """The figure's <svg> element. Its ids begin with `name`; colours and fonts are the page's."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # Without metadata the same cells give the same text.
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(content, metadata=no_metadata)
    text = content.getvalue()
    text = text[text.index("<svg") :]
    # A style sheet inside an <svg> would apply to the whole page.
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*;?|(font: [\d.]+px) [^;\"]*", r"\1", text)
    for colour_name, colour in PALETTE.items():
        text = text.replace(colour, f"var(--{colour_name})")
    return text.replace("#000000", "var(--ink)").strip()


def standalone(svg: str) -> str:
    """A page's figure as a separate file, with the colours of PALETTE in place of the page's."""
    for name, colour in PALETTE.items():
        svg = svg.replace(f"var(--{name})", colour)
    return svg.replace("<svg ", '<svg font-family="sans-serif" ', 1)
