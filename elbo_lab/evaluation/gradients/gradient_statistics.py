"""Statistics of gradient estimates: signal-to-noise ratios, variance, and a test for bias.

The gradient of the mean loss of fixed examples is drawn with fresh keys, again and again, inside
one compiled program, at fixed parameters. What leaves the program are moments, so that memory does
not grow with the number of gradients: by Welford's updates in float32 over a chunk, and merged over
chunks in float64 (Chan et al. 1983).

The test for bias. The means of an estimator and of an *oracle* (many draws of another estimator,
known to be unbiased) are compared along a few fixed directions in the space of a group's P
parameters, by Hotelling's two-sample T^2: one p-value for the group, however large P is. Directions
that depend on draws depend on others than those that are compared. They are

  - the oracle's mean gradient;
  - for each estimator, the difference that a pilot run found, each coordinate over its variance
    (where a bias is, this direction shows it best);
  - the mean of the parameters, and five random signs, for what the pilot missed.
"""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import special

LossFn = Callable[[Array, Any, Array], Array]  # (key, params, x [B, D]) -> loss [B]
Groups = Callable[[Any], dict[str, Any]]  # gradient -> subtrees by the name of their group

# Gradients of one compiled call: float32 sums of so few keep their digits.
CHUNK = 200
RANDOM_DIRECTIONS = 5
SIGNAL = 0  # the direction of the oracle's mean gradient
# The test's power at the bias that is called its resolution.
POWER = 0.9


class Moments(NamedTuple):
    """Moments of the gradients of one group of P parameters; squares are sums of products of
    deviations from the mean.
    """

    count: Any  # [], gradients
    gradient: Any  # [P], the mean
    gradient_squares: Any  # [P]
    along: Any  # [J], the mean along each direction
    along_squares: Any  # [J, J]
    ratio: Any  # [], the mean of |part along SIGNAL| / |part across it|
    ratio_squares: Any  # []


class Statistics(NamedTuple):
    """Quality of one estimator's gradient, for one group of parameters."""

    num_parameters: int  # those whose gradient is not always zero; all below is of them
    snr: float  # the mean over parameters of |mean| / standard deviation
    snr_floor: float  # what that would be, with this many gradients, if all true means were zero
    dsnr: float  # directional, E[|g along SIGNAL| / |g across it|]; NaN for one parameter
    dsnr_error: float  # its standard error
    variance: float  # summed over parameters, nats^2
    norm: float  # of the mean gradient, nats


class Bias(NamedTuple):
    """An estimator's mean gradient against the oracle's."""

    along: float  # the difference along the oracle's gradient, over that gradient's length
    along_error: float  # its standard error
    norm: float  # the difference's length over the gradient's, noise's expected part taken off
    p_value: float  # of Hotelling's T^2 over all directions
    resolution: float  # a bias along the gradient of this size is found with probability POWER


Sampler = Callable[..., dict[str, Moments]]


def make_sampler(loss_fn: LossFn, groups: Groups) -> Sampler:
    """The compiled program of one estimator at one K.

    Args:
      loss_fn: whose mean over the examples is differentiated.
      groups: names the parts of the gradient; parts without parameters are left out.

    Returns:
      (key, params, x [B, D], directions {group: [J, P]}, start, number, timed) -> {group: Moments}
      of the gradients of keys fold_in(key, start), ..., fold_in(key, start + number - 1). `timed`
      leaves out all statistics but the mean, so that little beside the gradients takes time.
    """

    def gradient(key: Array, params: Any, x: Array) -> dict[str, Array]:
        def mean_loss(params: Any) -> Array:
            loss = loss_fn(key, params, x)
            chex.assert_shape(loss, x.shape[:1])
            return jnp.mean(loss)

        grads = jax.grad(mean_loss)(params)
        return flat(groups(grads))

    @jax.jit
    def run(key, params, x, directions, start, number, timed) -> dict[str, Moments]:
        def body(i: Array, moments: dict[str, Moments]) -> dict[str, Moments]:
            grads = gradient(jax.random.fold_in(key, start + i), params, x)
            # One program serves both purposes: what is timed is what was measured.
            return jax.lax.cond(
                timed,
                lambda: {n: m._replace(gradient=m.gradient + grads[n]) for n, m in moments.items()},
                lambda: {n: _add(m, grads[n], directions[n]) for n, m in moments.items()},
            )

        zeros = {name: _zero(*rows.shape) for name, rows in directions.items()}
        return jax.lax.fori_loop(0, number, body, zeros)

    return run


