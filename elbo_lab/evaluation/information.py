"""Bounds and estimates of mutual information from log q(z_i|x_j) of N pairs of examples.

    I(x; z) = E log q(z|x) / q(z),    q(z) = E_x q(z|x)

for x_1, ..., x_N drawn independently and one draw z_i ~ q(z|x_i) of each (Poole et al. 2019, On
variational bounds of mutual information, the section on tractable encoders). With the aggregate
posterior q_N(z) = 1/N sum_j q(z|x_j) in the place of q(z), each z_i has the estimates

    lower      log q(z_i|x_i) / (1/N sum_j q(z_i|x_j))
    upper      log q(z_i|x_i) / (1/(N-1) sum_{j != i} q(z_i|x_j))
    corrected  N lower - (N-1) (mean over k != i of lower without example k)

lower is InfoNCE with its best critic, log q(z|x). Its expectation is at most I(x; z), rises with N,
and is exactly the mutual information for an x that is uniform over the N examples. No value exceeds
log N: where I(x; z) is greater, lower ends there. The bias is -c/(2N) + O(1/N^2), with c the chi^2
divergence of q(x, z) from q(x) q(z). The expectation of upper is at least I(x; z), without a limit,
and its bias is +c/(2N) + O(1/N^2). corrected is the jackknife of lower: its bias is O(1/N^2), and
no value exceeds log N + 1.

The mean over i is an estimate of a number that is not negative, and may itself be negative. Both
logarithms here are of the same z_i, so that the noise falls with I(x; z): it is 0 where q(z|x) is
the same for all x. The difference of a mean of log q(z|x) in closed form and of a mean of log
q_N(z) from draws has the noise of a draw's log-density, a variance of about L / (2N) for L
Gaussian latents, and is negative for every second collapsed posterior.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array


class Estimates(NamedTuple):
    """Estimates of I(x; z) from each draw, [R] in nats; their means over draws are reported."""

    lower: Array  # a lower bound in expectation, at most log N
    corrected: Array  # the jackknife of `lower`, at most log N + 1
    upper: Array  # an upper bound in expectation


def estimates(log_q: Array, is_own: Array, is_other: Array) -> Estimates:
    """Estimates from each draw.

    Args:
      log_q: log q(z_i|x_j) for draw i and example j, [R, M], nats.
      is_own: True for the one example that z_i was drawn for, [R, M].
      is_other: True for the other N - 1 >= 1 examples of its aggregate posterior, [R, M].
    """
    chex.assert_rank(log_q, 2)
    chex.assert_equal_shape([log_q, is_own, is_other])
    own = jnp.sum(jnp.where(is_own, log_q, 0), axis=-1)
    others = jnp.where(is_other, log_q, -jnp.inf)
    num_others = jnp.sum(is_other, axis=-1).astype(log_q.dtype)
    log_others = jax.nn.logsumexp(others, axis=-1)
    log_sum = jnp.logaddexp(own, log_others)
    lower = own - log_sum + jnp.log1p(num_others)
    upper = own - log_others + jnp.log(num_others)
    # N lower - (N-1) mean_k lower_k = lower + (N-1) log N/(N-1) + sum_k log(1 - p_k), with p_k =
    # q(z|x_k) / sum_j q(z|x_j). Only the greatest p_k may be near 1, where 1 - p_k loses digits.
    is_top = is_other & (jnp.arange(log_q.shape[-1]) == jnp.argmax(others, axis=-1)[:, None])
    shares = jnp.where(is_top, 0, jnp.exp(others - log_sum[:, None]))
    without_top = jax.nn.logsumexp(jnp.where(is_top, -jnp.inf, others), axis=-1)
    log_left = jnp.logaddexp(own, without_top) - log_sum  # log(1 - p_top)
    change = num_others * jnp.log1p(1 / num_others) + jnp.sum(jnp.log1p(-shares), axis=-1)
    return Estimates(lower, lower + change + log_left, upper)


def of_matrix(log_q: Array) -> Estimates:
    """Estimates from every draw of a square matrix, [N] each.

    With other scores f(x_j, z_i) in the place of log q(z_i|x_j), `lower` is InfoNCE with the critic
    f (van den Oord et al. 2018): a lower bound in expectation for every f. The other two need
    log q(z|x).

    Args:
      log_q: log q(z_i|x_j) for draw i and example j, [N, N], nats.

    Raises:
      ValueError: fewer than two examples, or a matrix that is not square.
    """
    if log_q.ndim != 2 or log_q.shape[0] != log_q.shape[1] or len(log_q) < 2:
        raise ValueError(f"log_q must be [N, N] with N of at least 2; got {log_q.shape}.")
    is_own = jnp.eye(len(log_q), dtype=bool)
    return estimates(log_q, is_own, ~is_own)


def sizes(number: int) -> tuple[int, ...]:
    """4, 16, 64, ... below `number`, and `number`: the N of a curve."""
    powers = [4**power for power in range(1, 30) if 4**power < number]
    return (*powers, number)
