"""Bounds of every example by one streaming pass over importance draws.

The memory of a pass does not grow with the number of draws: log-weights are folded, chunk after
chunk, into running log-sums of w and w^2 and running means.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab import keys, losses
from elbo_lab.data.dataset import Batch
from elbo_lab.distributions import Chain
from elbo_lab.distributions.means import mean_of
from elbo_lab.models.base import Given, Model, given_of

DRAWS_PER_CHUNK = 50


class _Sums(NamedTuple):
    """Running sums over draws, each [B]."""

    log_w: Array  # log sum_k w_k
    log_w2: Array  # log sum_k w_k^2
    iwae: Array  # sum over complete groups of the IWAE-k bound
    elbo: Array  # sum_k log w_k
    kl: Array
    reconstruction: Array


def draws_per_chunk(k: int, num_draws: int) -> int:
    """Draws that are held at once: a multiple of k, at most DRAWS_PER_CHUNK, but at least k."""
    return k * max(1, min(DRAWS_PER_CHUNK, num_draws) // k)


def batch_size(model: Model, k: int, num_draws: int) -> int:
    """Examples that are measured at once."""
    return max(1, model.rows // draws_per_chunk(k, num_draws))


def make_measure(
    model: Model, k: int, num_draws: int, with_means: bool = True
) -> Callable[..., dict[str, Array]]:
    """The measurement of a batch, `Method.measure`; in nats per example, except the sample size.

    log_likelihood         [B], L_K = log 1/K sum_k w_k with all K draws
    iwae                   [B], mean of the IWAE-k bound over K // k disjoint groups of draws
    elbo                   [B], mean log-weight of the K draws
    kl                     [B], mean of log q(z|x) - log p(z)
    reconstruction         [B], mean of log p(x|z)
    effective_sample_size  [B], draws, (sum w)^2 / sum w^2
    means_1, ...           [B, L_i], E_q[z_i|x] of each stochastic layer
    log_px                 [B], log p(x), exact, of a model that has it

    Args:
      model: whose bounds are estimated.
      k: draws inside the IWAE bound, k <= num_draws.
      num_draws: K, draws of the log-likelihood estimate.
      with_means: False to leave out the layers' means.

    Raises:
      ValueError: if k > num_draws, which leaves no complete group.
    """
    if not 1 <= k <= num_draws:
        raise ValueError(f"k must lie in 1..num_draws = {num_draws}; got {k}.")
    stream, groups = _make_stream(model, k, num_draws), num_draws // k

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        del stats
        x, given = batch.x, given_of(batch)
        chex.assert_rank(x, 2)
        means_key, draws_key = jax.random.split(key)

        def add(sums: _Sums, draws: losses.LogWeights, is_counted: Array) -> _Sums:
            return _add(sums, draws, is_counted, k)

        zero = jnp.zeros(x.shape[0])
        start = _Sums(zero - jnp.inf, zero - jnp.inf, zero, zero, zero, zero)
        sums = stream(draws_key, params, x, given, start, add)
        exact = {} if model.log_px is None else {"log_px": model.log_px(params, x, given)}
        means = layer_means(means_key, model.posterior(params, x, given)) if with_means else {}
        return exact | {
            "log_likelihood": sums.log_w - jnp.log(float(num_draws)),
            "iwae": sums.iwae / groups,
            "elbo": sums.elbo / num_draws,
            "kl": sums.kl / num_draws,
            "reconstruction": sums.reconstruction / num_draws,
            "effective_sample_size": jnp.exp(2 * sums.log_w - sums.log_w2),
            **means,
        }

    return measure


def make_class_measure(model: Model, k: int, num_draws: int) -> Callable[..., dict[str, Array]]:
    """The measurement of a batch under every class, `Method.measure_classes`.

    log_likelihood_y  [B, C], L_K = log 1/K sum_k p(x|y, z_k) p(z_k) / q(z_k|x, y), z_k ~ q(z|x, y),
                      for each class y, in nats: a lower bound of log p(x|y) in expectation

    All classes have the same noise, so that their differences have less of it.

    Args:
      model: conditioned on labels.
      k: draws inside the IWAE bound, which decide how many are held at once, as in `make_measure`.
      num_draws: K.
    """
    stream = _make_stream(model, k, num_draws)

    def add(log_sum: Array, draws: losses.LogWeights, is_counted: Array) -> Array:
        log_w = jnp.where(is_counted, draws.log_w, -jnp.inf)
        return jnp.logaddexp(log_sum, jax.nn.logsumexp(log_w, axis=0))

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        del stats
        x = batch.x

        def log_likelihood(label: Array) -> Array:
            given = Given(label=jnp.full(x.shape[0], label))
            start = jnp.full(x.shape[0], -jnp.inf)
            log_sum = stream(key, params, x, given, start, add)
            return log_sum - jnp.log(float(num_draws))

        by_class = jax.lax.map(log_likelihood, jnp.arange(model.classes))
        return {"log_likelihood_y": by_class.T}

    return measure


def _make_stream(model: Model, k: int, num_draws: int) -> Callable[..., Any]:
    """A fold over all draws of z for a batch, of which a chunk is held at once.

    Args:
      model: gives q(z|x), p(z) and p(x|z).
      k: divides the draws of a chunk.
      num_draws: K.

    Returns:
      stream(key, params, x [B, D], given, start, add) -> the sums after all K draws. It calls
      add(sums, draws, is_counted), whose draws are log-weights of the shape [C, B]; those with
      is_counted [C, 1] are among the K, and the others fill the last chunk.
    """
    per_chunk = draws_per_chunk(k, num_draws)
    chunks = -(-num_draws // per_chunk)

    def stream(key: Array, params: Any, x: Array, given: Given, start: Any, add: Callable) -> Any:
        posterior, prior = model.posterior(params, x, given), model.prior(params, given)

        def fold(sums: Any, chunk: Array) -> tuple[Any, None]:
            draws = losses.log_weights(
                jax.random.fold_in(key, chunk),
                posterior,
                prior,
                lambda z: model.likelihood(params, z, given).log_prob(x),
                per_chunk,
                vectorized=True,
            )
            chex.assert_shape(draws.log_w, (per_chunk, x.shape[0]))
            index = chunk * per_chunk + jnp.arange(per_chunk)
            return add(sums, draws, (index < num_draws)[:, None]), None

        return jax.lax.scan(fold, start, jnp.arange(chunks))[0]

    return stream


def layer_means(key: Array, posterior: Any) -> dict[str, Array]:
    """E_q[z_i | x] of every stochastic layer: "means_1" of the lowest one, "means_2", ...

    The mean of a layer above the first is conditioned on one draw of the layers below, as in the
    public code of Burda et al. (2016). For layers without a mean in closed form it is the mean of
    10,000 draws (`means.mean_of`).

    Args:
      key: one typed PRNG key, for hierarchies and for layers without a mean in closed form.
      posterior: q(z|x), batch shape [*batch].

    Returns:
      [*batch, L_i] each; the leaves of a draw, where draws are trees.
    """
    if not isinstance(posterior, Chain):
        return _named(jax.tree.leaves(mean_of(key, posterior)))
    # The draws of `posterior.sample(key)` have to stay those of stored runs.
    own_keys = jax.random.split(keys.beside(key), len(posterior.conditionals) + 1)
    layers = posterior.layers(posterior.sample(key))
    return _named([mean_of(k, layer) for k, layer in zip(own_keys, layers, strict=True)])


def _named(layers: list[Array]) -> dict[str, Array]:
    return {f"means_{i}": means for i, means in enumerate(layers, 1)}


def _add(sums: _Sums, draws: losses.LogWeights, valid: Array, k: int) -> _Sums:
    """The sums after a chunk of draws [C, B]; only draws with valid [C, 1] count; k divides C."""
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