def flat(groups: dict[str, Any]) -> dict[str, Array]:
    """Each group's leaves as one vector [P], without groups of no parameters."""
    vectors = {
        name: [leaf.ravel() for leaf in jax.tree.leaves(tree)] for name, tree in groups.items()
    }
    return {name: jnp.concatenate(leaves) for name, leaves in vectors.items() if leaves}


def sample(
    sampler: Sampler,
    key: Array,
    params: Any,
    x: Array,
    directions: dict[str, np.ndarray],
    number: int,
    on_chunk: Callable[[int], None] = lambda done: None,
) -> dict[str, Moments]:
    """Moments of `number` gradients, in NumPy float64.

    Args:
      sampler: from `make_sampler`.
      key: one typed PRNG key; gradient i is that of fold_in(key, i).
      params, x: the point and the examples.
      directions: [J, P] for each group.
      number: of gradients.
      on_chunk: called with the number of gradients done.

    Raises:
      ArithmeticError: a gradient is not finite.
    """
    rows = {name: jnp.asarray(value, jnp.float32) for name, value in directions.items()}
    total: dict[str, Moments] = {}
    for start in range(0, number, CHUNK):
        size = min(CHUNK, number - start)
        part = jax.device_get(sampler(key, params, x, rows, start, size, False))
        for name, found in part.items():
            found = Moments(*(np.asarray(field, np.float64) for field in found))
            if not np.all(np.isfinite(found.gradient_squares)):
                raise ArithmeticError(f"A gradient of {name} is not finite.")
            total[name] = merged(total[name], found) if name in total else found
        on_chunk(start + size)
    return total


def merged(one: Moments, other: Moments) -> Moments:
    """The moments of both samples together."""
    count = one.count + other.count
    share, weight = other.count / count, one.count * other.count / count

    def mean_and_squares(name: str, product: Callable) -> dict[str, Any]:
        mean, squares = getattr(one, name), f"{name}_squares"
        chex.assert_equal_shape([mean, getattr(other, name)])
        apart = getattr(other, name) - mean
        together = getattr(one, squares) + getattr(other, squares)
        return {name: mean + share * apart, squares: together + weight * product(apart, apart)}

    return Moments(
        count,
        **mean_and_squares("gradient", np.multiply),
        **mean_and_squares("along", np.outer),
        **mean_and_squares("ratio", np.multiply),
    )


def signal_direction(moments: Moments) -> np.ndarray:
    """[1, P], the mean gradient's direction."""
    return _unit(moments.gradient[None])


def bias_directions(
    oracle: Moments, pilots: Sequence[tuple[Moments, Moments]], rng: np.random.Generator
) -> np.ndarray:
    """The directions [J, P], of length one (zero where there is none); see the module's docstring.

    Args:
      oracle: whose mean is the signal.
      pilots: for each estimator its pilot run, and that of the oracle that it is compared with.
      rng: for the random signs.
    """
    size = len(oracle.gradient)
    found = []
    for pilot, other in pilots:
        variance = _variance(pilot) / pilot.count + _variance(other) / other.count
        apart = pilot.gradient - other.gradient
        found.append(np.divide(apart, variance, out=np.zeros(size), where=variance > 0))
    signs = rng.choice([-1.0, 1.0], (RANDOM_DIRECTIONS, size))
    return _unit(np.stack([oracle.gradient, *found, np.ones(size), *signs]))


def rows_of(estimator: int, num_estimators: int) -> list[int]:
    """Which of `bias_directions` are for an estimator, given its place among the pilots."""
    shared = range(1 + num_estimators, 2 + num_estimators + RANDOM_DIRECTIONS)
    return [SIGNAL, 1 + estimator, *shared]


def describe(moments: Moments) -> Statistics:
    """Signal-to-noise ratios (Rainforth et al. 2018, eq. 5 and section 4.3) and variance.

    `dsnr` is towards the SIGNAL of the directions that the moments were taken along.
    """
    variance = _variance(moments)
    moving = (variance > 0) | (moments.gradient != 0)
    mean, variance = moments.gradient[moving], variance[moving]
    with np.errstate(divide="ignore"):
        ratios = np.abs(mean) / np.sqrt(variance)
    several = len(mean) > 1
    return Statistics(
        len(mean),
        snr=float(np.mean(ratios)) if len(mean) else math.nan,
        snr_floor=math.sqrt(2 / (math.pi * moments.count)),
        dsnr=float(moments.ratio) if several else math.nan,
        dsnr_error=_mean_error(moments.ratio_squares, moments.count) if several else math.nan,
        variance=float(np.sum(variance)),
        norm=float(np.linalg.norm(mean)),
    )


