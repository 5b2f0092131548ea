"""Mixtures of K components: sum_k w_k p_k(x), with an exact log p(x)."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.distributions.pixels import BernoulliVector
from elbo_lab.losses.arrays import to_common_float, to_common_rank


class BernoulliComponents(BernoulliVector):
    """Independent Bernoulli variables over the last axis, for few laws and many values.

    The same distribution as `BernoulliVector`. `log_prob` is one matrix product, sum_d x_d l_d,
    minus sum_d log(1 + exp(l_d)), which does not depend on x: values [N, 1, D] under K laws [K, D]
    take no array of N K D numbers.
    """

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, D], nats, [*any, *batch]."""
        logits, value = to_common_rank(*to_common_float(self.logits, value))
        linear = jnp.einsum("...d,...d->...", value, logits, precision=jax.lax.Precision.HIGHEST)
        normalizer = jnp.sum(jax.nn.softplus(logits), axis=-1)
        return linear - jnp.broadcast_to(normalizer, linear.shape)


def mixture(log_weights: Array, components: dist.Distribution) -> dist.MixtureSameFamily:
    """The mixture sum_k w_k p_k(x).

    Args:
      log_weights: [*batch, K], up to a constant; weights below the least normal number count as
        that number.
      components: p_k, batch shape [K] or [*batch, K].

    Returns:
      A distribution with `log_prob` (exact), `sample`, `mean` and `component_log_probs`,
      log w_k + log p_k(x), [*any, *batch, K].
    """
    least = jnp.log(jnp.finfo(log_weights.dtype).tiny)
    logits = jnp.maximum(jax.nn.log_softmax(log_weights), least)  # NumPyro refuses -inf.
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


def responsibilities(law: dist.MixtureSameFamily, x: Array) -> tuple[Array, Array]:
    """p(k|x) and log p(x): Bayes' rule over the components (textbook 13.5).

    Args:
      law: a mixture of K components.
      x: [*any, *batch, D].

    Returns:
      [*any, *batch, K], which sum to one, and [*any, *batch] in nats.
    """
    log_joint = law.component_log_probs(x)
    log_px = jax.nn.logsumexp(log_joint, axis=-1)
    return jnp.exp(log_joint - log_px[..., None]), log_px
