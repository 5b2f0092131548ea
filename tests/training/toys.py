"""Toy methods that NumPy can reproduce, and helpers of tests that run them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import evaluation, training
from elbo_lab.configs import Config
from elbo_lab.data import Batch, streaming
from elbo_lab.methods import Loss, Method, importance
from elbo_lab.models import Model

NUMBER, DIMS = 24, 16
# Quantities of an evaluation by importance sampling that are one number for each example.
MEASURED = ("log_likelihood", "iwae", "elbo", "kl", "reconstruction", "effective_sample_size")


def method_of(init, loss, terms=("bound",)) -> Method:
    """A method without stats that can only be trained.

    Args:
      init: (key, mean) -> params.
      loss: (key, params, x, hparams) -> (loss [B], terms).
      terms: names of the terms.
    """

    def batch_loss(key, params, stats, batch, hparams):
        return Loss(*loss(key, params, batch.x, hparams))

    def start(key, batch, mean=None):
        return init(key, mean), ()

    return Method(start, batch_loss, terms, None, 1, {}, None)


def importance_evaluator(model: Model, k: int, num_draws: int) -> evaluation.Evaluator:
    """The evaluation of a model by importance sampling, on one device."""
    measure = importance.make_measure(model, k, num_draws)
    size = importance.batch_size(model, k, num_draws)
    return evaluation.make_evaluator(Method(None, None, (), measure, size, {}, None))


def toy_init(key: jax.Array, mean: jax.Array) -> dict:
    return {"w": mean + 0.1 * jax.random.normal(key, mean.shape), "b": jnp.zeros(())}


def toy_loss(key, params, x, hparams):
    """Squared distance to noisy images, which is quick to compile and random.

    The term "lit" encodes a binary image: pixel i adds 2^i if it is lit.
    """
    noise = 0.1 * jax.random.normal(key, x.shape)
    distance = jnp.sum(jnp.square(params["w"] + params["b"] + noise - x), axis=-1)
    penalty = jnp.sum(jnp.square(params["w"])) * jnp.ones(len(x))
    loss = distance + hparams.get("beta", 1.0) * penalty
    lit = jnp.sum(x * jnp.asarray(2.0 ** np.arange(x.shape[-1]), jnp.float32), axis=-1)
    return loss, {"bound": -loss, "kl": penalty, "lit": lit}


TOY = method_of(toy_init, toy_loss, ("bound", "kl", "lit"))


def striped_images() -> np.ndarray:
    """uint8 [24, 16] images, each bright in its first or its last eight pixels."""
    rng = np.random.default_rng(0)
    is_bright = np.arange(DIMS)[None] // 8 == rng.integers(0, 2, (NUMBER, 1))
    bright = rng.integers(200, 256, is_bright.shape)
    dark = rng.integers(0, 40, is_bright.shape)
    return np.where(is_bright, bright, dark).astype(np.uint8)


@functools.cache
def toy_loop(config: Config) -> training.Loop:
    return training.make_loop(config, TOY, NUMBER)


def copied(tree):
    """A copy on the host, which donation leaves intact."""
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


def on_device(tree):
    return jax.tree.map(lambda leaf: jnp.array(leaf), tree)


def start(
    config: Config, loop: training.Loop, x: np.ndarray
) -> tuple[training.TrainState, jax.Array]:
    """The state before the first step, and the base keys."""
    base_keys = training.base_keys(training.replicas(config))
    grey = np.asarray(x / (255 if x.dtype == np.uint8 else 1), np.float32)
    return loop.init(base_keys, Batch(grey), grey.mean(axis=0)), base_keys


def run(config: Config, loop: training.Loop, data, state=None) -> list[training.Record]:
    """All records of a run, or of the rest of it, with their states copied.

    Args:
      config: the run's.
      loop: the run's.
      data: images [N, D], a `Batch` of them with labels, or `streaming.Examples`.
      state: the state to go on from; the run's first if not given.
    """
    if not isinstance(data, Batch | streaming.Examples):
        data = Batch(np.asarray(data))
    x = data.array if isinstance(data, streaming.Examples) else data.x
    first_state, base_keys = start(config, loop, np.asarray(x))
    if isinstance(data, Batch):
        data = on_device(data)
    records = training.fit(config, loop, data, first_state if state is None else state, base_keys)
    return [record._replace(state=copied(record.state)) for record in records]


def assert_identical(got, expected) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def assert_close(got, expected) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
