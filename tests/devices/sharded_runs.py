"""Trains tiny models on as many CPU devices as told, and saves what came out: see test_sharding.

python tests/devices/sharded_runs.py DEVICES FILE
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import configs, evaluation, models, training
from elbo_lab.data import streaming
from elbo_lab.data.dataset import Spec
from elbo_lab.devices import sharding
from elbo_lab.methods import variational

NUMBER, DIMS = 60, 16
BASE = configs.make(
    latent_dims=(3,), hidden_dims=(8,), k=3, batch_size=20, epochs=4, log_every=1, adam_eps=1e-2
)
# name: config; the mesh of 8 devices is written beside.
CASES = {
    "r1": configs.replace(BASE, binarization="fixed"),  # 1 x 4
    "r2": configs.replace(BASE, replicates=2, batch_gradient="sum", adam_eps=1.0),  # 2 x 4
    "vmap_r4": configs.replace(BASE, replicates=4, estimator="dreg"),  # 4 x 2
    "beta_tcvae": configs.replace(BASE, objective="beta_tcvae", k=1),  # 1 x 4
}


def witnessed(loss_fn):
    """The loss, and two terms that tell the bits of the images and of the noise a step sees.

    They are whole numbers below 2^24, so that their sums are exact in whatever order, and each
    image counts by its place in the batch.
    """

    def witnesses(key, params, x, hparams):
        loss, terms = loss_fn(key, params, x, hparams)
        place = 1 + jnp.arange(x.shape[0]) % 7
        noise = jax.random.normal(key, (3, x.shape[0], 3))
        bits = jax.lax.bitcast_convert_type(noise, jnp.uint32) % 1021
        return loss, {
            **terms,
            "images": (place * jnp.sum(x * (1 + jnp.arange(DIMS)), axis=1)).astype(jnp.float32),
            "noise": (place * jnp.sum(bits, axis=(0, 2))).astype(jnp.float32),
        }

    return witnesses


def images() -> np.ndarray:
    """uint8 [60, 16], some lit and some dark halves."""
    rng = np.random.default_rng(0)
    lit = np.arange(DIMS)[None] // 8 == rng.integers(0, 2, (NUMBER, 1))
    return (rng.integers(0, 120, lit.shape) + 130 * lit).astype(np.uint8)


def main(devices: int, file: str) -> None:
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in a third of the time
    assert jax.device_count() == devices
    found = {}
    within = sharding._within_a_device
    for name, config in CASES.items():
        if name.startswith("vmap"):  # as on a GPU
            sharding._within_a_device = lambda function, mapped: (
                lambda *args: jax.vmap(
                    function, in_axes=(0,) * mapped + (None,) * (len(args) - mapped)
                )(*args)
            )
        model = models.make(config, Spec("image", (DIMS,), 2))
        loss_fn = witnessed(variational.objective_loss(config, model, NUMBER))
        loop = training.make_loop(config, model, NUMBER, loss_fn, shard_batch=True)
        sharding._within_a_device = within
        keys = training.base_keys(training.replicas(config))
        x = images()
        state = loop.init(keys, jnp.asarray(x.mean(axis=0) / 255, jnp.float32))
        found[f"{name}/mesh"] = [1, 1] if loop.mesh is None else list(loop.mesh.shape.values())
        x = jnp.asarray(x)
        if config.binarization == "fixed":  # with streaming as well
            x = streaming.Images(np.asarray(x), "fixed", jax.random.key(5))
        records = list(training.fit(config, loop, x, state, keys))
        for term in records[0].metrics:
            found[f"{name}/terms/{term}"] = np.stack([r.metrics[term] for r in records])
        for i, leaf in enumerate(jax.tree.leaves(jax.device_get(records[-1].state.params))):
            found[f"{name}/params/{i}"] = leaf
        if name == "r1":
            params = jax.device_get(records[-1].state.params)
            evaluator = evaluation.make_evaluator(model, 3, 600, sharding.images_mesh())
            grey = jnp.asarray(images(), jnp.float32)[:47] / 255
            values = evaluation.evaluate(evaluator, jax.random.key(1), params, grey)
            for i, leaf in enumerate(jax.tree.leaves(values)):
                found[f"evaluation/{i}"] = leaf
    np.savez(f"{file}.npz", **found)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
