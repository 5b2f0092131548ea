"""Gradient estimator without variance: the sum over all values of a discrete z.

Conventions: see `estimators.py`. Second derivatives are right.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.arguments import check_per_example
from elbo_lab.losses.arrays import to_common_float
from elbo_lab.losses.laws import NUMPYRO, is_a
from elbo_lab.losses.path_estimators import Bound, Weigh, weighed
from elbo_lab.losses.weights import LogWeights, Problem, densities, over_draws, sample


def enumerated(
    key: Array, problem: Problem, bound: Bound, weigh: Weigh
) -> tuple[Array, LogWeights]:
    """The expectation of a mean over draws, E_q[f] = sum_z q(z|x) f(log w(z)), and its gradient.

    Exact for the ELBO and its relatives, value, gradient and Hessian, whatever K is. The posterior
    has `enumerate_support(expand)` by NumPyro's convention: all values of z, [S, *batch, ...], or
    with expand=False [S, 1, ..., 1, ...]. With vectorized=True, log_prob and log_likelihood take
    the latter, so that a decoder sees every z once and not once per example.

    Returns:
      The surrogate, -E_q[f] [*batch], nats; and K draws from q held fixed, for `Aux` alone.

    Raises:
      ValueError: a bound that is not a mean over draws, or a posterior whose values cannot be
        enumerated.
    """
    if bound is not bounds.elbo:
        raise ValueError(
            'estimator="enumerate" sums over the values of one draw, and is for means over draws '
            "alone (elbo, beta_vae and their relatives)."
        )
    draws = jax.lax.stop_gradient(densities(problem, sample(key, problem)))
    values = _densities_of_all(problem, draws.log_w.shape[1:])
    is_possible = values.log_qz_x > -jnp.inf
    # Mask the impossible values: 0 * inf is NaN.
    f = jnp.where(is_possible, weighed(weigh, values), 0)
    return -jnp.sum(jnp.exp(values.log_qz_x) * f, axis=0), draws


def _densities_of_all(problem: Problem, batch: tuple[int, ...]) -> LogWeights:
    """Log densities of every value of z, [S, *batch]."""
    z = _support(problem.posterior, expand=not problem.vectorized)
    shape = (len(jax.tree.leaves(z)[0]), *batch)

    def of_all(name: str, function: Any) -> Array:
        value = over_draws(problem, function)(z)
        if value.ndim == len(shape) and problem.vectorized:
            value = jnp.broadcast_to(value, shape)
        check_per_example(name, value, shape, leading=1)
        return value

    log_px_z, log_pz, log_qz_x = to_common_float(
        of_all("log_likelihood", problem.log_likelihood),
        of_all("prior.log_prob", problem.prior.log_prob),
        of_all("posterior.log_prob", problem.posterior.log_prob),
    )
    return LogWeights(log_px_z + log_pz - log_qz_x, log_px_z, log_pz, log_qz_x, z)


def _support(posterior: Any, expand: bool) -> Any:
    """All values of z.

    Raises:
      ValueError: they cannot be enumerated.
    """
    # A masked distribution's masses do not sum to one.
    is_masked = is_a(posterior, NUMPYRO, "MaskedDistribution")
    if hasattr(posterior, "enumerate_support") and not is_masked:
        try:
            return posterior.enumerate_support(expand=expand)
        except NotImplementedError:
            pass
    raise ValueError(
        'estimator="enumerate" sums over all values of z, and needs a posterior with '
        f"enumerate_support; {type(posterior).__name__} has none."
    )
