"""The page of a sweep in headless Chromium: it fits, loads nothing, logs nothing, and prints."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from elbo_lab import files
from elbo_lab.reports import html_page
from elbo_lab.sweeps import sweep_folder, sweep_results
from tests.sweeps import made_sweeps

NAMES = ("chromium", "chromium-browser", "google-chrome", os.environ.get("CHROME") or "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--enable-logging=stderr", "--no-pdf-header-footer"),
)
# A script that measures a copy of the page after it has loaded, and sends the result to the page
# around it. The copy is in a frame, since a window is at least 500 pixels wide.
PROBE = """
<script>
addEventListener("load", () => {
  const outside = [...document.querySelectorAll("body *")].filter(e => !e.closest(".wide, svg")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
  const letters = [...document.querySelectorAll("svg text")];
  const cut = letters.filter(e => {
    const box = e.getBoundingClientRect(), figure = e.closest("svg").getBoundingClientRect();
    return box.left < figure.left - 1 || box.right > figure.right + 1
      || box.top < figure.top - 1 || box.bottom > figure.bottom + 1;
  }).map(e => e.textContent);
  parent.postMessage(JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth, outside, cut,
    text: Math.min(...letters.map(e => e.getBoundingClientRect().height)),
    loaded: performance.getEntriesByType("resource").map(e => e.name),
    rows: document.querySelectorAll("tbody tr").length,
    paper: getComputedStyle(document.body).backgroundColor }), "*");
});
</script>
"""
AROUND = """
<!doctype html><title>frame</title><link rel="icon" href="data:,"><pre id="probe"></pre><script>
addEventListener("message", e => { document.getElementById("probe").textContent = e.data; });
</script><iframe src="copy.html" style="border: 0; width: {width}px; height: 800px"></iframe>
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None, reason="no Chromium or Chrome in PATH or $CHROME: the page is not opened"
    ),
]


GRID = {
    "objective": ["elbo", "iwae"],
    "k": ["1", "5", "50"],
    "estimator": ["reparam", "dreg", "vimco"],
}
LONG_NAMES = {
    "lr_schedule": ["burda", "burda_rounded", "constant", "cosine"],
    "init": ["glorot", "glorot_same_key"],
}
FAMILIES = {"binarization": ["dynamic", "fixed"], "model": list(made_sweeps.FAMILIES)}


def made(folder, axes: dict[str, list[str]]):
    """Writes the page of a sweep whose last cell is not trained."""
    cells = made_sweeps.cells(axes, replicates=3)
    made_sweeps.fill(folder, cells[:-1])
    store = sweep_folder.read(folder, {"blobs.npz": made_sweeps.DIGEST})
    command = "python -m experiments.sweep " + " ".join(f"--{n}={','.join(axes[n])}" for n in axes)
    sweep = files.jsonable(sweep_results.collect(cells, 0, store, {}, command))
    path = folder / "report.html"
    path.write_text(html_page.page(sweep))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a grid of a usual size, with skipped cells and one that is not trained."""
    return made(tmp_path_factory.mktemp("page"), GRID)


def probed(page, tmp_path, width: int, *flags: str) -> dict:
    """The measurements of `PROBE` in a frame of a width in pixels."""
    copy, around = tmp_path / "copy.html", tmp_path / "around.html"
    copy.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    around.write_text(AROUND.replace("{width}", str(width)))
    done = browse(tmp_path, around, *flags, "--window-size=1400,900", "--dump-dom")
    return json.loads(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)[1])


def browse(tmp_path, page, *flags: str) -> subprocess.CompletedProcess:
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    logged = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert not logged, logged
    return done


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_loads_nothing(page, tmp_path, width, dark):
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    measured = probed(page, tmp_path, width, scheme)
    assert measured["width"] == width
    assert measured["scroll"] <= width
    assert measured["outside"] == measured["cut"] == []
    assert measured["loaded"] == []
    assert measured["text"] > 9  # pixels, the smallest height of a figure's letters
    cells = 2 * 3 * 3 - 2 - 1  # two skipped, one not trained
    assert measured["rows"] == 2 * cells
    paper = sum(map(int, re.findall(r"\d+", measured["paper"])[:3])) / 3
    assert paper < 60 if dark else paper > 240


def test_long_names_of_cells_are_not_cut_off(tmp_path):
    measured = probed(made(tmp_path, LONG_NAMES), tmp_path, 1280)
    assert measured["cut"] == [] and measured["rows"] == 2 * (4 * 2 - 1)


@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_of_several_families_fits(tmp_path, width):
    measured = probed(made(tmp_path, FAMILIES), tmp_path, width)
    assert measured["scroll"] <= width and measured["outside"] == measured["cut"] == []
    assert measured["rows"] == 2 * (2 * 3 - 1)


def test_a_console_error_would_be_seen(page, tmp_path):
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text().replace("</body>", "<script>console.error(1)</script></body>"))
    with pytest.raises(AssertionError, match="CONSOLE"):
        browse(tmp_path, copy, "--dump-dom")


def test_it_is_drawn_and_printed(page, tmp_path):
    import matplotlib.image

    browse(tmp_path, page, "--window-size=360,2000", f"--screenshot={tmp_path / 'page.png'}")
    pixels = matplotlib.image.imread(tmp_path / "page.png")[..., :3]
    assert pixels.shape == (2000, 360, 3)
    # The outermost columns are empty: nothing runs off the page.
    assert np.all(pixels[:, [0, -1]] == 1.0)
    assert np.ptp(pixels, axis=(0, 2)).max() == pytest.approx(1.0, abs=0.2)
    browse(tmp_path, page, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and b"%%EOF" in content[-16:]
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 2
