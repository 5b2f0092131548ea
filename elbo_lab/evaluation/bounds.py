"""Bounds of every image of a split, by one streaming pass over importance draws.

The memory of a pass does not grow with the number of draws: log-weights are folded, chunk after
chunk, into running log-sums of w and w^2 and running means.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from elbo_lab import losses, sharding
from elbo_lab.evaluation.active_units import layer_means
from elbo_lab.models.base import Model

# Rows (draws x images) that the generation network sees at once: their activations fit a CPU's
# cache, and their matrix products run at full speed.
ROWS = 1000
DRAWS_PER_CHUNK = 50


class Evaluation(NamedTuple):
    """One value per image, nats (but for the effective sample size)."""

    log_likelihood: np.ndarray  # [N], L_K = log 1/K sum_k w_k with all K draws
    iwae: np.ndarray  # [N], mean of the IWAE-k bound over K // k disjoint groups of draws
    elbo: np.ndarray  # [N], mean log-weight of the K draws
    kl: np.ndarray  # [N], mean of log q(z|x) - log p(z)
    reconstruction: np.ndarray  # [N], mean of log p(x|z)
    effective_sample_size: np.ndarray  # [N], draws, (sum w)^2 / sum w^2
    means: tuple[np.ndarray, ...]  # [N, L_i] per stochastic layer, E_q[z_i|x]
    # The same of training images, where active units are counted over those.
    train_means: tuple[np.ndarray, ...] = ()


class _Sums(NamedTuple):
    """Running sums over draws, each [B]."""

    log_w: Array  # log sum_k w_k
    log_w2: Array  # log sum_k w_k^2
    iwae: Array  # sum over complete groups of the IWAE-k bound
    elbo: Array  # sum_k log w_k
    kl: Array
    reconstruction: Array


class Evaluator(NamedTuple):
    """A compiled pass over one batch of images, or over one batch on each of several devices."""

    # (key, params, x [B, D]) -> arrays [B]; of n devices (keys [n], params, x [n B, D]) -> [n B]
    run: Callable[[Array, Any, Array], Evaluation]
    batch_size: int
    mesh: Mesh | None = None


def make_evaluator(model: Model, k: int, num_draws: int, mesh: Mesh | None = None) -> Evaluator:
    """Compiles (at first use) the evaluation of a batch.

    Args:
      model: whose bounds.
      k: draws inside the IWAE bound, k <= num_draws.
      num_draws: K, draws of the log-likelihood estimate.
      mesh: devices that evaluate a batch each, `sharding.images_mesh`; one device if not given.

    Raises:
      ValueError: if k > num_draws, which leaves no complete group.
    """
    if not 1 <= k <= num_draws:
        raise ValueError(f"k must lie in 1..num_draws = {num_draws}; got {k}.")
    per_chunk = k * max(1, min(DRAWS_PER_CHUNK, num_draws) // k)
    chunks = -(-num_draws // per_chunk)
    groups = num_draws // k

    def run(key: Array, params: Any, x: Array) -> Evaluation:
        chex.assert_rank(x, 2)
        means_key, draws_key = jax.random.split(key)
        posterior, prior = model.posterior(params, x), model.prior(params)

        def fold(sums: _Sums, chunk: Array) -> tuple[_Sums, None]:
            draws = losses.log_weights(
                jax.random.fold_in(draws_key, chunk),
                posterior,
                prior,
                lambda z: model.likelihood(params, z).log_prob(x),
                per_chunk,
                vectorized=True,
            )
            chex.assert_shape(draws.log_w, (per_chunk, x.shape[0]))
            index = chunk * per_chunk + jnp.arange(per_chunk)
            return _add(sums, draws, (index < num_draws)[:, None], k), None

        zero = jnp.zeros(x.shape[0])
        start = _Sums(zero - jnp.inf, zero - jnp.inf, zero, zero, zero, zero)
        sums, _ = jax.lax.scan(fold, start, jnp.arange(chunks))
        return Evaluation(
            log_likelihood=sums.log_w - jnp.log(float(num_draws)),
            iwae=sums.iwae / groups,
            elbo=sums.elbo / num_draws,
            kl=sums.kl / num_draws,
            reconstruction=sums.reconstruction / num_draws,
            effective_sample_size=jnp.exp(2 * sums.log_w - sums.log_w2),
            means=layer_means(means_key, posterior),
        )

    batch_size = max(1, ROWS // per_chunk)
    if mesh is None:
        return Evaluator(jax.jit(run), batch_size)
    own = jax.P(sharding.IMAGES)
    each = jax.shard_map(
        lambda keys, params, x: run(keys[0], params, x),
        mesh=mesh,
        in_specs=(own, jax.P(), own),
        out_specs=own,
        check_vma=False,
    )
    return Evaluator(jax.jit(each), batch_size, mesh)


def _add(sums: _Sums, draws: losses.LogWeights, valid: Array, k: int) -> _Sums:
    """Adds a chunk of draws [C, B], of which the valid ones [C, 1] count; k divides C."""
    log_w = jnp.where(valid, draws.log_w, -jnp.inf)
    total = functools.partial(jnp.sum, axis=0, where=valid)
    in_groups = log_w.reshape(-1, k, log_w.shape[-1])  # [C / k, k, B]
    complete = valid.reshape(-1, k, 1)[:, -1]  # [C / k, 1]
    bounds = jax.vmap(losses.bounds.iwae)(in_groups)  # [C / k, B]
    return _Sums(
        log_w=jnp.logaddexp(sums.log_w, jax.nn.logsumexp(log_w, axis=0)),
        log_w2=jnp.logaddexp(sums.log_w2, jax.nn.logsumexp(2 * log_w, axis=0)),
        iwae=sums.iwae + jnp.sum(bounds, axis=0, where=complete),
        elbo=sums.elbo + total(draws.log_w),
        kl=sums.kl + total(draws.log_qz_x - draws.log_pz),
        reconstruction=sums.reconstruction + total(draws.log_px_z),
    )


def evaluate(
    evaluator: Evaluator,
    key: Array,
    params: Any,
    images: Array,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Evaluates every image of a split. The last batch is filled up, and its filling left out.

    Args:
      evaluator: from `make_evaluator`.
      key: one typed PRNG key; batch b uses fold_in(key, b), on however many devices.
      params: the model's.
      images: [N, D], float32 in [0, 1], binarized already.
      on_batch: called with the number of images done after each batch.

    Returns:
      Evaluation with NumPy arrays [N].
    """
    if evaluator.mesh is not None:
        return _evaluate_on_mesh(evaluator, key, params, images, on_batch)
    size, number = evaluator.batch_size, images.shape[0]
    parts = []
    for b, start in enumerate(range(0, number, size)):
        rows = jnp.minimum(start + jnp.arange(size), number - 1)
        part = evaluator.run(jax.random.fold_in(key, b), params, images[rows])
        parts.append(jax.device_get(part))
        on_batch(min(start + size, number))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:number], *parts)


def _evaluate_on_mesh(
    evaluator: Evaluator, key: Array, params: Any, images: Array, on_batch: Callable[[int], None]
) -> Evaluation:
    """`evaluate` with batches b, b + 1, ... on a device each, by the keys that they have alone."""
    mesh, size, number = evaluator.mesh, evaluator.batch_size, images.shape[0]
    devices = mesh.size
    own = jax.P(sharding.IMAGES)
    params = sharding.place(params, mesh, jax.P())
    images = np.asarray(images)
    parts = []
    for b in range(0, -(-number // size), devices):
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(b + jnp.arange(devices))
        rows = np.minimum(b * size + np.arange(devices * size), number - 1)
        keys, x = sharding.place((keys, images[rows]), mesh, own)
        parts.append(sharding.fetch(evaluator.run(keys, params, x)))
        on_batch(min((b + devices) * size, number))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:number], *parts)
