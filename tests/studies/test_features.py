"""The study features without processes: accuracies, their file, the table and the figure."""

import json
import xml.dom.minidom

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.evaluation.classifiers import Training
from elbo_lab.reports import feature_figures
from elbo_lab.runs import derived
from elbo_lab.studies import feature_analysis, feature_results, features, stored_results
from elbo_lab.studies.feature_analysis import METHODS, Split
from elbo_lab.sweeps import sweep_results
from tests.runs.test_loading import store


def probed(seeds: int = 2) -> dict:
    """The content of probes.json: 10 and 60 labels, accuracies that rise with labels and seed."""
    rows = [
        {
            "method": method,
            "labels": labels,
            "seed": seed,
            "accuracy": 0.5 + index / 100 + labels / 1000 + seed / 50,
            "source": str(seed),
        }
        for seed in range(seeds)
        for index, method in enumerate(METHODS)
        for labels in (10, 60)
    ]
    return {"rows": rows, "train": 60, "test": 23, "data": "blobs.npz"}


def test_the_rows_have_the_mean_and_its_standard_error_over_seeds():
    rows = feature_results.rows_of(probed(3))
    assert [(row["method"], row["labels"]) for row in rows] == [
        (method, labels) for method in METHODS for labels in (10, 60)
    ]
    assert rows[3]["accuracy"] == pytest.approx(0.5 + 0.01 + 0.06 + 0.02)
    # Values 0.02 apart have the sample standard deviation 0.02.
    assert rows[3]["standard_error"] == pytest.approx(0.02 / np.sqrt(3))
    assert feature_results.rows_of(probed(1))[0]["standard_error"] is None


