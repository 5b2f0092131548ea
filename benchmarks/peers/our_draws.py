"""This library: drawing examples, with a state between values or by the network for each value."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.common import Peer, Task
from benchmarks.peers.ours import config_of, examples, restored, spec_for
from elbo_lab import configs, methods, models, training
from elbo_lab.data import Batch, Spec
from elbo_lab.distributions.autoregressive import Autoregressive, without_state
from elbo_lab.methods import vqvae
from elbo_lab.models import NOTHING_GIVEN, Density
from elbo_lab.training import hyper


def prior_of(code_spec: Spec) -> Density:
    """The model of a VQ-VAE's codes, a PixelCNN at its default settings."""
    return models.make(configs.make(model="pixelcnn"), code_spec)


def law_of(model: Any, params: Any, key: jax.Array, number: int) -> tuple[Any, tuple[int, ...]]:
    """p(x) of a density, or p(x|z) for draws of z; and the shape of a sample of `number` draws."""
    if isinstance(model, Density):
        return model.distribution(params, (), NOTHING_GIVEN), (number,)
    z = model.prior(params, NOTHING_GIVEN).sample(key, (number,))
    return model.likelihood(params, z, NOTHING_GIVEN), ()


def make(task: Task, recomputed: bool) -> Peer:
    """A peer that draws `task.batch` examples.

    Args:
      task: the model.
      recomputed: True: the network is computed for each value, by one compiled loop.
    """
    config, spec = config_of(task), spec_for(task.images)
    method, x = methods.make(config, spec), examples(task.x)
    start = jax.eval_shape(method.init, jax.random.key(0), Batch(x), jnp.zeros(spec.dim))
    own = restored(dict(zip(("params", "stats"), start, strict=True)), task.arrays)
    keys = iter(jax.random.split(jax.random.key(1), 10_000))
    if method.code_specs:
        return _pair(task, method, own, keys)
    model = models.make(config, spec)
    hparams = hyper.hyperparameters(training.replicas(config))

    @jax.jit
    def draw(key, params):
        z_key, x_key = jax.random.split(key)
        law, shape = law_of(model, params, z_key, task.batch)
        return law.sample(x_key, shape)

    @functools.partial(jax.jit, static_argnums=2)
    def draw_recomputed(key, params, values):
        z_key, x_key = jax.random.split(key)
        law, _ = law_of(model, params, z_key, task.batch)
        steps = without_state(law.logits, values)
        blank = jnp.zeros((task.batch, spec.dim), x.dtype)
        return Autoregressive(law.logits, law.spec, law.batch_shape, steps).complete(
            x_key, blank, 0
        )

    @jax.jit
    def bound(key, params, stats):
        return -jnp.mean(method.loss(key, params, stats, Batch(x), hparams).loss)

    def sample(values: int) -> np.ndarray:
        if recomputed:
            return np.asarray(draw_recomputed(next(keys), own["params"], values))
        return np.asarray(draw(next(keys), own["params"]))

    return Peer(bound=lambda: float(bound(next(keys), **own)), sample=sample)


def _pair(task: Task, method: methods.Method, own: dict[str, Any], keys: Any) -> Peer:
    """A VQ-VAE and a PixelCNN of its codes; the means of pixels are what is drawn."""
    model, x = prior_of(method.code_specs[0]), Batch(examples(task.x))
    codes = jnp.zeros((1, method.code_specs[0].dim), jnp.int32)
    start = {"prior": {"params": jax.eval_shape(model.init, jax.random.key(0), Batch(codes))}}
    prior = restored(start, task.arrays)["prior"]["params"]

    @jax.jit
    def draw(key, prior, own):
        drawn = model.distribution(prior, (), NOTHING_GIVEN).sample(key, (task.batch,))
        return method.decode(own["params"], own["stats"], drawn, NOTHING_GIVEN).mean

    @jax.jit
    def bound(prior, own):
        law = model.distribution(prior, (), NOTHING_GIVEN)
        return jnp.mean(vqvae.pair_bound(method, own["params"], own["stats"], x, law))

    return Peer(
        bound=lambda: float(bound(prior, own)),
        sample=lambda values: np.asarray(draw(next(keys), prior, own)),
    )
