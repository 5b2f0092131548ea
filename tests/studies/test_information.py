"""The study information without processes: its laws, its estimates, its file, table and figure."""

import copy
import json
import xml.dom.minidom
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from scipy import integrate, special
from scipy.stats import norm

from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.reports import information_figures
from elbo_lab.runs import derived
from elbo_lab.studies import (
    information,
    information_analysis,
    information_laws,
    information_results,
    stored_results,
)
from elbo_lab.studies.information_laws import CROSSED, SHARE
from elbo_lab.sweeps import sweep_results
from tests.runs.test_loading import store


def test_the_laws_have_the_same_marginals_and_covariance_and_their_own_information():
    independent, crossed = information_laws.planar()
    assert independent.exact == 0.0
    for law in (independent, crossed):
        x, z = law.draw(np.random.default_rng(0), 200_000)
        for values in (x, z):
            assert np.mean(values) == pytest.approx(0, abs=0.01)
            assert np.mean(values**2) == pytest.approx(1, abs=0.02)
            assert np.mean(values**4) == pytest.approx(3, abs=0.15)  # as of a Gaussian
        assert np.mean(x * z) == pytest.approx(0, abs=0.015)

    def q(z, x):
        scale = np.sqrt(1 - CROSSED**2)
        return sum(norm.pdf(z, sign * CROSSED * x, scale) for sign in (-1, 1)) / 2

    z, x = np.array([[0.4], [-1.0], [2.0]]), np.array([[0.4], [1.5], [-2.1]])
    expected = [[q(*map(float, (a, b))) for b in x[:, 0]] for a in z[:, 0]]
    np.testing.assert_allclose(np.exp(crossed.log_q(x, z)), expected, rtol=1e-10)

    # E log q(z|x) / q(z) by Simpson's rule, over half of the plane, which is symmetric.
    xs, zs = np.linspace(0, 7, 351), np.linspace(-8, 8, 1601)[:, None]
    density = q(zs, xs)
    terms = special.xlogy(density, density) - density * norm.logpdf(zs)
    expected = 2 * integrate.simpson(norm.pdf(xs) * integrate.simpson(terms, zs[:, 0], axis=0), xs)
    assert crossed.exact == pytest.approx(expected, abs=1e-6)


def test_correlated_gaussians_have_the_information_that_is_asked_for():
    law = information_laws.gaussian(3.0, 5)
    r, variance = information_laws.correlation(3.0, 5)
    assert r**2 + variance == pytest.approx(1) and law.exact == 3.0
    assert -5 / 2 * np.log(1 - r**2) == pytest.approx(3.0)
    x, z = law.draw(np.random.default_rng(1), 7)
    expected = norm.logpdf(z[:, None], r * x[None], np.sqrt(variance)).sum(axis=-1)
    np.testing.assert_allclose(law.log_q(x, z), expected, rtol=1e-10)
    # The critic is log q(z|x) up to terms in x alone and z alone.
    rest = expected - information_laws.critic(3.0, 5)(x, z)
    np.testing.assert_allclose(rest - rest[:1] - rest[:, :1] + rest[0, 0], 0, atol=1e-9)
    scale = np.sqrt(variance + (r - SHARE * r) ** 2)
    log_q = norm.logpdf(z, SHARE * r * x, scale).sum(axis=1)
    entropy = 5 * norm.entropy()
    bound = information_laws.barber_agakov(3.0, 5, x, z)
    assert bound == pytest.approx(entropy + log_q.mean())
    assert information_laws.exact_barber_agakov(3.0, 5) == pytest.approx(-5 * np.log(scale))
    many = information_laws.barber_agakov(3.0, 5, *law.draw(np.random.default_rng(2), 100_000))
    assert many == pytest.approx(-5 * np.log(scale), abs=0.03)


@pytest.mark.slow
def test_estimates_of_gaussians_bound_the_truth_and_end_at_log_n():
    row = information_analysis.gaussian_row(1.0, 3, 128, 100)
    assert row["lower"] < 1.0 < row["upper"] and row["critic"] < row["lower"]
    assert row["corrected"] == pytest.approx(1.0, abs=4 * row["corrected_error"])
    assert row["model"] == pytest.approx(row["model_exact"], abs=4 * row["model_error"])
    far = information_analysis.gaussian_row(20.0, 3, 16, 10)
    assert far["lower"] == pytest.approx(np.log(16), abs=1e-3) and far["upper"] > 20.0


