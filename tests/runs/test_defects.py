"""Defects of widely used implementations in averages and tables. Those in bounds and gradients are
tested in tests/losses, as `test_defect_...`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import configs, evaluation, files
from elbo_lab.data import Batch
from elbo_lab.data.binarization import BINARIZATIONS
from elbo_lab.models import Model
from elbo_lab.reports import results, tables
from elbo_lab.runs import reporting, run_files
from tests.training.toys import importance_evaluator


class Known:
    """A likelihood with a known value."""

    def __init__(self, value):
        self.value = value

    def log_prob(self, x):
        return self.value + x[..., 0]


def test_defect_7_averages_are_over_all_images_and_a_ragged_last_batch_weighs_by_its_images():
    # q = p(z), and log p(x|z) is a number that x holds: every log-weight is that number.
    model = Model(
        None,
        lambda params, given: dist.Normal(jnp.zeros(1), 1.0).to_event(1),
        lambda params, x, given: dist.Normal(jnp.zeros((len(x), 1)), 1.0).to_event(1),
        lambda params, z, given: Known(jnp.zeros(z.shape[:-1])),
    )
    config = configs.make(k=5, eval_k=500)
    evaluator = importance_evaluator(model, config.k, config.eval_k)
    size = evaluator.batch_size
    assert size > 3
    # The last batch has three images, worse by far than the others.
    x = -np.concatenate([np.arange(2.0 * size), np.full(3, 1000.0)])
    examples = Batch(jnp.asarray(x[:, None], jnp.float32))
    evaluated = evaluation.evaluate(evaluator, jax.random.key(0), {}, (), examples)
    exact = np.mean(x)
    by_batch = np.mean([np.mean(x[i : i + size]) for i in range(0, len(x), size)])
    assert min(abs(by_batch - exact), abs(np.mean(x[-3:]) - exact)) > 50
    rows = {row.name: row for row in results.test_results(config, evaluated)}
    for name in ("ELBO", "IWAE bound", "log-likelihood", "reconstruction"):
        np.testing.assert_allclose(rows[name].value, exact, rtol=1e-5)
        assert rows[name].count == len(x)
        error = np.std(x, ddof=1) / np.sqrt(len(x))
        np.testing.assert_allclose(rows[name].standard_error, error, rtol=1e-4)


@pytest.mark.parametrize("binarization", BINARIZATIONS)
def test_defect_8_tables_name_the_binarization(binarization, tmp_path):
    config = configs.make(binarization=binarization)
    result = tables.Result("ELBO", "ELBO", -90.0, unit="nats per image", split="test")
    timings = [tables.Result(name, "", 1.0) for name in (run_files.WALL_TIME, run_files.SPEED)]
    images = {"image_shape": [28, 28], "train_images": 1, "test_images": 1}
    summary = {
        "elbo_lab": "0.1.0",
        "jax": "0.10.2",
        "config": configs.to_dict(config),
        "replicas": [configs.to_dict(config)],
        "data": {"name": config.dataset, "binarization": binarization, **images},
        "failed_at": {"0": -1},
        "failed_replicates": [],
        "steps": 1,
        "device": "a device",
        "results": [r._asdict() for r in (result, *timings)],
    }
    files.write_summary(tmp_path / "summary.json", summary)
    table = reporting.stored_table(tmp_path)
    mode = "no" if binarization == "none" else binarization
    assert f"{config.dataset}, {mode} binarization" in table
