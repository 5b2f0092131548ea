"""The measure `disentanglement` of stored runs: which codes are scored, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from elbo_lab import data
from elbo_lab.errors import UserError
from elbo_lab.evaluation import disentanglement
from elbo_lab.runs import disentangling, loading
from elbo_lab.runs.instruments import Settings
from tests.runs.test_loading import store


def test_the_measure_needs_known_factors_and_several_latents():
    blobs = SimpleNamespace(factors=None, name="blobs")
    with pytest.raises(UserError, match="needs data whose factors are known, .* got blobs"):
        disentangling.check(SimpleNamespace(dataset=blobs), Settings(), blobs)
    known = SimpleNamespace(factors=SimpleNamespace(test=[0], names=("a", "b")), name="known")
    config = SimpleNamespace(model="pixelcnn")
    run = SimpleNamespace(
        dataset=known, config=config, path="runs/x", method=SimpleNamespace(encode=None)
    )
    with pytest.raises(UserError, match="two real numbers; runs/x is a run of pixelcnn"):
        disentangling.check(run, Settings(), known)
    other = SimpleNamespace(factors=SimpleNamespace(test=[0], names=("b",)), name="other")
    with pytest.raises(UserError, match="x.npz has the factors b; runs/x was .* images of a, b"):
        disentangling.check(run, Settings(dataset="x.npz"), other)


@pytest.mark.usefixtures("fast_compilation")
def test_the_codes_of_a_conditional_run_are_those_given_the_labels(tmp_path):
    sizes = {"latent_dims": (3,), "hidden_dims": (4,), "objective": "elbo", "k": 1}
    run = loading.load(store(tmp_path / "run", dataset="factors", condition="label", **sizes))
    own, number = run.dataset, 300
    few = own._replace(
        x_train=own.x_train[:number],
        x_test=own.x_test[:number],
        y_train=own.y_train[:number],
        y_test=own.y_test[:number],
        factors=own.factors._replace(
            train=own.factors.train[:number], test=own.factors.test[:number]
        ),
    )
    run = run._replace(dataset=few)
    disentangling.check(run, Settings(), few)
    scores = disentangling.scores(run, few, 5)
    means = np.asarray(run.encode(few.x_train, few.y_train), np.float64)
    assert scores.mig == pytest.approx(disentanglement.mig(means, few.factors.train))
    other = np.asarray(run.encode(few.x_train, (few.y_train + 1) % 3), np.float64)
    assert scores.mig != pytest.approx(disentanglement.mig(other, few.factors.train))
    assert scores.active == np.sum(means.var(axis=0) > 0.01)


@pytest.mark.usefixtures("fast_compilation")
def test_of_a_large_split_some_examples_are_scored(tmp_path, monkeypatch):
    sizes = {"latent_dims": (2,), "hidden_dims": (4,), "objective": "elbo", "k": 1}
    run = loading.load(store(tmp_path / "run", dataset="factors", **sizes))
    monkeypatch.setattr(disentangling, "MOST", 200)
    scores = disentangling.scores(run, data.first_of_test(run.dataset, 50), 5)
    x, factors = run.dataset.x_train, run.dataset.factors.train
    rows = np.sort(np.random.default_rng(5).choice(len(x), 200, replace=False))
    means = np.asarray(run.encode(x[rows]), np.float64)
    assert scores.mig == pytest.approx(disentanglement.mig(means, factors[rows]))
    assert scores.beta_vae == disentanglement.beta_vae(means, factors[rows], 5)
