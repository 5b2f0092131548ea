"""The study mixtures without processes: EM's path, log p(x) = ELBO + KL, the figure, the tables."""

import xml.dom.minidom

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as laws
from scipy.special import logsumexp

from elbo_lab import data
from elbo_lab.data import Batch, Spec
from elbo_lab.errors import UserError
from elbo_lab.models import NOTHING_GIVEN
from elbo_lab.models.mixture import MixtureOptions, make
from elbo_lab.reports import mixture_figures
from elbo_lab.studies import mixture_analysis, mixture_results, stored_results

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = data.load("pinwheel").x_train[:200]


@pytest.fixture(scope="module")
def fitted():
    """A mixture, its start, its path of EM, and its law at the start."""
    model = make(MixtureOptions(4, "gaussian", "diagonal"), Spec("real", (2,), None))
    start = jax.jit(model.init)(jax.random.key(0), Batch(jnp.asarray(X[:50])))
    path = mixture_analysis.em_path(model, start, jnp.asarray(X), 6)
    return start, path, model.distribution((), start, NOTHING_GIVEN)


def test_the_bound_of_a_path_lies_between_the_likelihoods_before_and_after(fitted):
    start, path, _ = fitted
    variances = np.float64(start.covariances) + 1e-3
    log_joint = np.log(np.float64(start.shares)) + laws.norm.logpdf(
        X[:, None], start.means, np.sqrt(variances)
    ).sum(-1)
    assert path.log_px[0] == pytest.approx(logsumexp(log_joint, axis=1).mean(), abs=1e-4)
    assert path.log_px.shape == (7,) and path.elbo.shape == (6,)
    assert np.all(path.elbo > path.log_px[:-1]) and np.all(path.elbo < path.log_px[1:])


@pytest.mark.slow
def test_the_rows_add_up_and_the_posterior_has_no_gap(fitted):
    rows = mixture_analysis.decompositions(fitted[2], jnp.asarray(X))
    assert len({row["q"] for row in rows}) == len(rows) == 5
    for row in rows:
        assert row["log_px"] == pytest.approx(row["elbo"] + row["kl"], abs=1e-4)
        assert row["residual"] < 1e-4
    assert abs(rows[0]["kl"]) < 1e-5 < min(row["kl"] for row in rows[1:])


def test_the_figure_is_svg_and_the_tables_are_made_of_the_stored_file(fitted, tmp_path):
    _, path, law = fitted
    grid = np.linspace(-3, 3, 20)
    values = np.ones((20, 20))
    svg = mixture_figures.em_figure(X, X[:9], (grid, grid, values), *path)
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
    assert mixture_results.markdown(mixture_results.read(tmp_path)) == "No study is stored yet."
    cell = {
        "values": {"covariance": "full", "fit": "EM"},
        "config": {"dataset": "pinwheel", "components": 4},
        "headline": "log_px",
        "results": {"log_px": {"mean": -1.25, "standard_error": 0.02, "over": "replicates"}},
        "failures": {},
        **{"steps": 1200, "replicates": 3},
    }
    sweep = {
        **dict.fromkeys(("elbo_lab", "jax", "date"), "x"),
        "devices": ["cpu"],
        "command": "python -m experiments.study mixtures --workdir=/a",
        "grid": {"covariance": ["full"], "fit": ["EM"]},
        "cells": [cell],
    }
    rows = mixture_analysis.decompositions(law, jnp.asarray(X))
    analysis = mixture_analysis.Analysis(path, rows, X, X, None)
    content = mixture_results.content(sweep, analysis)
    stored_results.write(tmp_path / mixture_results.FILE, content)
    text = mixture_results.markdown(mixture_results.read(tmp_path))
    assert "| full | EM | -1.250 +- 0.020 | 1,200 |" in text
    assert f"| uniform | {rows[-1]['log_px']:.4f} | {rows[-1]['elbo']:.4f} |" in text
    (tmp_path / mixture_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        mixture_results.read(tmp_path)


def test_the_run_of_the_first_cell_is_read_as_the_command_line_says(tmp_path, monkeypatch):
    monkeypatch.setattr(mixture_analysis, "_of_run", lambda trained: trained)
    runs = [{"run": "runs/x", "replicate": 1}]
    sweep = {"cells": [{"config": {"fit": "em"}, "runs": runs}, {"status": "skipped"}]}
    assert mixture_analysis.of_sweep(tmp_path, sweep) is None
    mixture_analysis.compute(tmp_path, sweep, lambda *place: place)
    assert mixture_analysis.of_sweep(tmp_path, sweep) == (tmp_path / "runs/x", 1)
    gradient = {"cells": [{"config": {"fit": "gradient"}, "runs": runs}]}
    mixture_analysis.compute(tmp_path, gradient, None)
    assert mixture_analysis.of_sweep(tmp_path, gradient) is None