def test_runs_without_an_aggregate_posterior_are_refused():
    settings = information.STUDY.settings
    for given, words in [
        ({"model": "vqvae"}, "--model must be one of mlp, conv, sbn in the study.*got 'vqvae'"),
        ({"condition": "label"}, r"--condition=label does not go .* not I\(x; z \| y\)"),
        ({"objective": "autoencoder"}, "--objective=autoencoder has no q.z.x."),
    ]:
        with pytest.raises(UserError, match=words):
            information.choices(settings | given, config_of)


# Made results


def pairs(value: float) -> dict[str, float]:
    values = {"lower": value, "corrected": value + 0.25, "upper": value + 1.5}
    return values | {f"{name}_error": 0.125 for name in values}


def estimates() -> dict:
    law = {"law": "independent", "exact": 0.0, "covariance": -0.0001, "examples": 64, "repeats": 5}
    law |= {**pairs(0.0), "points": [[0.5, 1.0], [0.25, -1.0]]}
    law |= {"lower_error": 0.0}
    row = {"exact": 2.0, "examples": 16, "repeats": 9, **pairs(1.5), "model": 1.0}
    row |= {"model_error": 0.5, "model_exact": 1.25, "critic": 0.5, "critic_error": 0.25}
    runs = []
    for latents in ("2", "20"):
        for epochs in (1, 4):
            run = {"latent_dims": latents, "epochs": epochs, "seed": 0, "source": f"{epochs}"}
            run |= {"examples": 2000, **pairs(epochs), "rate": 9.0, "rate_error": 0.5}
            run |= {"model": 3.0, "model_error": 0.25, "kl": 0.75, "kl_error": 0.125}
            runs.append(run)
    runs[-1] |= {"upper": None, "upper_error": None}
    return {
        "laws": [law, law | {"law": "crossed", "exact": 1.0}],
        "gaussians": [row, row | {"examples": 1024}, row | {"exact": 4.0}],
        "runs": runs,
    }


def cell(latents: str, epochs: int) -> dict:
    return {
        "values": {"latent_dims": latents, "epochs": str(epochs)},
        "headline": "log_likelihood",
        "config": {"dataset": "mnist_small"},
        "results": {
            "log_likelihood": {"mean": -100.0},
            "elbo": {"mean": -110.0, "standard_error": 0.5},
        },
    }


SWEEP = dict.fromkeys(("elbo_lab", "jax", "date"), "x") | {
    "devices": ["cpu"],
    "command": "python -m experiments.study information --workdir=/a",
    "cells": [cell(latents, epochs) for latents in ("2", "20") for epochs in (1, 4)],
}


def content_of(path) -> dict:
    (path / information_analysis.FILE).write_text(json.dumps(estimates()))
    return information_results.content(path, SWEEP)


