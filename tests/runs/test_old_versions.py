"""Runs of the previous version: they are read, found complete, and resumed to the same bits."""

import json
import shutil
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, data, training
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.errors import DamageWarning
from elbo_lab.evaluation import quantities
from elbo_lab.runs import completing, reporting, run_files, rundir, stages
from elbo_lab.training import checkpoint
from tests.training.toys import MEASURED, assert_identical, copied

pytestmark = pytest.mark.usefixtures("fast_compilation")

TRAIN, TEST = 12, 6
IMAGES = np.random.default_rng(0).integers(0, 256, (TRAIN + TEST, 16)).astype(np.uint8)
DATASET = Dataset("grey", IMAGES[:TRAIN], IMAGES[TRAIN:], None, None, (4, 4))
ROW = {
    **{"symbol": "", "standard_error": None, "over": None, "unit": "s", "bound": None},
    **{"k": None, "split": None, "count": None, "binarization": None},
}


def old_run(path, config: Config, figures: list[str]) -> dict[str, np.ndarray]:
    """Writes a complete run of the previous version, whose replicate 1 failed, and returns the
    arrays of its evaluation.
    """
    rng = np.random.default_rng(1)
    arrays = {f"{name}_0": rng.normal(size=TEST) for name in MEASURED}
    for i, size in enumerate(config.model_options.latent_dims):
        arrays[f"means_{i + 1}_0"] = rng.normal(size=(TEST, size))
        if config.au_images:
            arrays[f"train_means_{i + 1}_0"] = rng.normal(size=(config.au_images, size))
    lines = [
        {"step": step, "bound": [-9.0, None], "kl": [1.0, None], "reconstruction": [-8.0, None]}
        | {"seconds": step / 10}
        for step in (3, 6)
    ]
    summary = {
        **{"elbo_lab": "0.9", "jax": "0.10", "device": "cpu, 1 core", "steps": 6},
        "config": configs.to_dict(config),
        "data": {
            **{"name": "grey", "binarization": "dynamic", "image_shape": [4, 4]},
            **{"train_images": TRAIN, "test_images": TEST, "notes": []},
        },
        "lost_metrics": [],
        "failed_at": {"0": -1, "1": 4},
        "failed_replicates": [1],
        "replicas": [configs.to_dict(replica) for replica in training.replicas(config)],
        "results": [
            ROW | {"name": run_files.WALL_TIME, "value": 0.6},
            ROW | {"name": run_files.SPEED, "value": 10.0, "unit": "steps/s"},
        ],
        "replicates": {"0": []},
    }
    with rundir.claim(str(path), config, data.digest(DATASET), False):
        np.savez(path / "evaluation.npz", **arrays)
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (path / "figures").mkdir()
        for name in figures:
            (path / "figures" / f"{name}.png").touch()
        (path / "summary.json").write_text(json.dumps(summary))
    return arrays


FIGURES = ["active_units", "learning_curves", "reconstructions", "samples"]


@pytest.mark.parametrize(
    ("latent_dims", "au_images", "figures"),
    [((3, 2), 4, FIGURES), ((2,), None, [*FIGURES, "latent_grid", "latent_space"])],
    ids=str,
)
def test_a_complete_run_is_found_complete(tmp_path, latent_dims, au_images, figures):
    config = configs.make(
        **{"latent_dims": latent_dims, "hidden_dims": (6,), "batch_size": 4, "epochs": 2},
        **{"k": 2, "eval_k": 4, "replicates": 2, "log_every": 3, "au_images": au_images},
    )
    arrays = old_run(tmp_path, config, figures)
    with warnings.catch_warnings(action="error"):
        assert completing.complete(config, str(tmp_path), DATASET, False) == (tmp_path, True)
    summary = run_files.read_summary(tmp_path)
    assert summary["terms"] == ["bound", "kl", "reconstruction"]
    assert summary["headline"] == "log_likelihood"
    assert sorted(summary["figures"]) == sorted(figures)
    shapes = {name.removesuffix("_0"): list(array.shape) for name, array in arrays.items()}
    assert summary["measured"] == shapes
    evaluations = completing.stored_evaluations(tmp_path, summary)
    assert list(evaluations) == [0] and evaluations[0].keys() == shapes.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(evaluations[0][name.removesuffix("_0")], array)
    for split, prefix in (("test", "means"), ("train", "train_means")):
        layers = quantities.layers(evaluations[0], split)
        assert len(layers) == (len(latent_dims) if split == "test" or au_images else 0)
        for i, layer in enumerate(layers):
            np.testing.assert_array_equal(layer, arrays[f"{prefix}_{i + 1}_0"])
    assert "1 replicates of 2" in reporting.stored_table(tmp_path)

    del arrays["iwae_0"]
    np.savez(tmp_path / "evaluation.npz", **arrays)
    with pytest.warns(DamageWarning, match="evaluation.npz is damaged or lost"):
        assert not completing.is_complete(tmp_path)


class OldFailure(NamedTuple):
    """`Failure` of the previous version, with one bit for each term that was not finite."""

    step: jax.Array
    terms: jax.Array


@pytest.mark.slow
def test_a_state_of_the_previous_version_is_resumed_to_the_same_bits(begun):
    """Replicate 0 ends as if it had never stopped; the failed replicate 1 stays as saved."""
    whole = begun(initialized=False, log_every=1, checkpoint_every=1)
    stages.train(whole)
    assert int(whole.state.step) == 5
    folder = whole.path / "checkpoints"
    shutil.rmtree(folder / "step_00000005")
    step, (state, base_keys) = checkpoint.restore(folder, (whole.state, whole.keys))
    assert step == 4
    saved = copied(state)
    failure = OldFailure(jnp.array([-1, 2], jnp.int32), jnp.array([0, 0b1010], jnp.int32))
    old = state._replace(failure=failure), base_keys
    checkpoint.save(folder, 4, old, note={"seconds": 2.0})
    again = begun(initialized=False, log_every=1, checkpoint_every=1)
    stages.train(again)
    assert int(again.state.step) == 5 and again.seconds > 2
    assert again.failed_at.tolist() == [-1, 2] and again.survivors() == [0]
    for r, expected in ((0, whole.state), (1, saved)):
        own, own_expected = (
            jax.tree.map(lambda leaf, r=r: np.asarray(leaf)[r], state[1:3])
            for state in (again.state, expected)
        )
        assert_identical(own, own_expected)
    failed = [
        training.failed_terms({n: bool(f[r]) for n, f in again.state.failure.is_finite.items()})
        for r in (0, 1)
    ]
    assert failed == [[], ["kl", "gradient"]]
    # The new checkpoint is in this version's format.
    like = again.state, again.keys
    step, (state, _) = checkpoint.restore(folder, like)
    assert step == 5
    assert_identical(copied(state), copied(again.state))
