"""PyTorch's time to quality: evaluation, results file, and the loop that stops and resumes."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from benchmarks import pytorch_quality, quality, workers
from benchmarks.peers import common
from elbo_lab import configs
from elbo_lab.cli import protocols
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
EVALUATED = {"dataset": "mnist", "images": 10, "eval_k": 7}
NOTES = {**EVALUATED, "points": {4: {}, 8: {}}}


def test_a_training_goes_on_with_the_same_settings_and_further_steps():
    quality.check_resumed(NOTES, EVALUATED, 8, [4, 8, 16], "runs/x")
    # The process was interrupted in the evaluation of step 16.
    quality.check_resumed(NOTES, EVALUATED, 16, [8, 16], "runs/x")


@pytest.mark.parametrize(
    ("changes", "steps", "sentence"),
    [
        ({"images": 20}, [8], "--images=20 differs from --images=10, .*--workdir=runs/x"),
        ({"eval_k": 5000}, [8], "--eval_k=5000 differs from --eval_k=7, .*--workdir=runs/x"),
        ({}, [4, 6], "--steps=6 is not evaluated, and --workdir=runs/x is at step 8"),
    ],
)
def test_another_training_is_refused(changes, steps, sentence):
    with pytest.raises(UserError, match=sentence):
        quality.check_resumed(NOTES, EVALUATED | changes, 8, steps, "runs/x")


def test_the_command_of_the_results_has_no_folder():
    values = flags.FlagValues()
    for name in (*pytorch_quality.SETTINGS, "manual_dir", "workdir"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    values(["", "--steps=10,20", "--eval_k=7", "--manual_dir=/here/mnist", "--workdir=/here/runs"])
    expected = "python -m benchmarks.pytorch_quality --steps=10,20 --eval_k=7"
    assert pytorch_quality.command(values) == expected


def test_results_have_the_points_and_the_date_of_the_last_one(monkeypatch):
    monkeypatch.setattr(quality.metadata, "version", {"torch": "2.0"}.get)
    point = quality.point(10, 2.5, 2.25, 90.5, None)
    assert {k: v for k, v in point.items() if k != "date"} == {
        "steps": 10,
        "train_seconds": 2.5,
        "train_cpu_seconds": 2.25,
        "nll": 90.5,
        "standard_error": None,
    }
    points = [point | {"date": day} for day in ("2026-01-02", "2026-01-10")]
    result = quality.summary("a command", points)
    assert result["points"] == points and result["date"] == "2026-01-10"
    assert (result["name"], result["torch"]) == ("PyTorch eager, Adam", "2.0")
    assert quality.line(point) == "10 steps, 2.5 s of training: NLL 90.50 nats"


@pytest.mark.slow
def test_parameters_are_evaluated_on_the_first_binarized_test_images():
    rng = np.random.default_rng(0)
    # Binary images stay as they are when they are binarized.
    train, test = (255 * rng.integers(0, 2, (n, 784)).astype(np.uint8) for n in (20, 9))
    dataset = Dataset("noise", train, test, None, None, (28, 28))
    paper = protocols.PROTOCOLS["burda2015_paper"]
    task, nll = quality.prepare(configs.replace(paper, eval_k=6), dataset, 5)
    assert (task.batch, task.k, task.cores, task.learning_rate) == (100, 5, 1, 1e-3)
    # The output bias begins at the logit of the training images' mean, which lies within 0.05..0.95
    # here.
    mean = train.mean(0) / 255
    np.testing.assert_allclose(
        task.layer(common.LAYERS["logits"])[1], np.log(mean / (1 - mean)), rtol=1e-3
    )
    # With zeros for all other parameters q(z|x) = p(z) and p(x|z) = p(x): L_K is log p(x).
    bias = rng.normal(size=784)
    arrays = {name: np.zeros_like(array) for name, array in task.arrays.items()}
    arrays[f"params/{common.LAYERS['logits']}/bias"] = bias.astype(np.float32)
    expected = np.sum(np.logaddexp(0, bias) - test[:5] / 255 * bias, axis=1)
    mean, error = nll(arrays)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(error, expected.std(ddof=1) / np.sqrt(5), rtol=1e-4)


@pytest.fixture(scope="module")
def task():
    """Binary images, all of them different, in batches of 5: a pass has 6 steps."""
    pytest.importorskip("torch", exc_type=ImportError)
    with workers.task_folder(5, 3, num_images=32) as folder:
        task = common.read_task(folder, steps=1, replicates=1)
    images = np.random.default_rng(0).integers(0, 2, (32, 784)).astype(np.uint8)
    return task._replace(cores=1, images=255 * images)


@pytest.mark.slow
def test_a_resumed_training_equals_one_that_was_not_stopped(task, tmp_path):
    from benchmarks.peers import pytorch_loop

    stopped = pytorch_loop.Training(task)
    np.testing.assert_equal(stopped.arrays(), task.arrays)
    stopped.train_to(4)
    stopped.save(tmp_path / "state.pt", NOTES)
    resumed = pytorch_loop.Training(task)
    assert resumed.load(tmp_path / "state.pt") == NOTES
    assert (resumed.step, resumed.seconds) == (4, stopped.seconds)
    np.testing.assert_equal(resumed.arrays(), stopped.arrays())
    resumed.train_to(14)
    assert resumed.step == 14 and resumed.seconds > stopped.seconds
    whole = pytorch_loop.Training(task)
    whole.train_to(14)
    np.testing.assert_equal(resumed.arrays(), whole.arrays())


@pytest.mark.slow
def test_a_pass_visits_images_once_in_a_new_order(task):
    from benchmarks.peers import pytorch_loop

    training, seen = pytorch_loop.Training(task), []
    bound = training.weights.bound

    def recorded(x, k):
        assert k == 3
        seen.append(x.numpy())
        return bound(x, k)

    training.weights.bound = recorded
    training.train_to(12)
    indices = {image.tobytes(): i for i, image in enumerate(task.images // 255)}
    orders = [indices[row.astype(np.uint8).tobytes()] for batch in seen for row in batch]
    first, second = orders[:30], orders[30:]
    assert len(set(first)) == len(set(second)) == 30 and first != second


def started(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.pytorch_quality", "--dataset=mnist_small", *words],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_script_resumes_and_keeps_its_points(tmp_path):
    pytest.importorskip("torch", exc_type=ImportError)
    words = ["--images=3", "--eval_k=10", f"--workdir={tmp_path}/runs", f"--results_dir={tmp_path}"]
    file = tmp_path / pytorch_quality.FILE
    results = []
    for steps in ("2,4", "5,2,4"):
        done = started(f"--steps={steps}", *words)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(file.read_text()))
    first, second = (result["points"] for result in results)
    assert [point["steps"] for point in second] == [2, 4, 5]
    assert second[:2] == first
    assert all(100 < point["nll"] < 400 for point in second)
    assert results[1]["images"] == 3 and results[1]["eval_k"] == 10
    assert results[1]["command"].endswith(
        "quality --dataset=mnist_small --steps=5,2,4 --images=3 --eval_k=10"
    )
    refused = started("--steps=3", *words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.fullmatch("Error: --steps=3 is not evaluated, .*another folder.\n", refused.stderr)
