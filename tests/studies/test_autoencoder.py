"""The study autoencoder: its measures and (13.28) against NumPy, its cells, figure and tables."""

import xml.dom.minidom

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab.cli import study_flags
from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.models.base import Model
from elbo_lab.reports import autoencoder_figures
from elbo_lab.studies import autoencoder_analysis, autoencoder_results, stored_results
from elbo_lab.studies.autoencoder import STUDY
from elbo_lab.studies.autoencoder_analysis import Comparison, Pictures, Replicate
from tests.losses.own_normal import OwnNormal

pytestmark = pytest.mark.usefixtures("fast_compilation")

RNG = np.random.default_rng(0)
N, D, L, VARIANCE = 6, 5, 2, 0.3


def test_the_cells_differ_in_the_objective_alone_and_lambda_is_the_variance():
    settings = STUDY.settings | {"likelihood_variance": "0.5"}
    cells = study_flags.cells(STUDY, settings, STUDY.choices(settings, config_of))
    autoencoder, vae, textbook = (cell.config for cell in cells)
    assert autoencoder.objective == "autoencoder" and vae.objective == "elbo"
    assert textbook.objective_options.regularization == 0.5
    assert {c.model_options for c in (autoencoder, vae, textbook)} == {vae.model_options}
    with pytest.raises(UserError, match="--likelihood must be gaussian_fixed in the study autoe"):
        STUDY.choices(settings | {"likelihood": "bernoulli"}, config_of)


def test_the_ball_holds_99_percent_of_the_prior():
    # |z|^2 / 2 is exponentially distributed in two dimensions.
    assert autoencoder_analysis.radius(2) == pytest.approx(np.sqrt(-2 * np.log(0.01)))
    codes = np.array([[0.0, 3.0], [3.1, 0.0], [2.2, 2.2], [1.0, 1.0]])
    assert autoencoder_analysis.outside(codes) == 0.5  # 3.03 is the radius
    draws = RNG.normal(size=(20_000, 3))
    assert autoencoder_analysis.outside(draws) == pytest.approx(0.01, abs=5 * 0.0995 / 141)
    expected = np.mean([np.log(np.exp(-(z @ z) / 2) / (2 * np.pi)) for z in codes])
    assert autoencoder_analysis.mean_log_pz(codes) == pytest.approx(expected)


def test_the_nearest_draw_of_each_image():
    x, draws = RNG.random((7, 4)).astype(np.float32), RNG.random((9, 4)).astype(np.float32)
    least = [min(np.mean((own - draw) ** 2) for draw in draws) for own in x]
    assert autoencoder_analysis.nearest(x, draws) == pytest.approx(np.mean(least), rel=1e-5)


def test_one_image_of_each_class_comes_first():
    labels = np.array([2, 2, 0, 1, 0, 1])
    assert list(autoencoder_analysis.first_of_each(labels, 6)) == [2, 3, 0, 1, 4, 5]
    assert list(autoencoder_analysis.first_of_each(None, 30)) == list(range(10))


def test_equation_13_28_and_its_gradient_are_those_of_numpy():
    noise = RNG.normal(size=(1, N, L))
    params = {
        "a": RNG.normal(size=(L, D)),
        "log_scale": 0.3 * RNG.normal(size=L),
        "w": RNG.normal(size=(D, L)),
    }
    x = RNG.normal(size=(N, D))

    def j(params):
        """-|x - W z|^2 / 2 - lambda KL(N(A x, s^2) || N(0, I)), z = A x + s noise: [N]."""
        mean, scale = x @ params["a"].T, np.exp(params["log_scale"])
        residual = x - (mean + scale * noise[0]) @ params["w"].T
        kl = 0.5 * np.sum(scale**2 + mean**2 - 1 - 2 * params["log_scale"], axis=1)
        return -0.5 * np.sum(residual**2, axis=1) - VARIANCE * kl

    squares = 0.0
    for name, leaf in params.items():
        for place in np.ndindex(leaf.shape):
            move = np.zeros_like(leaf)
            move[place] = 1e-5
            ends = [np.mean(j(params | {name: leaf + s * move})) for s in (1, -1)]
            squares += ((ends[0] - ends[1]) / 2e-5) ** 2

    def posterior(params, x, given):
        scale = jnp.exp(params["log_scale"])
        return OwnNormal(x @ params["a"].T, scale, lambda key, shape, dtype: noise.astype(dtype))

    def prior(params, given):
        return OwnNormal(jnp.zeros(L), jnp.ones(L))

    def likelihood(params, z, given):
        return dist.Normal(z @ params["w"].T, np.sqrt(VARIANCE)).to_event(1)

    model = Model(None, prior, posterior, likelihood)
    in_float32 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, x))
    compared = autoencoder_analysis.compare(jax.random.key(0), model, *in_float32, VARIANCE)
    assert compared.objective == pytest.approx(np.mean(j(params)), rel=1e-5)
    assert compared.scaled_elbo == pytest.approx(np.mean(j(params)), rel=1e-5)
    assert compared.difference < 1e-5 * np.max(np.abs(j(params)))
    assert compared.gradient_norm == pytest.approx(np.sqrt(squares), rel=1e-4)
    assert compared.gradient_difference < 1e-5


