"""The style that the PNG figures share: colours, sizes, a new figure, and the file."""

import io

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


def save_png(figure, path) -> None:
    """Writes a figure as a PNG file, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    # The same arrays give the same bytes: no date and no version inside.
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    write_atomically(path, content.getvalue())
