"""A run's held-out images, binarized test images, evaluation, metrics and checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import evaluation, keys
from elbo_lab.data import Batch, streaming
from elbo_lab.errors import DamageWarning
from elbo_lab.reports import results, tables
from elbo_lab.runs import examples, reporting, run_files, stages
from elbo_lab.training import checkpoint, metrics
from tests.runs.conftest import LABELS

pytestmark = pytest.mark.usefixtures("fast_compilation")


def drawn(x: np.ndarray, seed: int, split: int) -> np.ndarray:
    """Binary images [N, D]: a pixel is lit if a uniform draw is below its grey level; image i's
    draws are by the split's key, folded with i.
    """
    key = keys.stream_key(jax.random.key(seed), keys.FIXED_BINARIZATION, split)
    rows = [
        jax.random.uniform(jax.random.fold_in(jax.random.clone(key), i), x[i].shape) < x[i] / 255
        for i in range(len(x))
    ]
    return np.stack(rows)


def test_test_images_are_common_or_drawn_by_each_seed(begun):
    run = begun(initialized=False)
    expected = drawn(run.dataset.x_test, keys.FIXED_BINARIZATION_SEED, keys.TEST_SPLIT)
    for r in (0, 1):
        test = run.test_examples(r)
        np.testing.assert_array_equal(test.x, expected)
        assert test.x.dtype == np.float32
    run = begun(initialized=False, test_draw="by_seed", seed=7)
    for r in (0, 1):
        expected = drawn(run.dataset.x_test, 7 + r, keys.TEST_SPLIT)
        test = run.test_examples(r)
        np.testing.assert_array_equal(test.x, expected)
        assert test.x.dtype == np.float32


def test_examples_keep_their_labels(begun):
    run = begun(initialized=False, au_images=5, held_out=3)
    assert run.spec.classes == 4
    first, mean = examples.first_rows(run.dataset)
    np.testing.assert_allclose(mean, run.dataset.x_train.mean(axis=0) / 255, rtol=1e-6)
    in_memory = stages._training_data(run)
    run.placement = run.placement._replace(stream=True)
    streamed = stages._training_data(run)
    assert isinstance(streamed, streaming.Examples)
    for label, expected in [
        (first.label, LABELS[:17]),
        (in_memory.label, LABELS[:17]),
        (streamed.label, LABELS[:17]),
        (run.first_train_examples().label, LABELS[:5]),
        (run.test_examples().label, LABELS[20:]),
    ]:
        np.testing.assert_array_equal(label, expected)
        assert label.dtype == np.int32


def test_each_replicate_is_evaluated_on_its_own_test_images_by_its_averaged_weights(begun):
    run = begun(test_draw="by_seed", seed=7, ema=0.5)
    average = jax.tree.map(lambda p: p + 0.1, run.state.params)
    run.state = run.state._replace(average=average)
    evaluations = stages.evaluate(run)
    for r in (0, 1):
        # The means of q, which need no draws, depend on the images alone.
        params, stats = jax.tree.map(lambda leaf, r=r: leaf[r], (average, run.state.stats))
        x = drawn(run.dataset.x_test, 7 + r, keys.TEST_SPLIT).astype(np.float32)
        expected = run.method.encode(params, stats, Batch(x))
        np.testing.assert_allclose(evaluations[r]["means_1"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_active_units_are_counted_over_the_first_training_images(begun):
    run = begun(au_images=5, held_out=3)
    assert run.dataset.x_train.shape == (17, 16)
    evaluations = stages.evaluate(run)
    x = drawn(run.dataset.x_train[:5], keys.FIXED_BINARIZATION_SEED, keys.TRAIN_SPLIT)
    for r in (0, 1):
        _, params, stats = run.replicate(r)
        expected = run.method.encode(params, stats, Batch(x.astype(np.float32)))
        np.testing.assert_allclose(evaluations[r]["train_means_1"], expected, rtol=1e-4, atol=1e-5)
        row = results.test_results(run.config, evaluations[r])[-1]
        assert (row.split, row.symbol) == ("train", "AU")
        assert row.value == np.sum(np.var(np.asarray(expected, np.float64), axis=0) > 0.01)
    stored = evaluation.read_evaluations(run.path / "evaluation.npz")
    np.testing.assert_array_equal(stored[1]["train_means_1"], evaluations[1]["train_means_1"])


def write_metrics(path, steps) -> None:
    """Writes a line of metrics of two replicates for each step."""
    terms = {"bound": [-1.0, -2.0], "kl": [1.0, 1.0], "reconstruction": [0.0, -1.0]}
    with metrics.MetricLog(path, -1, tensorboard=False) as log:
        for step in steps:
            log.write({"step": step, **terms, "seconds": step / 10})


def test_lost_metrics_are_warned_of_once(begun):
    run = begun(initialized=False, log_every=1)  # five steps of four images
    write_metrics(run.path, (1, 4))
    with pytest.warns(DamageWarning, match="has lost the lines of steps 2 to 3: curves"):
        assert [r["step"] for r in stages.read_records(run, 4)] == [1, 4]
    assert [r["step"] for r in stages.read_records(run, 4)] == [1, 4]
    (run.path / "metrics.jsonl").unlink()
    with pytest.warns(DamageWarning, match="has lost the lines of steps 1 to 5: curves"):
        assert stages.read_records(run, 5) == []


@pytest.mark.slow
def test_a_run_is_reported_without_its_metrics(begun):
    run = begun(log_every=1)
    run.seconds = 7.5
    with pytest.warns(DamageWarning, match="steps 1 to 5"):
        reporting.report(run, stages.evaluate(run))
    summary = run_files.read_summary(run.path)
    assert summary["lost_metrics"] == [[1, 5]] and summary["steps"] == 5
    seconds, speed = run_files.timing(summary)
    assert seconds == 7.5 and np.isnan(speed)
    assert "nan nats per image" in " ".join(reporting.stored_table(run.path).split())
    drawn_names = ["active_units", "learning_curves", "reconstructions", "samples"]
    assert sorted(p.stem for p in (run.path / "figures").iterdir()) == drawn_names
    assert summary["figures"] == drawn_names


@pytest.mark.slow
def test_a_checkpoint_beyond_the_last_step_or_renamed_is_not_resumed(begun):
    run = begun(log_every=1)
    folder = run.path / "checkpoints"
    at_2, at_99 = ((run.state._replace(step=jnp.int32(n)), run.keys) for n in (2, 99))
    checkpoint.save(folder, 2, at_2, note={"seconds": 3.0})
    checkpoint.save(folder, 5, at_2)
    checkpoint.save(folder, 99, at_99, keep=3)
    with pytest.warns(DamageWarning) as caught:
        assert not stages.load(run)
    reasons = [str(w.message).rpartition(": ")[2] for w in caught]
    assert reasons == ["the run ends at step 5", "it is of step 2"]
    assert int(run.state.step) == 2 and run.seconds == 3.0


def test_binary_images_are_reported_as_they_are(begun):
    run = begun(initialized=False)
    assert reporting.data_description(run)["binarization"] == "dynamic"
    white = np.where(run.dataset.x_train > 99, 255, 0).astype(np.uint8)
    run.dataset = run.dataset._replace(x_train=white, x_test=white)
    description = reporting.data_description(run)
    assert tables.binarization_text(description["binarization"]) == "no binarization"
