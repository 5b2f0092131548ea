"""Models that are conditioned on labels, from the command line: trained, classified, sampled."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import elbo_lab
from elbo_lab.data import digest
from tests.cli.conftest import command

pytestmark = pytest.mark.slow
FLAGS = ("--tensorboard=false", "--condition=label")
MODELS = {
    "mlp": (),
    "pixelcnn": (
        *("--model=pixelcnn", "--hidden_dims=", "--latent_dims=", "--width=4", "--layers=2"),
        "--output_width=4",
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def trained(request, cli) -> tuple[str, Path, str]:
    """The family, the run and what it printed."""
    path = cli.folder / f"labels_{request.param}"
    done = cli.run(f"--workdir={path}", *MODELS[request.param], *FLAGS)
    return request.param, path, done.stdout


def test_the_table_of_a_conditional_run_names_its_condition(trained):
    family, path, out = trained
    words = {
        "mlp": ("given the label", "ELBO given y", "KL(q(z|x, y) || p(z))", "E_q log p(x|y, z)"),
        "pixelcnn": ("given the label", "log-likelihood given y", "log p(x|y)"),
    }
    for text in words[family]:
        assert text in out, text
    assert "given y" in json.loads((path / "summary.json").read_text())["results"][0]["name"]
    run = elbo_lab.load(path)
    stored = json.loads((path / "config.json").read_text())["data_sha256"]
    assert stored == digest(run.dataset, with_labels=True) != digest(run.dataset)


def test_classification_is_bayes_rule_of_what_is_stored(cli, trained):
    family, path, _ = trained
    flags = (f"--run={path}", "--measures=quantities,classification")
    done = command(cli, "evaluate", *flags)
    folder = Path(done.stdout.split("kept in")[1].split()[0])
    with np.load(folder / "evaluation.npz") as file:
        values = dict(file)
    name = {"mlp": "log_likelihood", "pixelcnn": "log_px"}[family]
    dataset = elbo_lab.load(path).dataset
    share = np.bincount(dataset.y_train) / len(dataset.y_train)
    log_joint = np.log(share) + values[f"{name}_y_0"]
    assert log_joint.shape == (23, 2)
    log_px = logsumexp(log_joint, axis=1)
    np.testing.assert_allclose(values[f"{name}_summed_0"], log_px, rtol=1e-6)
    predicted = np.argmax(log_joint, axis=1)
    accuracy = np.mean(predicted == dataset.y_test)
    assert values["accuracy_0"].mean() == accuracy > 0.8
    log_py = (log_joint - log_px[:, None])[np.arange(23), dataset.y_test]
    np.testing.assert_allclose(values["log_py_0"], log_py, rtol=1e-5, atol=1e-6)
    summary = json.loads((folder / "summary.json").read_text())
    rows = {(row["name"], row["symbol"]): row["value"] for row in summary["results"]}
    assert rows["accuracy", "the model"] == pytest.approx(accuracy)
    for classifier in ("the model", "naive Bayes", "logistic"):
        entry = summary["classification"]["classifiers"][classifier]
        assert np.sum(entry["confusion"]) == np.sum(entry["calibration"]["count"]) == 23
        share_right = np.trace(entry["confusion"]) / 23
        assert rows["accuracy", classifier] == pytest.approx(share_right)
        assert 0 <= rows["calibration error", classifier] <= 1
    counts = np.zeros((2, 2), int)
    np.add.at(counts, (dataset.y_test, predicted), 1)
    assert summary["classification"]["classifiers"]["the model"]["confusion"] == counts.tolist()
    svg = (folder / "classification.svg").read_text()
    assert svg.startswith("<svg") and "logistic (ECE" in svg
    assert "log-likelihood, classes summed" in done.stdout
    # It is not computed twice.
    again = command(cli, "evaluate", *flags)
    assert again.stdout == done.stdout and "evaluation" not in again.stderr


def test_samples_are_a_row_for_each_class_or_of_one_class(cli, trained, tmp_path):
    family, path, _ = trained
    run = f"--run={path}"
    done = command(cli, "sample", run, "--num=121", f"--out={tmp_path / 'all.npz'}")
    assert done.stdout.startswith("120 samples of")
    one = ("--num=5", "--label=1")
    command(cli, "sample", run, *one, f"--out={tmp_path / 'one.npz'}")
    command(cli, "sample", run, f"--out={tmp_path / 'all.png'}")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG\r\n")
    with np.load(tmp_path / "all.npz") as file:
        x, label = file["x"], file["label"]
    assert x.shape == (120, 8, 8) and label.tolist() == [0] * 60 + [1] * 60
    with np.load(tmp_path / "one.npz") as file:
        assert file["x"].shape == (5, 8, 8) and file["label"].tolist() == [1] * 5
    # Blobs of class 0 lie in the upper half, those of class 1 in the lower one.
    lean = x[:, 4:].sum(axis=(1, 2)) - x[:, :4].sum(axis=(1, 2))
    assert stats.ttest_ind(lean[label == 1], lean[label == 0], equal_var=False).statistic > 3
    for flags, sentence in (
        (("--label=2",), f"--label must lie in 0..1 for {path}; got 2."),
        (("--num=1",), f"--num must be at least 2, one for each class of {path} (--label=0 draws"),
    ):
        done = command(cli, "sample", run, *flags, f"--out={tmp_path / 'no.png'}", status=2)
        assert done.stderr.startswith(f"Error: {sentence}") and done.stderr.count("\n") == 1


def test_a_loaded_run_takes_labels(trained):
    family, path, _ = trained
    run = elbo_lab.load(path)
    x, label = run.dataset.x_test[:4] > 127, run.dataset.y_test[:4]
    measured = run.measure(jax.random.key(0), x, label)
    other = run.measure(jax.random.key(0), x, 1 - label)
    name = {"mlp": "log_likelihood", "pixelcnn": "log_px"}[family]
    assert np.all(measured[name] > other[name])
    assert run.sample(jax.random.key(1), 6).shape == (6, 8, 8)
    assert run.sample(jax.random.key(1), 2, label=[0, 1]).shape == (2, 8, 8)
    refused = {"label is missing": None, "one for each of 4": [0], r"in 0\.\.1": [0, 1, 2, 0]}
    for words, wrong in refused.items():
        with pytest.raises(ValueError, match=words):
            run.measure(jax.random.key(0), x, wrong)


def test_data_that_a_conditional_model_cannot_take_are_refused(cli, tmp_path):
    rng = np.random.default_rng(0)
    images = {f"x_{s}": rng.integers(0, 256, (20, 8, 8), np.uint8) for s in ("train", "test")}
    gap, y = tmp_path / "gap.npz", np.arange(20) % 3
    np.savez(gap, **images, y_train=np.where(y == 1, 0, y), y_test=y)
    flags = ("--condition=label", f"--workdir={tmp_path / 'never'}")
    assert cli.refused(f"--dataset={gap}", *flags) == (
        "--condition=label needs training examples of every class, 0..2, and gap has none of "
        "class 1."
    )
    last = tmp_path / "last.npz"
    np.savez(last, **images, y_train=np.arange(20) // 10, y_test=np.arange(20) // 10)
    assert cli.refused(f"--dataset={last}", "--held_out=10", *flags) == (
        "--condition=label needs training examples of every class, 0..1, and last with "
        "--held_out=10 has none of class 1."
    )
    assert not (tmp_path / "never").exists()


def test_other_data_need_labels_of_the_same_classes(cli, trained, tmp_path):
    _, path, _ = trained
    images = np.random.default_rng(3).integers(0, 256, (9, 8, 8), np.uint8)
    more, none = tmp_path / "more.npz", tmp_path / "none.npz"
    np.savez(none, x_train=images, x_test=images)
    np.savez(more, x_train=images, x_test=images, y_train=np.arange(9), y_test=np.arange(9))
    for dataset, sentence in (
        (none, f"--dataset={none} has no labels, and {path} is a model of p(x|y)."),
        (more, f"--dataset={more} has labels up to 8; {path} was trained on 0..1."),
    ):
        done = command(cli, "evaluate", f"--run={path}", f"--dataset={dataset}", status=2)
        assert done.stderr == f"Error: {sentence}\n"
