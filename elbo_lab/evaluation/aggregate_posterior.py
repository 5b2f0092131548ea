"""Mutual information of x and z, and q(z), over a whole split of a latent-variable model.

z is the draw of all stochastic layers. Where there are several, q(z|x) = q(z_1|x) q(z_2|z_1) ...,
and the layers above the lowest know x only by z_1: I(x; z) = I(x; z_1), so that log q(z_1|x) is
enough for the pairs of examples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch
from elbo_lab.distributions import Chain
from elbo_lab.evaluation import information
from elbo_lab.losses.posteriors import one_per_example, sample_from
from elbo_lab.methods.base import Method
from elbo_lab.models.base import given_of

# Examples that are encoded at once, and rows and columns of a block of pairs.
CHUNK = 250
# Chunks of rows for which the examples are encoded once more: all pairs of so many rows are held.
ROW_CHUNKS = 10


class _Drawn(NamedTuple):
    """Draws of a chunk of C examples, or of T chunks with a leading axis."""

    z: Array  # [C, L_1], a draw of z_1 from q(z_1|x)
    rate: Array  # [C], log q(z|x) - log p(z) of the draw, all layers
    # [C], log q(z|x) - log p(z) of a draw of p(z) p(x|z); None: not wanted
    model_information: Array | None


def check(method: Method) -> None:
    """Raises a ValueError for a method without q(z|x), or one that is conditioned on labels."""
    if method.posterior is None or method.prior is None:
        raise ValueError(
            "measures=information needs q(z|x) and p(z): a run of a latent-variable model."
        )
    if method.classes is not None:
        raise ValueError(
            "measures=information is that of x and z, and q(z|x, y) of a run with condition=label "
            "has an aggregate posterior for each y; give a run without a condition."
        )


def make_measure(
    method: Method, size: int | None = None, with_model: bool = True
) -> Callable[..., dict[str, Array]]:
    """The measurement of a whole split of n examples, in nats, one draw for each example.

    The aggregate posterior of example i is that of N examples, i, i + 1, ... (after the last one
    follows the first).

    information            [n], lower bound of I_q(x; z), InfoNCE with the critic log q(z|x)
    information_corrected  [n], the same with its bias corrected
    information_loo        [n], upper bound of I_q(x; z), leave-one-out
    information_rate       [n], log q(z|x) - log p(z), upper bound of I_q(x; z)
    aggregate_kl           [n], rate - lower: upper bound of KL(q(z) || p(z))
    aggregate_kl_corrected [n], rate - corrected
    model_information      [n], lower bound of I_p(x; z), of x and z from p(z) p(x|z) (Barber and
                           Agakov 2003): H(z) + E log q(z|x)
    information_by_size    [n, S, 3], lower, corrected and upper for each of `information.sizes(N)`

    Memory grows with n: the pairs of ROW_CHUNKS chunks of rows and all columns are held at once.

    Args:
      method: has a posterior, a prior and a decoder.
      size: N, 2..n; None: n.
      with_model: False: without `model_information`, for which an autoregressive decoder draws as
        many x, value by value.
    """

    def measure(key: Array, params: Any, stats: Any, examples: Batch) -> dict[str, Array]:
        number = examples.x.shape[0]
        chunk = min(CHUNK, number)
        count = -(-number // chunk)  # T
        rows = jnp.minimum(jnp.arange(count * chunk), number - 1).reshape(count, chunk)

        def chunk_of(index: Array) -> Batch:
            return jax.tree.map(lambda array: array[rows[index]], examples)

        def draw(index: Array) -> _Drawn:
            own_key = jax.random.fold_in(key, index)
            return _drawn(method, own_key, params, stats, chunk_of(index), with_model)

        drawn = jax.lax.map(draw, jnp.arange(count))

        def estimated(row_chunks: Array) -> Array:
            """Estimates of the draws of some chunks, [R, C, S, 3]."""

            def column(index: Array) -> Array:
                law = _lowest(method.posterior(params, stats, chunk_of(index)))
                return jax.lax.map(lambda z: law.log_prob(z[:, None]), drawn.z[row_chunks])

            log_q = jax.lax.map(column, jnp.arange(count))  # [T, R, C, C]

            def of_chunk(place: Array) -> Array:
                pairs = jnp.swapaxes(log_q[:, place], 0, 1).reshape(chunk, count * chunk)
                return _by_size(pairs, row_chunks[place] * chunk, number, size or number)

            return jax.lax.map(of_chunk, jnp.arange(len(row_chunks)))

        held = min(ROW_CHUNKS, count)  # R
        blocks = -(-count // held)
        row_chunks = jnp.minimum(jnp.arange(blocks * held), count - 1).reshape(blocks, held)
        by_size = jax.lax.map(estimated, row_chunks)
        by_size = by_size.reshape(-1, *by_size.shape[-2:])[:number]  # [n, S, 3]
        lower, corrected, upper = by_size[:, -1].T
        rate = drawn.rate.reshape(-1)[:number]
        values = {
            "information": lower,
            "information_corrected": corrected,
            "information_loo": upper,
            "information_rate": rate,
            "aggregate_kl": rate - lower,
            "aggregate_kl_corrected": rate - corrected,
            "information_by_size": by_size,
        }
        if with_model:
            values["model_information"] = drawn.model_information.reshape(-1)[:number]
        return values

    return measure


def _lowest(posterior: Any) -> Any:
    """q(z_1|x)."""
    return posterior.first if isinstance(posterior, Chain) else posterior


def _drawn(
    method: Method, key: Array, params: Any, stats: Any, batch: Batch, with_model: bool
) -> _Drawn:
    """Draws of q(z|x) for the examples of a batch and, `with_model`, as many of p(z) p(x|z)."""
    z_key, prior_key, x_key = jax.random.split(key, 3)
    given = given_of(batch)
    posterior = method.posterior(params, stats, batch)
    prior = method.prior(params, stats, given)
    z = sample_from(posterior, z_key, ())
    model_information = None
    if with_model:
        model_z = one_per_example(prior, prior_key, (batch.x.shape[0],))
        x = sample_from(method.decode(params, stats, model_z, given), x_key, ())
        of_model = method.posterior(params, stats, batch._replace(x=x))
        model_information = of_model.log_prob(model_z) - prior.log_prob(model_z)
    return _Drawn(
        z=z[0] if isinstance(posterior, Chain) else z,
        rate=posterior.log_prob(z) - prior.log_prob(z),
        model_information=model_information,
    )


def _by_size(log_q: Array, start: Array, number: int, size: int) -> Array:
    """Estimates of a block of rows for each number of examples, [C, S, 3].

    Args:
      log_q: [C, M], log q(z_i|x_j) for i = start, start + 1, ... and j = 0, ..., M - 1.
      start: the block's first row.
      number: n; columns from n on are padding.
      size: N, the greatest number of examples.
    """
    rows, columns = start + jnp.arange(len(log_q))[:, None], jnp.arange(log_q.shape[1])
    place = jnp.where(columns < number, (columns - rows) % number, number)  # 0 for x_i itself
    parts = [
        information.estimates(log_q, place == 0, (0 < place) & (place < some))
        for some in information.sizes(size)
    ]
    return jnp.stack([jnp.stack(part, axis=-1) for part in parts], axis=1)
