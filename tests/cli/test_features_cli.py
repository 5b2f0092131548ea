"""The study features from the command line, at a tiny size: killed, resumed, refused."""

import json
import signal

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import elbo_lab
from elbo_lab.studies.feature_analysis import METHODS

pytestmark = pytest.mark.slow


def test_a_study_that_was_killed_while_it_probed_goes_on(studying, read, tmp_path):
    study = tmp_path / "study"
    flags = ("features", f"--workdir={study}", f"--results_dir={tmp_path}")
    flags += ("--replicates=2", "--jobs=1", "--tensorboard=false")
    killed = studying.interrupted("probes.json.tmp", signal.SIGKILL, *flags)
    assert killed.returncode == -signal.SIGKILL
    assert not (study / "probes.json").exists()
    before = {run.name: read["outcome"](run) for run in (study / "runs").iterdir()}
    assert len(before) == 2
    done = studying.run(*flags)
    assert "probing 20/20 fits" in done.stderr
    assert {run.name: read["outcome"](run) for run in (study / "runs").iterdir()} == before
    rows = json.loads((study / "probes.json").read_text())["rows"]
    assert len(rows) == 2 * 2 * len(METHODS)  # seeds, numbers of labels
    for text in (*METHODS, "60 labels", "over 2 seeds", "answer.svg"):
        assert text in done.stdout
    assert METHODS[1] in (study / "answer.svg").read_text()
    stored = json.loads((tmp_path / "features.json").read_text())
    assert [row["seeds"] for row in stored["rows"]] == [2] * 10
    again = studying.run(*flags)
    assert again.stdout == done.stdout and "probing" not in again.stderr


def test_convolutional_encoders_are_probed_and_a_mixture_models_their_features(
    studying, cli, tmp_path
):
    study = tmp_path / "study"
    flags = ("features", "--model=conv", "--hidden_dims=", "--channels=4,4", "--replicates=1")
    done = studying.run(*flags, f"--workdir={study}", "--tensorboard=false", "--jobs=1")
    assert METHODS[0] in done.stdout and "failed" not in done.stdout
    rows = json.loads((study / "probes.json").read_text())["rows"]
    assert len(rows) == 2 * len(METHODS) and {row["labels"] for row in rows} == {10, 60}
    # A mixture of the VAE's features, with shares, means and full covariances.
    vae = next(path for path in (study / "runs").iterdir() if setting(path, "k") == 1)
    flags = ("--model=mixture", f"--dataset=features:{vae}", "--likelihood=gaussian")
    flags += ("--binarization=none", "--components=2", "--hidden_dims=", "--latent_dims=")
    path = tmp_path / "mixture"
    out = cli.run(*flags, "--learning_rate=0.001", f"--workdir={path}").stdout
    assert "log p(x), density" in out or "log-likelihood, density" in out
    assert {"samples.png", "components.png"} <= {p.name for p in (path / "figures").iterdir()}
    run = elbo_lab.load(path)
    shares, means, covariances = map(np.float64, run.stats[:3])
    floor = run.config.model_options.variance_floor * np.eye(3)
    x = run.dataset.x_test
    log_joint = np.log(shares) + np.stack(
        [
            stats.multivariate_normal(mean, covariance + floor).logpdf(x)
            for mean, covariance in zip(means, covariances, strict=True)
        ],
        axis=1,
    )
    measured = run.measure(jax.random.key(0), x)["log_px"]
    np.testing.assert_allclose(measured, logsumexp(log_joint, axis=1), rtol=1e-4, atol=1e-3)


def setting(path, name: str):
    """A setting of the run in a directory."""
    return json.loads((path / "config.json").read_text())["config"][name]


def test_what_the_study_cannot_use_is_refused_before_training(studying, tmp_path):
    with np.load(studying.data) as file:
        np.savez(tmp_path / "bare.npz", x_train=file["x_train"], x_test=file["x_test"])
    bare = tmp_path / "bare.npz"
    for flags, sentence in [
        (
            ("features", f"--dataset={bare}"),
            f"--dataset={bare} has no labels, which the study features needs; give a data set with "
            "labels.",
        ),
        (
            ("features", "--model=sbn"),
            "--model must be mlp or conv in the study features, whose encoders start a classifier; "
            "got 'sbn'.",
        ),
        (
            ("features", "--objective=iwae"),
            "--objective differs between the cells of the study features; leave it out.",
        ),
    ]:
        assert studying.refused(*flags, f"--workdir={tmp_path / 'none'}") == sentence
    assert not (tmp_path / "none").exists()
