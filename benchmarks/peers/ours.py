"""This library, as `experiments.run` uses it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.common import DRAWS, TEXT_LENGTH, TEXT_LEVELS, Peer, Task
from elbo_lab import configs, evaluation, methods, training
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Spec, binarization
from elbo_lab.devices import setup, sharding
from elbo_lab.runs.examples import FIRST_ROWS
from elbo_lab.training import hyper, optimizer

SPEC = Spec("image", (28, 28), 2)


TEXT_SPEC = Spec("token", (TEXT_LENGTH,), TEXT_LEVELS)


def spec_for(images: np.ndarray) -> Spec:
    """The spec of a task's examples: images, uint8, points, float32, or tokens, int64."""
    if images.dtype == np.int64:
        return TEXT_SPEC
    return SPEC if images.dtype == np.uint8 else Spec("real", images.shape[1:], None)


def examples(array: np.ndarray) -> jax.Array:
    """Examples as this library stores them: tokens are int32."""
    return jnp.asarray(array, jnp.int32 if array.dtype == np.int64 else None)


def config_of(task: Task, settings: dict[str, Any] | None = None) -> Config:
    """The configuration of a task, with more epochs than are ever trained.

    Args:
      task: the training.
      settings: an optimizer with its settings, and others that replace the task's; if not given,
        the optimizer is the task's Adam.
    """
    values = {
        "model": task.model,
        "k": task.k,
        "batch_size": task.batch,
        "replicates": task.replicates,
        "log_every": task.steps,
        "epochs": 200,
        "learning_rate": task.learning_rate,
        "lr_schedule": "constant",
    }
    if settings is None:
        b1, b2, epsilon = task.adam
        settings = {"adam_b1": b1, "adam_b2": b2, "adam_eps": epsilon}
    return configs.make(**values | (task.options or {}) | settings)


def make(task: Task, spread: bool = False, settings: dict[str, Any] | None = None) -> Peer:
    """A peer that trains by `training.fit`.

    Args:
      task: the training.
      spread: True to evaluate on one CPU device per core.
      settings: see `config_of`.
    """
    if spread:
        jax.config.update("jax_num_cpu_devices", task.cores)
    elif task.replicates > 1:
        setup.set_up(None, task.replicates, "", False)
    config = config_of(task, settings)
    spec, number = spec_for(task.images), len(task.images)
    method = methods.make(config, spec, number)
    loop = training.make_loop(config, method, number, spec.kind, shard_batch=False)
    runs = training.replicas(config)
    keys = training.base_keys(runs)
    images = binarization.binarize_once(
        jax.random.key(0),
        examples(task.images),
        binarization.mode_for_kind(config.binarization, spec.kind),
    )
    state = loop.init(keys, Batch(examples(task.x[:FIRST_ROWS])), jnp.full(spec.dim, 0.13))
    if task.replicates == 1:
        state = state._replace(**initial(state, task))
    hparams = hyper.hyperparameters(runs)
    x = examples(task.x)
    latest: dict[str, Any] = {}  # "fit", the iterator; "params" and "stats" after its last call
    draws = iter(range(10**9))

    def restart() -> None:
        # `fit` donates the arrays of its state.
        own = jax.tree.map(jnp.copy, state)
        latest["fit"] = training.fit(config, loop, Batch(images), own, keys, hparams)
        latest.update(params=optimizer.evaluation_params(config, state), stats=state.stats)

    @jax.jit
    def bound(key, params, stats):
        return -jnp.mean(method.loss(key, params, stats, Batch(x), hparams).loss)

    def train() -> None:
        record = next(latest["fit"])
        params = optimizer.evaluation_params(config, record.state)
        latest.update(params=params, stats=record.state.stats)
        if (record.failed_at >= 0).any():
            raise RuntimeError("The training failed.")

    def one_bound() -> float:
        return float(bound(jax.random.key(next(draws)), latest["params"], latest["stats"]))

    restart()
    if task.k is None:
        return Peer(train, one_bound, restart=restart)
    evaluated = methods.make(dataclasses.replace(config, k=5, eval_k=DRAWS), spec)
    evaluator = evaluation.make_evaluator(evaluated, sharding.images_mesh() if spread else None)

    def log_likelihood(images: np.ndarray) -> float:
        key = jax.random.fold_in(jax.random.key(1), next(draws))
        examples = Batch(jnp.asarray(images))
        values = evaluation.evaluate(evaluator, key, latest["params"], (), examples)
        return float(np.mean(values["log_likelihood"]))

    return Peer(train, one_bound, log_likelihood, restart)


def initial(state: training.TrainState, task: Task) -> dict[str, Any]:
    """The task's params and stats, in the structure of a state."""
    return restored({"params": state.params, "stats": state.stats}, task.arrays)


def restored(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The arrays in the structure of a tree, by path."""

    def array(path: tuple, old: Any) -> jax.Array:
        return jnp.asarray(arrays[jax.tree_util.keystr(path, simple=True, separator="/")])

    return jax.tree.map_with_path(array, tree)


def arrays_of(params: Any, stats: Any) -> dict[str, np.ndarray]:
    """Params and stats as the arrays of a task, by path."""
    leaves = jax.tree.leaves_with_path({"params": params, "stats": stats})
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
