"""This library, as `experiments.run` uses it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.common import DATA_DIM, DRAWS, LAYERS, Peer, Task
from elbo_lab import evaluation, methods, training
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Spec, binarization
from elbo_lab.devices import setup, sharding
from elbo_lab.training import hyper

SPEC = Spec("image", (28, 28), 2)


def config_of(task: Task) -> Config:
    """The task as a configuration, of more steps than are ever taken."""
    b1, b2, epsilon = task.adam
    return Config(
        k=task.k,
        batch_size=task.batch,
        replicates=task.replicates,
        log_every=task.steps,
        epochs=200,
        learning_rate=task.learning_rate,
        lr_schedule="constant",
        adam_b1=b1,
        adam_b2=b2,
        adam_eps=epsilon,
    )


def make(task: Task, spread: bool = False) -> Peer:
    """`training.fit`, call after call; `spread` evaluates on a CPU device a core."""
    if spread:
        jax.config.update("jax_num_cpu_devices", task.cores)
    elif task.replicates > 1:
        setup.set_up(None, task.replicates, "", False)
    config = config_of(task)
    method = methods.make(config, SPEC, len(task.images))
    loop = training.make_loop(config, method, len(task.images), shard_batch=False)
    runs = training.replicas(config)
    keys = training.base_keys(runs)
    images = binarization.stored(jax.random.key(0), jnp.asarray(task.images), config.binarization)
    state = loop.init(keys, Batch(jnp.zeros((1, DATA_DIM))), jnp.full(DATA_DIM, 0.13))
    if task.replicates == 1:
        state = state._replace(params=given(state.params, task.layers))
    fit = training.fit(config, loop, Batch(images), state, keys, hyper.hyperparameters(runs))
    x = jnp.asarray(task.x)
    latest = {"params": jax.tree.map(jnp.copy, state.params)}  # `state` itself is donated.
    draws = iter(range(10**9))

    @jax.jit
    def bound(key, params):
        return jnp.mean(method.loss(key, params, (), Batch(x), {}).terms["bound"])

    def run() -> None:
        record = next(fit)
        latest["params"] = record.state.params
        if (record.failed_at >= 0).any():
            raise RuntimeError("The training failed.")

    measured = methods.make(dataclasses.replace(config, k=5, eval_k=DRAWS), SPEC)
    evaluator = evaluation.make_evaluator(measured, sharding.images_mesh() if spread else None)

    def log_likelihood(images: np.ndarray) -> float:
        key = jax.random.fold_in(jax.random.key(1), next(draws))
        examples = Batch(jnp.asarray(images))
        found = evaluation.evaluate(evaluator, key, latest["params"], (), examples)
        return float(np.mean(found["log_likelihood"]))

    return Peer(
        run,
        lambda: float(bound(jax.random.key(next(draws)), latest["params"])),
        log_likelihood,
    )


def given(params, layers):
    """Our parameters, made of the task's layers."""
    for name, place in LAYERS.items():
        *way, last = place.split("/")
        node = params
        for part in way:
            node = node[part]
        kernel, bias = layers[name]
        node[last] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return params
