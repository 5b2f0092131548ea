"""Trains tiny models on as many CPU devices as told, and saves what came out: see test_sharding.

python tests/devices/sharded_runs.py DEVICES FILE
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import configs, evaluation, methods, training
from elbo_lab.data import Batch, Spec, streaming
from elbo_lab.devices import sharding
from elbo_lab.methods import Loss, Method
from tests.training import toys

NUMBER, DIMS = 60, 16
LABELS = np.arange(NUMBER, dtype=np.int32) % 11
BASE = configs.make(
    latent_dims=(3,),
    hidden_dims=(8,),
    k=3,
    batch_size=20,
    epochs=4,
    log_every=1,
    adam_eps=1e-2,
    eval_k=600,
)
# name: config; the mesh of 8 devices is written beside.
CASES = {
    "r1": configs.replace(BASE, binarization="fixed"),  # 1 x 4
    "r2": configs.replace(BASE, replicates=2, batch_gradient="sum", adam_eps=1.0),  # 2 x 4
    "vmap_r4": configs.replace(BASE, replicates=4, estimator="dreg"),  # 4 x 2
    "beta_tcvae": configs.replace(BASE, objective="beta_tcvae", k=1),  # 1 x 4
}


def witnessed(method: Method) -> Method:
    """The method with three more terms, which tell the bits of the images, of the noise and of the
    labels that a step sees.

    They are whole numbers below 2^24, so that their sums are exact in whatever order, and each
    image counts by its place in the batch.
    """

    def witnesses(key, params, stats, batch, hparams):
        loss = method.loss(key, params, stats, batch, hparams)
        x = batch.x
        place = 1 + jnp.arange(x.shape[0]) % 7
        noise = jax.random.normal(key, (3, x.shape[0], 3))
        bits = jax.lax.bitcast_convert_type(noise, jnp.uint32) % 1021
        seen = {
            "images": (place * jnp.sum(x * (1 + jnp.arange(DIMS)), axis=1)).astype(jnp.float32),
            "noise": (place * jnp.sum(bits, axis=(0, 2))).astype(jnp.float32),
            "labels": (place * batch.label).astype(jnp.float32),
        }
        return Loss(loss.loss, loss.terms | seen, loss.stats)

    return method._replace(loss=witnesses, terms=(*method.terms, "images", "noise", "labels"))


def images() -> np.ndarray:
    """uint8 [60, 16], some lit and some dark halves."""
    rng = np.random.default_rng(0)
    lit = np.arange(DIMS)[None] // 8 == rng.integers(0, 2, (NUMBER, 1))
    return (rng.integers(0, 120, lit.shape) + 130 * lit).astype(np.uint8)


def with_label(measure):
    return lambda key, params, stats, batch: {
        **measure(key, params, stats, batch),
        "label": batch.label,
    }


def main(devices: int, file: str) -> None:
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in a third of the time
    assert jax.device_count() == devices
    found = {}
    within = sharding._within_a_device
    for name, config in CASES.items():
        if name.startswith("vmap"):  # as on a GPU
            sharding._within_a_device = lambda function: jax.vmap(function, in_axes=(0, None))
        method = methods.make(config, Spec("image", (DIMS,), 2), NUMBER)
        loop = training.make_loop(config, witnessed(method), NUMBER, shard_batch=True)
        sharding._within_a_device = within
        found[f"{name}/mesh"] = [1, 1] if loop.mesh is None else list(loop.mesh.shape.values())
        data = Batch(images(), LABELS)
        if config.binarization == "fixed":  # with streaming as well
            data = streaming.Examples(images(), "fixed", LABELS, jax.random.key(5))
        records = toys.run(config, loop, data)
        for term in records[0].metrics:
            found[f"{name}/terms/{term}"] = np.stack([r.metrics[term] for r in records])
        params = records[-1].state.params
        for i, leaf in enumerate(jax.tree.leaves(params)):
            found[f"{name}/params/{i}"] = leaf
        if name == "r1":
            of_label = method._replace(measure=with_label(method.measure))
            evaluator = evaluation.make_evaluator(of_label, sharding.images_mesh())
            grey = Batch(jnp.asarray(images()[:47], jnp.float32) / 255, jnp.asarray(LABELS[:47]))
            values = evaluation.evaluate(evaluator, jax.random.key(1), params, (), grey)
            np.testing.assert_array_equal(values.pop("label"), LABELS[:47])
            for quantity, value in values.items():
                found[f"evaluation/{quantity}"] = value
    np.savez(f"{file}.npz", **found)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
