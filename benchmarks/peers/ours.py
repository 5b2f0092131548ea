"""This library, as `experiments.run` uses it."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.common import DATA_DIM, DRAWS, LAYERS, Peer, Task
from elbo_lab import evaluation, losses, models, training
from elbo_lab.configs import Config
from elbo_lab.data import binarization
from elbo_lab.data.dataset import Spec
from elbo_lab.devices import setup, sharding
from elbo_lab.training import hyper


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
    model = models.make(config, Spec("image", (DATA_DIM,), 2))
    loop = training.make_loop(config, model, len(task.images), shard_batch=False)
    runs = training.replicas(config)
    keys = training.base_keys(runs)
    images = binarization.stored(jax.random.key(0), jnp.asarray(task.images), config.binarization)
    state = loop.init(keys, jnp.full(DATA_DIM, 0.13))
    if task.replicates == 1:
        state = state._replace(params=given(state.params, task.layers))
    fit = training.fit(config, loop, images, state, keys, hyper.hyperparameters(runs))
    x = jnp.asarray(task.x)
    latest = {"params": jax.tree.map(jnp.copy, state.params)}  # `state` itself is donated.
    draws = iter(range(10**9))

    @jax.jit
    def bound(key, params):
        log_likelihood = lambda z: model.likelihood(params, z).log_prob(x)  # noqa: E731
        weights = losses.log_weights(
            key,
            model.posterior(params, x),
            model.prior(params),
            log_likelihood,
            task.k,
            vectorized=True,
        )
        return jnp.mean(losses.bounds.iwae(weights.log_w))

    def run() -> None:
        record = next(fit)
        latest["params"] = record.state.params
        if (record.failed_at >= 0).any():
            raise RuntimeError("The training failed.")

    evaluator = evaluation.make_evaluator(
        model, 5, DRAWS, sharding.images_mesh() if spread else None
    )

    def log_likelihood(images: np.ndarray) -> float:
        key = jax.random.fold_in(jax.random.key(1), next(draws))
        found = evaluation.evaluate(evaluator, key, latest["params"], jnp.asarray(images))
        return float(np.mean(found.log_likelihood))

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
