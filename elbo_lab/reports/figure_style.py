"""The style that the figures of runs share: colours, sizes, a new figure, and the file."""

import io
from pathlib import Path

from elbo_lab.files import write_atomically

DPI = 150
# Colours of Okabe and Ito, which people with any colour vision can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, PALE, TEXT = "#999999", "#DDDDDD", "#222222"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 11, 10, 9


def new_figure(width: int, height: int):
    """An empty figure of this size in pixels."""
    from matplotlib.figure import Figure

    # The addition keeps a size in whole pixels from being rounded down.
    size = ((width + 1e-3) / DPI, (height + 1e-3) / DPI)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches
    return figure


def clean_axes(axes) -> None:
    """Removes the top and right spines, and draws the other two in grey below the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(which="both", labelsize=TICK_SIZE, color=GREY, labelcolor=TEXT)
    axes.set_axisbelow(True)


def save(figure, path) -> None:
    """Writes a figure as a PNG file, or as SVG if the path ends in .svg, atomically."""
    is_svg = Path(path).suffix == ".svg"
    write_atomically(path, _svg(figure) if is_svg else _png(figure))


def _png(figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    # The same arrays give the same bytes: no date and no version inside.
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


def _svg(figure) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "elbo_lab"}):
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(content, metadata=no_metadata)
    return content.getvalue().encode()
