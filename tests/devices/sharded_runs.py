"""Trains tiny models on a number of CPU devices and saves the results, for test_sharding.

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
from elbo_lab.training import optimizer
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
# Name -> config. The comments give the mesh of 8 devices.
CASES = {
    "r1": configs.replace(BASE, binarization="fixed"),  # 1 x 4
    "r2": configs.replace(BASE, replicates=2, batch_gradient="sum", adam_eps=1.0),  # 2 x 4
    "vmap_r4": configs.replace(BASE, replicates=4, estimator="dreg"),  # 4 x 2
    "beta_tcvae": configs.replace(BASE, objective="beta_tcvae", k=1),  # 1 x 4
    # 2 x 4. With a small epsilon the direction depends on the bases, and those of factors with
    # equal eigenvalues on rounding. With a large one it is the momentum, whatever the bases.
    "soap": configs.replace(
        BASE, optimizer="soap", replicates=2, ema=0.9, adam_eps=100.0, learning_rate=0.5
    ),
}


def with_checksums(method: Method) -> Method:
    """The method with three more terms: checksums of a step's images, noise and labels.

    They are whole numbers below 2^24, so that float32 sums are exact in any order. Each image is
    weighted by its position in the batch.
    """

    def loss_with_checksums(key, params, stats, batch, hparams):
        loss = method.loss(key, params, stats, batch, hparams)
        x = batch.x
        weight = 1 + jnp.arange(x.shape[0]) % 7
        noise = jax.random.normal(key, (3, x.shape[0], 3))
        bits = jax.lax.bitcast_convert_type(noise, jnp.uint32) % 1021
        checksums = {
            "images": (weight * jnp.sum(x * (1 + jnp.arange(DIMS)), axis=1)).astype(jnp.float32),
            "noise": (weight * jnp.sum(bits, axis=(0, 2))).astype(jnp.float32),
            "labels": (weight * batch.label).astype(jnp.float32),
        }
        return Loss(loss.loss, loss.terms | checksums, loss.observed)

    terms = (*method.terms, "images", "noise", "labels")
    return method._replace(loss=loss_with_checksums, terms=terms)


def images() -> np.ndarray:
    """uint8 [60, 16]; one half of each image is bright."""
    rng = np.random.default_rng(0)
    bright = np.arange(DIMS)[None] // 8 == rng.integers(0, 2, (NUMBER, 1))
    return (rng.integers(0, 120, bright.shape) + 130 * bright).astype(np.uint8)


def with_label(measure):
    """The measure with the batch's labels as one more quantity."""
    return lambda key, params, stats, batch: {
        **measure(key, params, stats, batch),
        "label": batch.label,
    }


def evaluate(method: Method, params) -> dict[str, np.ndarray]:
    """The quantities of 47 images, over all devices; checks that labels stay with their images."""
    labelled = method._replace(measure=with_label(method.measure))
    evaluator = evaluation.make_evaluator(labelled, sharding.images_mesh())
    batch = Batch(jnp.asarray(images()[:47], jnp.float32) / 255, jnp.asarray(LABELS[:47]))
    values = evaluation.evaluate(evaluator, jax.random.key(1), params, (), batch)
    np.testing.assert_array_equal(values.pop("label"), LABELS[:47])
    return values


def main(devices: int, file: str) -> None:
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in a third of the time
    assert jax.device_count() == devices
    results = {}
    map_within_device = sharding._map_within_device
    for name, config in CASES.items():
        if name.startswith("vmap"):  # vmap, as on a GPU, instead of a sequential map
            sharding._map_within_device = lambda function: jax.vmap(function, in_axes=(0, None))
        method = methods.make(config, Spec("image", (DIMS,), 2), NUMBER)
        loop = training.make_loop(config, with_checksums(method), NUMBER, shard_batch=True)
        sharding._map_within_device = map_within_device
        results[f"{name}/mesh"] = [1, 1] if loop.mesh is None else list(loop.mesh.shape.values())
        data = Batch(images(), LABELS)
        if config.binarization == "fixed":  # tests streaming as well
            data = streaming.Examples(images(), "fixed", LABELS, jax.random.key(5))
        records = toys.run(config, loop, data)
        for term in records[0].metrics:
            results[f"{name}/terms/{term}"] = np.stack([r.metrics[term] for r in records])
        params = optimizer.evaluation_params(config, records[-1].state)
        for i, leaf in enumerate(jax.tree.leaves(params)):
            results[f"{name}/params/{i}"] = leaf
        if name == "r1":
            for quantity, value in evaluate(method, params).items():
                results[f"evaluation/{quantity}"] = value
    np.savez(f"{file}.npz", **results)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