def bias_test(moments: Moments, oracle: Moments, rows: list[int], level: float) -> Bias:
    """Whether two mean gradients differ, by Hotelling's T^2 along the given directions.

    For counts in the hundreds and more; its degrees of freedom are those of the smaller sample,
    which is on the safe side whatever the two covariances.

    Args:
      moments, oracle: of independent gradients, along the same directions.
      rows: the directions of this test.
      level: probability of finding a bias where there is none, for the resolution.
    """
    apart = (moments.along - oracle.along)[rows]
    at = np.ix_(rows, rows)
    covariance = sum(m.along_squares[at] / ((m.count - 1) * m.count) for m in (moments, oracle))
    errors = np.sqrt(np.diag(covariance))
    moving = errors > 0
    correlation = covariance[np.ix_(moving, moving)] / np.outer(errors[moving], errors[moving])
    values, vectors = np.linalg.eigh(correlation)
    kept = values > 1e-5  # Directions of a group of few parameters depend on each other.
    scores = (vectors.T @ (apart[moving] / errors[moving]))[kept] / np.sqrt(values[kept])
    rank, freedom = int(np.sum(kept)), min(moments.count, oracle.count) - 1
    length = float(np.linalg.norm(oracle.gradient))
    squares = np.sum((moments.gradient - oracle.gradient) ** 2)
    noise = sum(np.sum(_variance(m)) / m.count for m in (moments, oracle))
    threshold = special.chdtri(rank, level) if rank else math.inf
    return Bias(
        along=_over(apart[0], length),
        along_error=_over(errors[0], length),
        norm=_over(math.sqrt(max(0.0, squares - noise)), length),
        p_value=_hotelling(float(np.sum(scores**2)), rank, freedom),
        resolution=_over(
            math.sqrt(special.chndtrinc(threshold, rank, 1 - POWER)) * errors[0], length
        )
        if rank
        else math.inf,
    )


def seconds_each(
    calls: dict[str, Callable[[int], Any]], numbers: dict[str, int], repeats: int
) -> dict[str, float]:
    """Seconds per gradient: the median over `repeats` rounds, in each of which every estimator
    computes its `numbers` gradients in turn, so that a slower minute is everybody's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call(numbers[name]))
            seconds[name].append((time.perf_counter() - start) / numbers[name])
    return {name: statistics.median(values) for name, values in seconds.items()}


def slope(xs: Iterable[float], ys: Iterable[float]) -> float:
    """Slope of the least-squares line through (log x, log y); NaN for fewer than two points."""
    x, y = np.log(np.asarray([*xs], float)), np.log(np.asarray([*ys], float))
    if len(x) < 2:
        return math.nan
    x = x - np.mean(x)
    return float(x @ y / (x @ x))


def _zero(directions: int, parameters: int) -> Moments:
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    of_p, of_j = zeros(parameters), zeros(directions)
    return Moments(zeros(()), of_p, of_p, of_j, jnp.outer(of_j, of_j), zeros(()), zeros(()))


def _add(moments: Moments, gradient: Array, directions: Array) -> Moments:
    """Welford's update by one gradient [P]."""
    count = moments.count + 1
    along = directions @ gradient  # [J]
    part = along[SIGNAL] * directions[SIGNAL]
    ratio = jnp.linalg.norm(part) / jnp.linalg.norm(gradient - part)

    def update(mean: Array, squares: Array, value: Array, product=jnp.multiply):
        apart = value - mean
        mean = mean + apart / count
        return mean, squares + product(apart, value - mean)

    return Moments(
        count,
        *update(moments.gradient, moments.gradient_squares, gradient),
        *update(moments.along, moments.along_squares, along, jnp.outer),
        *update(moments.ratio, moments.ratio_squares, ratio),
    )


def _variance(moments: Moments) -> np.ndarray:
    return moments.gradient_squares / (moments.count - 1)


def _mean_error(squares: float, count: float) -> float:
    return math.sqrt(squares / (count - 1) / count)


def _hotelling(statistic: float, rank: int, freedom: float) -> float:
    """P(T^2 >= statistic) where there is no bias; T^2 (n - J + 1) / (n J) is F(J, n - J + 1)."""
    if rank == 0 or freedom < rank:
        return 1.0
    last = freedom - rank + 1
    return float(special.fdtrc(rank, last, statistic * last / (freedom * rank)))


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _over(value: float, length: float) -> float:
    return float(value / length) if length > 0 else math.nan