def test_the_tables_are_made_of_the_stored_file(tmp_path):
    stored = information_results.read(tmp_path)
    assert information_results.markdown(stored) == "No study is stored yet."
    assert information_results.content(tmp_path, SWEEP) is None
    stored_results.write(tmp_path / information_results.FILE, content_of(tmp_path))
    text = information_results.markdown(information_results.read(tmp_path))
    for line in (
        "| independent | 0.000 | 0.000 | 0.000 | 0.25 +- 0.12 | 1.50 +- 0.12 |",
        "| 16 | 2.77 | 2 | 1.50 +- 0.12 | 1.75 +- 0.12 | 3.00 +- 0.12 | 0.50 +- 0.25 | "
        "1.00 +- 0.50 | 1.250 |",
        "| 20 | 4 | -110.00 +- 0.50 | 4.00 +- 0.12 | 4.25 +- 0.12 | infinite | 9.00 +- 0.50 | "
        "0.75 +- 0.12 | 3.00 +- 0.25 |",
        "2,000 test images of mnist_small",
    ):
        assert line in text
    assert "crossed" in information_results.text(content_of(tmp_path))
    (tmp_path / information_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        information_results.read(tmp_path)


def test_several_seeds_are_averaged(tmp_path):
    stored = estimates()
    stored["runs"] += [run | {"seed": 1, "rate": 11.0} for run in copy.deepcopy(stored["runs"])]
    (tmp_path / information_analysis.FILE).write_text(json.dumps(stored))
    row = information_results.content(tmp_path, SWEEP)["training"][0]
    assert (row["seeds"], row["rate"]) == (2, 10.0)
    assert row["rate_error"] == pytest.approx(1.0)  # the standard deviation sqrt(2) over sqrt(2)


def test_the_figure_shows_laws_estimates_and_training(tmp_path):
    svg = information_figures.study(content_of(tmp_path))
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
    for text in (
        "crossed: covariance 0, I = 1.00 nats",
        "N = 1,024",
        "log N",
        "latents: 20",
        "rate",
    ):
        assert text in svg


def test_the_figure_leaves_out_what_is_infinite(tmp_path):
    stored = estimates()
    stored["runs"][-1] |= dict.fromkeys(("rate", "rate_error", "model", "model_error"))
    (tmp_path / information_analysis.FILE).write_text(json.dumps(stored))
    svg = information_figures.study(information_results.content(tmp_path, SWEEP))
    assert "latents: 20" in svg


class Loaded(NamedTuple):
    """What is read of a trained run."""

    digest: str
    config: SimpleNamespace
    method: None = None
    dataset: None = None


def test_a_study_that_was_stopped_between_replicates_of_a_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / information_analysis.FILE).write_text(json.dumps(estimates() | {"runs": []}))
    monkeypatch.setattr(information_analysis.aggregate_posterior, "make_measure", lambda method: 0)
    template, begun = estimates()["runs"][0], []

    def run_rows(trained, measure):
        begun.append(trained.config.seed)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return [{n: v for n, v in template.items() if n not in ("seed", "source")}]

    def load(path, replicate):
        config = SimpleNamespace(seed=5 + replicate, dataset="x", held_out=0)
        return Loaded("of both", config)

    monkeypatch.setattr(information_analysis, "_run_rows", run_rows)
    runs = [{"run": "runs/x", "replicate": r} for r in (0, 1)]
    sweep = {"cells": [cell("2", 1) | {"failures": {}, "runs": runs}]}
    with pytest.raises(KeyboardInterrupt):
        information_analysis.compute(tmp_path, sweep, load)
    information_analysis.compute(tmp_path, sweep, load)
    information_analysis.compute(tmp_path, sweep, load)
    assert begun == [5, 6, 6]
    assert [run["seed"] for run in information_analysis.read(tmp_path)["runs"]] == [5, 6]


# The computation on two untrained runs


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_estimates_of_runs_are_resumed_and_wait_for_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(information_analysis, "NUMBERS", (4, 8))
    monkeypatch.setattr(information_analysis, "EXACT", (1.0, 2.0))
    monkeypatch.setattr(information_analysis, "DRAWS", 64)
    monkeypatch.setattr(information_analysis, "PLANAR_NUMBER", 16)
    rng = np.random.default_rng(0)
    images = {
        f"x_{s}": rng.integers(0, 256, (n, 5, 6), np.uint8) for s, n in (("train", 12), ("test", 7))
    }
    np.savez(tmp_path / "noise.npz", **images)
    settings = {"dataset": str(tmp_path / "noise.npz"), "objective": "elbo", "k": 1}
    settings |= {"latent_dims": (2,), "hidden_dims": (4,)}
    cells = []
    for seed in (0, 1):
        store(tmp_path / "runs" / str(seed), seed=seed, **settings)
        own = cell("2", 1 + seed) | {"failures": {}}
        cells.append(own | {"runs": [{"seed": seed, "run": f"runs/{seed}", "replicate": 0}]})
    waiting = {"values": {}, "failures": {"0": sweep_results.WAITING}}
    information_analysis.compute(tmp_path, {"cells": [*cells, waiting]}, derived.load_run)
    assert information_analysis.read(tmp_path) is None
    information_analysis.compute(tmp_path, {"cells": cells}, derived.load_run)
    stored = information_analysis.read(tmp_path)
    assert [run["epochs"] for run in stored["runs"]] == [1, 2]
    assert len(stored["gaussians"]) == 4 and len(stored["laws"]) == 2
    before = (tmp_path / information_analysis.FILE).read_bytes()
    # A killed study computes what is missing, with the same numbers.
    partial = stored | {"runs": stored["runs"][:1], "gaussians": []}
    (tmp_path / information_analysis.FILE).write_text(json.dumps(partial))
    capsys.readouterr()
    information_analysis.compute(tmp_path, {"cells": cells}, derived.load_run)
    assert "estimates 2/2 runs" in capsys.readouterr().err
    assert (tmp_path / information_analysis.FILE).read_bytes() == before
    information_analysis.compute(tmp_path, {"cells": cells}, derived.load_run)
    assert capsys.readouterr().err == ""