def test_the_figure_is_svg_and_the_tables_are_made_of_the_stored_file(tmp_path, monkeypatch):
    images, labels = RNG.random((10, 4, 4)), np.arange(30) % 3
    pictures = Pictures(images, images, RNG.normal(size=(30, 2)), labels, RNG.random((40, 4, 4)))
    shown = {"autoencoder": pictures, "VAE": pictures._replace(labels=None)}
    svg = autoencoder_figures.side_by_side(shown, 3.0)
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"

    comparison = Comparison(-12.5, -12.5, 1e-6, 3.0, 2e-7)
    of_cell = {
        "autoencoder": [Replicate(e, 0.5, -9.0, 0.06, None, pictures) for e in (0.03, 0.05)],
        "VAE": [Replicate(0.04, 0.01, -2.5, 0.05, comparison, pictures)],
    }
    monkeypatch.setattr(
        autoencoder_analysis, "of_cell", lambda path, cell: of_cell[cell["values"]["system"]]
    )
    config = {"dataset": "mnist_small", "likelihood_variance": 0.04, "epochs": 60}
    elbo = {"elbo": {"mean": 154.25, "standard_error": 0.5, "over": "replicates"}}
    sweep = {
        **dict.fromkeys(("elbo_lab", "jax", "date"), "x"),
        "devices": ["cpu"],
        "command": "python -m experiments.study autoencoder --workdir=/a",
        "cells": [
            {"values": {"system": "autoencoder"}, "config": config, "results": {}},
            {"values": {"system": "VAE"}, "config": config, "results": elbo},
        ],
    }
    for cell in sweep["cells"]:
        cell["config"]["latent_dims"] = [2]
    assert autoencoder_results.markdown(autoencoder_results.read(tmp_path)).startswith("No study")
    content = autoencoder_results.content(tmp_path, sweep)
    stored_results.write(tmp_path / autoencoder_results.FILE, content)
    text = autoencoder_results.markdown(autoencoder_results.read(tmp_path))
    assert "| autoencoder | 0.040 +- 0.010 | 0.06" in text and "| 50.0% +- 0.0 | -9" in text
    assert "| VAE | 0.04" in text and "| 154.25 +- 0.50 |" in text
    assert "| VAE | -12.50000 | -12.50000 | 1e-06 | 3.0000 | 2e-07 |" in text
    assert "radius 3.03" in text and "draws from the prior have -2.84" in text
    (tmp_path / autoencoder_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        autoencoder_results.read(tmp_path)


def test_runs_are_read_as_the_command_line_says_and_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder_analysis, "_of_run", lambda trained: trained)
    cell = {"config": {"latent_dims": [2], "prior": "standard"}}
    cell["runs"] = [{"run": "runs/x", "replicate": r} for r in (0, 1)]
    layers = cell | {"config": cell["config"] | {"latent_dims": [3, 2]}}
    sweep, read = {"cells": [cell, layers, {"status": "skipped"}]}, []

    def load(path, replicate):
        read.append((path, replicate))
        return f"measured {replicate}"

    for _ in range(2):
        autoencoder_analysis.compute(tmp_path, sweep, load)
    assert read == [(tmp_path / "runs/x", 0), (tmp_path / "runs/x", 1)]
    of_cells = [autoencoder_analysis.of_cell(tmp_path, own) for own in sweep["cells"]]
    assert of_cells == [["measured 0", "measured 1"], [], []]
