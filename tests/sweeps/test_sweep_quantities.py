"""Sweeps whose cells have different headlines: which ones compare, the table and the page."""

import json
import re

import pytest
from scipy import stats

from elbo_lab.configs import Config
from elbo_lab.reports import html_page
from elbo_lab.sweeps import grid, sweep_comparison, sweep_reporting
from tests.sweeps import made_sweeps
from tests.sweeps.collecting import Page, collected, means


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """A sweep whose cells are measured by different quantities."""
    folder = tmp_path_factory.mktemp("families")
    axes = {"model": ["mlp", "pixelcnn", "vqvae"], "k": ["1", "5"]}
    cells = grid.expand(
        axes,
        lambda v: made_sweeps.config(v, replicates=3),
        lambda n, v: n != "k" or v["model"] == "mlp",
    )
    return made_sweeps.fill(folder, cells), folder, cells


def test_cells_of_several_families_name_their_quantities(families):
    values, folder, cells = families
    content = json.loads(json.dumps(collected(folder, cells, baseline=1)))
    first, baseline, exact, codes = content["cells"]
    headlines = [c["headline"] for c in content["cells"]]
    assert headlines == ["log_likelihood", "log_likelihood", "log_px", "log_px_code"]
    about = ("title", "symbol", "unit", "direction", "better", "draws")
    nats = "nats per image"
    bound = "lower bound in expectation"
    assert [
        tuple(c["results"][c["headline"]][n] for n in about) for c in (first, exact, codes)
    ] == [
        ("log-likelihood", "L_5000", nats, bound, "higher", 5000),
        ("log-likelihood", "log p(x)", nats, "exact", "higher", None),
        ("reconstruction", "log p(x|codes)", nats, None, "higher", None),
    ]
    # Representations are not results, and only layers have active units.
    assert list(codes["results"]) == ["log_px_code"] and list(exact["results"]) == ["log_px"]
    assert ["active_units" in c for c in content["cells"]] == [True, True, False, False]
    curves = [(c["curve"]["term"], c["curve"]["title"]) for c in (baseline, exact, codes)]
    assert curves == [
        ("bound", "training bound"),
        ("nll", "negative log-likelihood"),
        ("loss", "training loss"),
    ]
    # A bound of log p(x) compares with an exact log p(x), but not with a reconstruction.
    own = means(values, exact["name"], "log_px")
    low, high = stats.ttest_rel(own, means(values, baseline["name"])).confidence_interval()
    stored = exact["difference"]["headline"]
    assert (stored["low"], stored["high"]) == pytest.approx((low, high))
    assert codes["difference"] == {"reason": "another quantity: log p(x|codes), not L_5000"}
    assert set(first["difference"]) == {"headline", "elbo"}
    assert content["best"] is None
    # The made values rise from cell to cell.
    assert collected(folder, cells[:3])["best"] == exact["name"] == "model=pixelcnn, k=-"


def test_table_and_page_of_several_families(families):
    _, folder, cells = families
    content = json.loads(json.dumps(collected(folder, cells)))
    lines = sweep_reporting.table(content).splitlines()
    head = "model, k, runs, headline, by, ELBO, active, train s, minus baseline".split(", ")
    assert re.split(r"  +", lines[0]) == head
    symbols = [re.split(r"  +", line)[4] for line in lines[1:5]]
    assert symbols == ["L_5000", "L_5000", "log p(x)", "log p(x|codes)"]
    assert re.split(r"  +", lines[3])[5:7] == ["-", "-"]
    assert "L_5000: log-likelihood, lower bound in expectation" in lines
    assert "log p(x): log-likelihood, exact" in lines
    page = Page(html_page.page(content))
    words = (
        "L_5000 (lower bound in expectation), log p(x) (exact), all of log p(x)",
        "another quantity: log p(x|codes), not L_5000",
        "test log p(x|codes), nats",
        "negative log-likelihood, nats",
        "training loss, nats",
        "log-likelihood, L_5000 with 5,000 draws per image; log-likelihood, log p(x); "
        "reconstruction, log p(x|codes)",
    )
    for text in words:
        assert text in page.text
    names = [row[0] for row in page.rows[1:5]]
    assert names == [
        "mlp, k = 1L5000",
        "mlp, k = 5L5000",
        "pixelcnnlog p(x)",
        "vqvaelog p(x|codes)",
    ]
    assert page.rows[5][:3] == ["cell", "replicates", "ELBO, nats"]
    assert page.rows[8][:3] == ["pixelcnn", "3", "–"]
    assert "means_1" not in page.text and "k = -" not in page.text
    # Without latent variables there is no figure of k or of active units.
    other = html_page.page(collected(folder, cells[2:]))
    assert other.count("<svg") == 2 and "active units" not in other.lower()


def test_densities_and_bounds_of_other_draws_are_not_compared_and_masses_are(tmp_path):
    wanted = {
        "logistic": made_sweeps.config({"likelihood": "discretized_logistic"}, binarization="none"),
        "exact": made_sweeps.config({"model": "pixelcnn"}, binarization="none"),
        "gaussian": made_sweeps.config({"likelihood": "gaussian"}, binarization="none"),
        "draws": made_sweeps.config({}, binarization="none", eval_k=50),
        "law": made_sweeps.config({"likelihood": "continuous_bernoulli"}, binarization="none"),
    }
    cells = grid.expand({"what": list(wanted)}, lambda values: wanted[values["what"]])
    made_sweeps.fill(tmp_path, cells)
    content = collected(tmp_path, cells)
    reasons = [cell["difference"].get("reason") for cell in content["cells"]]
    law = "other test images or another likelihood"
    draws = "another eval_k: bounds of different K"
    assert reasons == ["the baseline", None, law, draws, law]
    assert set(content["cells"][3]["difference"]) == {"elbo", "reason"}
    assert content["cells"][2]["results"]["elbo"]["title"] == "ELBO, density"
    assert collected(tmp_path, cells, baseline=2)["cells"][4]["difference"] == {"reason": law}


@pytest.mark.parametrize(("better", "name"), [("lower", "b"), ("higher", "a"), (None, None)])
def test_the_best_cell_follows_the_headline(better, name):
    entry = {"better": better, "draws": None, "target": None, "symbol": "s"}

    def measured(name, mean):
        own = {"name": name, "headline": "h", "results": {"h": entry | {"mean": mean}}}
        return sweep_comparison.Measured(Config(), own, {0: {}})

    assert sweep_comparison.best([measured("a", 2.0), measured("b", 1.0)]) == name
    assert sweep_comparison.best([measured("a", 2.0)]) is None


def test_cells_of_a_method_without_a_headline_are_not_compared(tmp_path, monkeypatch):
    without = made_sweeps.FAMILIES["pixelcnn"]._replace(headline=None)
    monkeypatch.setitem(made_sweeps.FAMILIES, "pixelcnn", without)
    cells = made_sweeps.cells({"layers": ["1", "2"]}, model="pixelcnn", replicates=2)
    made_sweeps.fill(tmp_path, cells)
    content = collected(tmp_path, cells)
    assert content["best"] is None
    assert content["cells"][1]["difference"] == {
        "reason": "no quantity to compare by",
        "log_px": content["cells"][1]["difference"]["log_px"],
    }
    lines = sweep_reporting.table(content).splitlines()
    assert lines[0].split()[:4] == ["layers", "runs", "headline", "log"]
    assert lines[2].endswith("no quantity to compare by")
    page = Page(html_page.page(content))
    assert page.rows[0] == ["cell", "headline", "minus baseline"]
    assert page.rows[4][:2] == ["layers = 1", "2"] and "±" in page.rows[4][2]