def test_the_table_is_made_of_the_stored_file(tmp_path):
    assert feature_results.markdown(feature_results.read(tmp_path)) == "No study is stored yet."
    sweep = dict.fromkeys(("elbo_lab", "jax", "date"), "x") | {"devices": ["cpu"]}
    sweep["command"] = "python -m experiments.study features --workdir=/a"
    content = feature_results.content(sweep, probed())
    stored_results.write(tmp_path / feature_results.FILE, content)
    text = feature_results.markdown(feature_results.read(tmp_path))
    assert "|  | 10 labels | 60 labels |" in text
    assert f"| {METHODS[0]} | 52.0 +- 1.0 | 57.0 +- 1.0 |" in text
    assert "23 test examples of blobs.npz; +- one standard error over 2 seeds" in text
    assert METHODS[4] in feature_results.text(content)
    (tmp_path / feature_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        feature_results.read(tmp_path)


def test_the_figure_names_every_method():
    for seeds in (1, 2):
        svg = feature_figures.accuracies(feature_results.rows_of(probed(seeds)))
        document = xml.dom.minidom.parseString(svg)
        assert all(method in svg for method in METHODS)
        assert document.documentElement.tagName == "svg"


def test_numbers_of_labels_have_one_for_each_class_at_least():
    def numbers(train: int, classes: int) -> list[int]:
        y = np.arange(train) % classes
        return Split(None, None, y, y[:classes]).numbers

    assert numbers(60, 2) == [10, 60]
    assert numbers(5000, 47) == [100, 1000, 5000]
    assert numbers(1000, 10) == [10, 100, 1000]


def test_encoders_that_do_not_start_a_classifier_are_refused():
    settings = features.STUDY.settings
    for given, words in [
        ({"model": "vqvae"}, "--model must be mlp or conv in the study features.*got 'vqvae'"),
        ({"condition": "label"}, "--condition=label shows labels to the encoders"),
    ]:
        with pytest.raises(UserError, match=words):
            features.choices(settings | given, config_of)


# The computation on two untrained runs


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two runs with two seeds each, and its folder."""
    monkeypatch.setattr(feature_analysis, "TRAINING", Training(20, 8, 0.05))
    rng, y = np.random.default_rng(0), np.arange(60) % 2
    x = np.clip(rng.integers(0, 180, (60, 5, 6)) + 70 * y[:, None, None], 0, 255).astype(np.uint8)
    arrays = {"x_train": x[:40], "x_test": x[40:], "y_train": y[:40], "y_test": y[40:]}
    np.savez(tmp_path / "noise.npz", **arrays)
    settings = {"dataset": str(tmp_path / "noise.npz"), "binarization": "threshold"}
    settings |= {"latent_dims": (3,), "hidden_dims": (4,), "replicates": 2}
    (tmp_path / "runs").mkdir()
    store(tmp_path / "runs" / "vae", objective="elbo", k=1, **settings)
    store(tmp_path / "runs" / "code", objective="autoencoder", **settings)
    cells = [
        {
            "values": {"encoder": encoder},
            "runs": [{"seed": s, "run": f"runs/{run}", "replicate": s} for s in (0, 1)],
            "failures": {},
        }
        for encoder, run in ((feature_analysis.VAE, "vae"), (feature_analysis.AUTOENCODER, "code"))
    ]
    return tmp_path, {"cells": cells, "complete": True}, arrays


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_the_probe_of_pixels_is_that_of_scikit_learn_and_seeds_are_resumed(sweep, capsys):
    from sklearn.linear_model import LogisticRegression

    path, content, arrays = sweep
    feature_analysis.compute(path, content, derived.load_run)
    stored = feature_analysis.read(path)
    rows = stored["rows"]
    assert (stored["train"], stored["test"]) == (40, 20)
    assert len(rows) == 2 * 2 * len(METHODS)  # seeds, numbers of labels 10 and 40
    # Pixels at the threshold of one half, on the scale of the training split.
    x = [(arrays[f"x_{split}"] >= 128).reshape(-1, 30).astype(float) for split in ("train", "test")]
    centred = [part - x[0].mean(axis=0) for part in x]
    train, test = (part / np.sqrt(np.mean(np.sum(centred[0] ** 2, axis=1))) for part in centred)
    peer = LogisticRegression(C=1 / feature_analysis.L2, tol=1e-8, max_iter=5000)
    expected = peer.fit(train, arrays["y_train"]).score(test, arrays["y_test"])
    own = [r["accuracy"] for r in rows if (r["method"], r["labels"]) == (METHODS[4], 40)]
    assert own == pytest.approx([expected, expected])  # all labels: the same for both seeds
    # A seed that is missing is computed again, and gives the same; the other one is kept.
    before = (path / feature_analysis.FILE).read_bytes()
    (path / feature_analysis.FILE).write_text(json.dumps(stored | {"rows": rows[: len(rows) // 2]}))
    capsys.readouterr()
    feature_analysis.compute(path, content, derived.load_run)
    assert (path / feature_analysis.FILE).read_bytes() == before
    assert "probing 20/20 fits" in capsys.readouterr().err
    feature_analysis.compute(path, content, derived.load_run)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_nothing_is_computed_before_all_runs_are_trained_and_failed_seeds_are_left_out(sweep):
    path, content, _ = sweep
    first = content["cells"][0]
    del first["runs"][1]
    first["failures"] = {"1": sweep_results.WAITING}
    feature_analysis.compute(path, content, derived.load_run)
    assert feature_analysis.read(path) is None
    first["failures"] = {"1": "training diverged"}
    feature_analysis.compute(path, content, derived.load_run)
    assert {row["seed"] for row in feature_analysis.read(path)["rows"]} == {0}


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_the_first_classifier_starts_at_the_encoder_of_the_vae(sweep, monkeypatch):
    path, content, _ = sweep
    starts = []

    def make_trainer(encode, classes, training):
        def train(key, encoder, x, y, order, number):
            starts.append(encoder)
            zeros = jnp.zeros((3, classes)), jnp.zeros(classes)
            return feature_analysis.classifiers.Classifier(encoder, *zeros)

        return train

    monkeypatch.setattr(feature_analysis.classifiers, "make_trainer", make_trainer)
    feature_analysis.compute(path, content, derived.load_run)
    vae = derived.load_run(path / "runs" / "vae", 1)
    last_of_seed_1 = starts[-2:]
    for array, expected in zip(
        jax.tree.leaves(last_of_seed_1[0]), jax.tree.leaves(vae.params["encoder"]), strict=True
    ):
        np.testing.assert_array_equal(array, expected)
    kernels = [start["layer_1"]["trunk"]["hidden_0"]["kernel"] for start in last_of_seed_1]
    assert np.abs(np.corrcoef(*map(np.ravel, kernels))[0, 1]) < 0.5
