"""Codebooks (van den Oord et al. 2017) and two ways to train them: by a loss, by moving averages.

A codebook has K vectors, the codes; the nearest one replaces each output of an encoder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.models.vqvae import CODEBOOKS

# Added to the share of each code, as a part of an equal share 1 / K (Laplace's smoothing): a code
# that is never used keeps a positive divisor.
SMOOTHING = 1e-5
# Float32 products whatever the device's default: TF32 would choose other codes.
_EXACT = jax.lax.Precision.HIGHEST


class LearnedStats(NamedTuple):
    """State of a codebook trained by a loss; its codes are params + shifts."""

    shares: Array  # [K], moving average of each code's share of the vectors
    shifts: Array  # [K, E], added to the trained codes by restarts


class MovingStats(NamedTuple):
    """State of a codebook of moving averages; its codes are sums / shares."""

    shares: Array  # [K], moving average of each code's share of the vectors
    sums: Array  # [K, E], moving average of the sum of a code's vectors over the number of all


class Codebook(NamedTuple):
    """A codebook as pure functions. Both kinds of stats have a field `shares`."""

    init: Callable[..., tuple[Any, Any]]
    """(key, vectors [N, E]) -> (params, stats). The codes are distinct vectors; with N < K some of
    them repeat."""

    codes: Callable[[Any, Any], Array]
    """(params, stats) -> [K, E]."""

    update: Callable[..., tuple[Any, Array]]
    """(key, params, stats, vectors [N, E], rows [N, K]) -> stats after a batch, and the number of
    codes that were restarted, []. Rows are those of `one_hot`, for the nearest codes."""


class CodebookUse(NamedTuple):
    """The part of a codebook that a set of codes uses."""

    perplexity: Array  # [], exp(entropy) of the codes' frequencies, in 1..K
    usage: Array  # [], fraction of the K codes that occur, in 0..1


def nearest(vectors: Array, codes: Array) -> Array:
    """The index of the code nearest to each vector: argmin_k ||z - e_k||^2.

    ||z - e_k||^2 / 2 = ||z||^2 / 2 - z.e_k + ||e_k||^2 / 2, whose first term is the same for all
    codes and is left out. Vectors and codes are centred at the mean code first: the difference of
    products with a large common offset would lose its digits.

    Args:
      vectors: z, [*any, E].
      codes: e, [K, E].

    Returns:
      int32 [*any]; the lowest index where computed distances are equal.
    """
    center = jnp.mean(codes, axis=0)
    vectors, codes = vectors - center, codes - center
    products = jnp.matmul(vectors, codes.T, precision=_EXACT)
    distances = jnp.sum(codes**2, -1) / 2 - products
    # Two reductions take a quarter of the time of `argmin` on a CPU.
    least = jnp.min(distances, axis=-1, keepdims=True)
    indices = jnp.arange(len(codes), dtype=jnp.int32)
    return jnp.min(jnp.where(distances == least, indices, len(codes) - 1), axis=-1)


def one_hot(indices: Array, num_codes: int) -> Array:
    """Rows [*any, K] of 0 and 1; their matrix products with codes select codes.

    The derivative of such a product is a matrix product too. The derivative of indexing is a
    scatter: slow on CPUs, and on GPUs a sum in no fixed order.
    """
    return jax.nn.one_hot(indices, num_codes)


def chosen(rows: Array, codes: Array) -> Array:
    """The codes [*any, E] that rows [*any, K] of `one_hot` choose from codes [K, E]."""
    return jnp.matmul(rows, codes, precision=_EXACT)


def straight_through(vectors: Array, chosen_codes: Array) -> Array:
    """The chosen codes, as a function of the vectors with derivative one (section 3.2).

    sg[e] + (z - sg[z]): z - sg[z] is exactly zero, so that the value is e to the last bit.
    """
    stop = jax.lax.stop_gradient
    return stop(chosen_codes) + (vectors - stop(vectors))


def squared_distance(vectors: Array, codes: Array) -> Array:
    """sum_m ||z_m - e_m||^2 over the last two axes: [*batch, M, E] -> [*batch]."""
    return jnp.sum((vectors - codes) ** 2, axis=(-2, -1))


def perplexity(shares: Array) -> Array:
    """exp(H(p)) = exp(-sum_k p_k log p_k) of frequencies p [*any, K] that sum to one; [*any]."""
    return jnp.exp(jnp.sum(jax.scipy.special.entr(shares), axis=-1))


def codebook_use(codes: Array, num_codes: int) -> CodebookUse:
    """Perplexity and usage of the codes of a whole split.

    Args:
      codes: indices in 0..num_codes-1, of any shape, e.g. [N, M].
      num_codes: K.
    """
    counts = jnp.bincount(jnp.ravel(codes), length=num_codes)
    return CodebookUse(perplexity(counts / jnp.size(codes)), jnp.mean(counts > 0))


class _Settings(NamedTuple):
    num_codes: int  # K
    decay: float  # g
    restart_below: float  # part of an equal share 1 / K


def make(kind: str, num_codes: int, decay: float, restart_below: float) -> Codebook:
    """A codebook trained in one of two ways.

    "loss": the codes are parameters, and the step's loss has a term ||sg[z] - e||^2. Only the
    optimizer changes parameters, so that a restart is a shift that is added to them.

    "ema": with n_k the number of the batch's N vectors whose nearest code is k, g the decay,

        shares_k <- g shares_k + (1 - g) n_k / N,
        sums_k   <- g sums_k   + (1 - g) sum_{j: k} z_j / N,    e_k = sums_k / shares_k

    (van den Oord et al. 2017, appendix A.1, there with counts instead of shares, which is the same
    for batches of one size), the shares in the last division smoothed by `SMOOTHING`. The choice of
    nearest codes is the E-step of hard EM (k-means), this is its M-step over an average of batches;
    no gradient moves the codes. By the smoothing a code that stays unused moves to the origin.

    In both cases a code whose share falls below `restart_below` / K becomes one of the batch's
    vectors, and its share becomes 1 / K. K vectors are drawn without replacement, the k-th for code
    k, with probabilities proportional to the squared distances to their nearest codes, as in the
    start of k-means++. A uniform draw from a batch with many copies of one vector (black
    background) would take mostly those copies.

    Args:
      kind: one of `CODEBOOKS`.
      num_codes: K.
      decay: g, in 0..1; the decay of the shares for both kinds.
      restart_below: part of an equal share 1 / K; 0: no code is ever restarted.

    Raises:
      ValueError: an unknown kind.
    """
    if kind not in CODEBOOKS:
        raise ValueError(f"codebook must be one of {', '.join(CODEBOOKS)}; got {kind!r}.")
    settings = _Settings(num_codes, decay, restart_below)
    return _moving(settings) if kind == "ema" else _learned(settings)


def _learned(settings: _Settings) -> Codebook:
    def init(key: Array, vectors: Array) -> tuple[Array, LearnedStats]:
        start = _first_codes(key, vectors, settings.num_codes)
        return start, LearnedStats(_equal_shares(settings), jnp.zeros_like(start))

    def codes(params: Array, stats: LearnedStats) -> Array:
        return params + stats.shifts

    def update(key: Array, params: Array, stats: LearnedStats, vectors: Array, rows: Array):
        shares = _averaged(settings, stats.shares, jnp.mean(rows, axis=0))
        restart = _restart(key, settings, shares, codes(params, stats), vectors, rows)
        shifts = jnp.where(restart.is_unused[:, None], restart.codes - params, stats.shifts)
        return LearnedStats(restart.shares, shifts), jnp.sum(restart.is_unused)

    return Codebook(init, codes, update)


def _moving(settings: _Settings) -> Codebook:
    num_codes = settings.num_codes

    def init(key: Array, vectors: Array) -> tuple[tuple[()], MovingStats]:
        start = _first_codes(key, vectors, num_codes)
        return (), MovingStats(_equal_shares(settings), start / num_codes)

    def codes(params: tuple[()], stats: MovingStats) -> Array:
        # Smoothing leaves the sum of the shares unchanged.
        total, smoothing = jnp.sum(stats.shares), SMOOTHING / num_codes
        smoothed = (stats.shares + smoothing) / (total + SMOOTHING) * total
        return stats.sums / smoothed[:, None]

    def update(key: Array, params: tuple[()], stats: MovingStats, vectors: Array, rows: Array):
        shares = _averaged(settings, stats.shares, jnp.mean(rows, axis=0))
        sums = jnp.matmul(rows.T, vectors, precision=_EXACT) / len(vectors)
        sums = _averaged(settings, stats.sums, sums)
        restart = _restart(key, settings, shares, codes(params, stats), vectors, rows)
        sums = jnp.where(restart.is_unused[:, None], restart.codes / num_codes, sums)
        return MovingStats(restart.shares, sums), jnp.sum(restart.is_unused)

    return Codebook(init, codes, update)


class _Restart(NamedTuple):
    is_unused: Array  # [K], True for the codes that are restarted
    shares: Array  # [K], after the restart
    codes: Array  # [K, E], the vectors that the codes become if they are restarted


def _restart(
    key: Array, settings: _Settings, shares: Array, codes: Array, vectors: Array, rows: Array
) -> _Restart:
    equal = 1 / settings.num_codes
    is_unused = shares < settings.restart_below * equal
    weights = jnp.sum((vectors - chosen(rows, codes)) ** 2, axis=-1)
    drawn = _drawn(key, weights, vectors, settings.num_codes)
    return _Restart(is_unused, jnp.where(is_unused, equal, shares), drawn)


def _first_codes(key: Array, vectors: Array, num_codes: int) -> Array:
    return _drawn(key, jnp.ones(len(vectors)), vectors, num_codes)


def _equal_shares(settings: _Settings) -> Array:
    return jnp.full(settings.num_codes, 1 / settings.num_codes)


def _averaged(settings: _Settings, old: Array, new: Array) -> Array:
    return settings.decay * old + (1 - settings.decay) * new


def _drawn(key: Array, weights: Array, vectors: Array, number: int) -> Array:
    """Vectors [number, E] drawn from [N, E] without replacement; repeated if N < number.

    Each is drawn in turn with probabilities proportional to the weights [N] of those that are left.
    """
    # The largest sums of log-weights and Gumbel noise, in falling order, are such draws.
    scores = jnp.log(weights) + jax.random.gumbel(key, weights.shape)
    _, order = jax.lax.top_k(scores, min(number, len(weights)))
    return vectors[jnp.resize(order, number)]
