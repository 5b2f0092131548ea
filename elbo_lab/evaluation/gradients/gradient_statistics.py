"""Statistics of gradient estimates: signal-to-noise ratios, variance, and a test for bias.

One compiled program draws the gradient of the mean loss of fixed examples again and again, with
fresh keys, at fixed parameters. It returns moments, so that memory does not grow with the number of
gradients. They are Welford's updates in float32 over a chunk of gradients; chunks are merged in
float64 (Chan et al. 1983).

The test for bias compares the mean of an estimator with that of an *oracle*, many draws of another
estimator that is known to be unbiased. It compares them along a few fixed directions in the space
of a group's P parameters by Hotelling's two-sample T^2, which gives one p-value for the group,
however large P is. Directions that depend on draws use draws that the test does not. They are

  - the oracle's mean gradient;
  - for each estimator, its pilot run minus the oracle, each coordinate divided by its variance plus
    a floor: the most sensitive direction if that is the bias;
  - the mean of the parameters, and five vectors of random signs, for biases that the pilot missed.
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

# Gradients in one compiled call; few enough for float32 sums to be accurate.
CHUNK = 200
RANDOM_DIRECTIONS = 5
SIGNAL = 0  # the place of the oracle's mean gradient among the directions
VARIANCE_FLOOR = 1e-3  # a share of the mean variance
POWER = 0.9  # of the test at the bias that is called its resolution


class Moments(NamedTuple):
    """Moments of the gradients of one group of P parameters, along J directions.

    "Squares" are sums over gradients of products of deviations from the mean.
    """

    count: Any  # [], number of gradients
    gradient: Any  # [P], the mean
    gradient_squares: Any  # [P]
    along: Any  # [J], the mean component along each direction
    along_squares: Any  # [J, J]
    ratio: Any  # [], the mean of |part along SIGNAL| / |part across it|
    ratio_squares: Any  # []


class Statistics(NamedTuple):
    """Quality of one estimator's gradient, for one group of parameters."""

    num_parameters: int  # those whose gradient is not always zero; all fields are over these
    snr: float  # signal-to-noise ratio, the mean over parameters of |mean| / standard deviation
    snr_floor: float  # expected `snr` of this number of gradients if all true means were zero
    dsnr: float  # directional SNR, E[|g along SIGNAL| / |g across it|]; NaN for one parameter
    dsnr_error: float  # standard error of `dsnr`
    variance: float  # summed over parameters, nats^2
    norm: float  # of the mean gradient, nats


class Bias(NamedTuple):
    """An estimator's mean gradient minus the oracle's, in lengths of the oracle's."""

    along: float  # component of the difference along the oracle's gradient
    along_error: float  # standard error of `along`
    norm: float  # length of the difference, corrected for the noise's expected contribution
    p_value: float  # of Hotelling's T^2 over all directions
    resolution: float  # a bias of this size along the gradient is found with probability POWER


Sampler = Callable[..., dict[str, Moments]]


def make_sampler(loss_fn: LossFn, groups: Groups) -> Sampler:
    """Returns the compiled program that draws gradients of one estimator at one K.

    Args:
      loss_fn: the loss; its mean over the examples is differentiated.
      groups: splits a gradient into named groups; groups without parameters are left out.

    Returns:
      (key, params, x [B, D], directions {group: [J, P]}, start, number, timed) -> {group: Moments}
      of the gradients with keys fold_in(key, start), ..., fold_in(key, start + number - 1). If
      `timed`, only gradients are summed, so that little besides computing them takes time.
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

            def only_sum() -> dict[str, Moments]:
                return {
                    name: group._replace(gradient=group.gradient + grads[name])
                    for name, group in moments.items()
                }

            def all_moments() -> dict[str, Moments]:
                return {
                    name: _add(group, grads[name], directions[name])
                    for name, group in moments.items()
                }

            # A branch of one program, so that the timed gradients are the measured ones' code.
            return jax.lax.cond(timed, only_sum, all_moments)

        zeros = {name: _zero(*rows.shape) for name, rows in directions.items()}
        return jax.lax.fori_loop(0, number, body, zeros)

    return run


def flat(groups: dict[str, Any]) -> dict[str, Array]:
    """Each group's leaves as one vector [P]; groups without parameters are left out."""
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
    """Draws `number` gradients and returns their moments, in NumPy float64.

    Args:
      sampler: from `make_sampler`.
      key: one typed PRNG key; gradient i uses fold_in(key, i).
      params: the point at which gradients are taken.
      x: [B, D], the examples.
      directions: group -> [J, P].
      number: number of gradients.
      on_chunk: called after each chunk with the number of gradients done.

    Raises:
      ArithmeticError: a gradient is not finite.
    """
    rows = {name: jnp.asarray(value, jnp.float32) for name, value in directions.items()}
    total: dict[str, Moments] = {}
    for start in range(0, number, CHUNK):
        size = min(CHUNK, number - start)
        part = jax.device_get(sampler(key, params, x, rows, start, size, False))
        for name, chunk in part.items():
            chunk = Moments(*(np.asarray(field, np.float64) for field in chunk))
            if not np.all(np.isfinite(chunk.gradient_squares)):
                raise ArithmeticError(f"A gradient of {name} is not finite.")
            total[name] = merged(total[name], chunk) if name in total else chunk
        on_chunk(start + size)
    return total


def merged(a: Moments, b: Moments) -> Moments:
    """The moments of two samples together."""
    count = a.count + b.count

    def merge(mean_a, squares_a, mean_b, squares_b, product=np.multiply):
        chex.assert_equal_shape([mean_a, mean_b])
        difference = mean_b - mean_a
        mean = mean_a + b.count / count * difference
        between = a.count * b.count / count * product(difference, difference)
        return mean, squares_a + squares_b + between

    gradient, gradient_squares = merge(
        a.gradient, a.gradient_squares, b.gradient, b.gradient_squares
    )
    along, along_squares = merge(a.along, a.along_squares, b.along, b.along_squares, np.outer)
    ratio, ratio_squares = merge(a.ratio, a.ratio_squares, b.ratio, b.ratio_squares)
    return Moments(count, gradient, gradient_squares, along, along_squares, ratio, ratio_squares)


def num_directions(num_estimators: int) -> int:
    """J of `bias_directions`."""
    return 2 + num_estimators + RANDOM_DIRECTIONS


def bias_directions(
    oracle: Moments, pilots: Sequence[tuple[Moments, Moments]], rng: np.random.Generator
) -> np.ndarray:
    """The directions of the test for bias; see the module's docstring.

    Args:
      oracle: its mean gradient is the SIGNAL.
      pilots: for each estimator its pilot run, and a run of the oracle that it is compared with.
      rng: draws the random signs.

    Returns:
      [J, P], rows of length one, or zero if the vector is zero: SIGNAL, one row for each estimator,
      and the rows that all estimators share.
    """
    size = len(oracle.gradient)
    differences = []
    for pilot, pilot_oracle in pilots:
        variance = _variance_of_mean(pilot) + _variance_of_mean(pilot_oracle)
        difference = pilot.gradient - pilot_oracle.gradient
        # The floor bounds the weight of coordinates whose noise is of events too rare for a pilot.
        variance = variance + VARIANCE_FLOOR * np.mean(variance)
        differences.append(np.divide(difference, variance, out=np.zeros(size), where=variance > 0))
    signs = rng.choice([-1.0, 1.0], (RANDOM_DIRECTIONS, size))
    return _unit(np.stack([oracle.gradient, *differences, np.ones(size), *signs]))


def rows_of(estimator: int, num_estimators: int) -> list[int]:
    """The rows of `bias_directions` for one estimator, given its place among the pilots."""
    shared = range(1 + num_estimators, num_directions(num_estimators))
    return [SIGNAL, 1 + estimator, *shared]


def describe(moments: Moments) -> Statistics:
    """Signal-to-noise ratios (Rainforth et al. 2018, eq. 5 and section 4.3) and variance.

    The directional SNR uses the SIGNAL among the directions of the moments.
    """
    variance = _variance(moments)
    is_nonzero = (variance > 0) | (moments.gradient != 0)
    mean, variance = moments.gradient[is_nonzero], variance[is_nonzero]
    with np.errstate(divide="ignore"):
        ratios = np.abs(mean) / np.sqrt(variance)
    dsnr, dsnr_error = math.nan, math.nan
    if len(mean) > 1:
        dsnr = float(moments.ratio)
        dsnr_error = math.sqrt(moments.ratio_squares / (moments.count - 1) / moments.count)
    return Statistics(
        len(mean),
        snr=float(np.mean(ratios)) if len(mean) else math.nan,
        snr_floor=math.sqrt(2 / (math.pi * moments.count)),
        dsnr=dsnr,
        dsnr_error=dsnr_error,
        variance=float(np.sum(variance)),
        norm=float(np.linalg.norm(mean)),
    )


def bias_test(moments: Moments, oracle: Moments, rows: list[int], level: float) -> Bias:
    """Tests by Hotelling's T^2, along some directions, if two mean gradients differ.

    For counts of some hundreds or more. The degrees of freedom are those of the smaller sample,
    which is conservative whatever the two covariances are.

    Args:
      moments: the estimator's.
      oracle: of independent gradients, along the same directions.
      rows: the directions of this test, SIGNAL first.
      level: probability of finding a bias where there is none, for the resolution.
    """
    difference = (moments.along - oracle.along)[rows]
    at = np.ix_(rows, rows)
    covariance = sum(m.along_squares[at] / ((m.count - 1) * m.count) for m in (moments, oracle))
    statistic, rank = _t_squared(difference, covariance)
    signal_error = math.sqrt(covariance[0, 0])
    length = float(np.linalg.norm(oracle.gradient))
    squares = np.sum((moments.gradient - oracle.gradient) ** 2)
    noise = np.sum(_variance_of_mean(moments)) + np.sum(_variance_of_mean(oracle))
    resolution = math.inf
    if rank:
        threshold = special.chdtri(rank, level)
        # T^2 is noncentral chi-squared in large samples; the root is the bias in standard errors.
        noncentrality = special.chndtrinc(threshold, rank, 1 - POWER)
        resolution = _over(math.sqrt(noncentrality) * signal_error, length)
    return Bias(
        along=_over(difference[0], length),
        along_error=_over(signal_error, length),
        norm=_over(math.sqrt(max(0.0, squares - noise)), length),
        p_value=_hotelling(statistic, rank, min(moments.count, oracle.count) - 1),
        resolution=resolution,
    )


def seconds_each(
    calls: dict[str, Callable[[int], Any]], numbers: dict[str, int], repeats: int
) -> dict[str, float]:
    """Seconds per gradient of each estimator, the median over rounds.

    In each round every estimator runs once, so that drift affects all estimators equally.

    Args:
      calls: estimator -> function that computes a number of gradients.
      numbers: estimator -> gradients in one round.
      repeats: rounds.
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
    log_x, log_y = np.log(np.asarray([*xs], float)), np.log(np.asarray([*ys], float))
    if len(log_x) < 2:
        return math.nan
    centred = log_x - np.mean(log_x)
    return float(centred @ log_y / (centred @ centred))


def _zero(num_rows: int, num_parameters: int) -> Moments:
    """Moments of no gradients, for J directions and P parameters."""
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    return Moments(
        count=zeros(()),
        gradient=zeros(num_parameters),
        gradient_squares=zeros(num_parameters),
        along=zeros(num_rows),
        along_squares=zeros((num_rows, num_rows)),
        ratio=zeros(()),
        ratio_squares=zeros(()),
    )


def _add(moments: Moments, gradient: Array, directions: Array) -> Moments:
    """Welford's update by one gradient [P]."""
    count = moments.count + 1
    components = directions @ gradient  # [J]
    signal_part = components[SIGNAL] * directions[SIGNAL]
    length_ratio = jnp.linalg.norm(signal_part) / jnp.linalg.norm(gradient - signal_part)

    def update(old_mean: Array, squares: Array, value: Array, product=jnp.multiply):
        deviation = value - old_mean
        mean = old_mean + deviation / count
        return mean, squares + product(deviation, value - mean)

    mean, squares = update(moments.gradient, moments.gradient_squares, gradient)
    along, along_squares = update(moments.along, moments.along_squares, components, jnp.outer)
    ratio, ratio_squares = update(moments.ratio, moments.ratio_squares, length_ratio)
    return Moments(count, mean, squares, along, along_squares, ratio, ratio_squares)


def _variance(moments: Moments) -> np.ndarray:
    """[P], of one gradient."""
    return moments.gradient_squares / (moments.count - 1)


def _variance_of_mean(moments: Moments) -> np.ndarray:
    """[P], of the mean gradient."""
    return _variance(moments) / moments.count


def _t_squared(difference: np.ndarray, covariance: np.ndarray) -> tuple[float, int]:
    """T^2 = d' C^+ d of a difference d [J] with covariance C [J, J], and the rank of C.

    Directions without noise are left out. C is singular if a group has few parameters, since its
    directions then depend on each other.
    """
    errors = np.sqrt(np.diag(covariance))
    noisy = errors > 0
    correlation = covariance[np.ix_(noisy, noisy)] / np.outer(errors[noisy], errors[noisy])
    values, vectors = np.linalg.eigh(correlation)
    kept = values > 1e-5
    scores = (vectors.T @ (difference[noisy] / errors[noisy]))[kept] / np.sqrt(values[kept])
    return float(np.sum(scores**2)), int(np.sum(kept))


def _hotelling(statistic: float, rank: int, freedom: float) -> float:
    """P(T^2 >= statistic) without a bias, for J = rank and n = freedom.

    T^2 (n - J + 1) / (n J) is F(J, n - J + 1) distributed.
    """
    if rank == 0 or freedom < rank:
        return 1.0
    denominator_freedom = freedom - rank + 1
    f_value = statistic * denominator_freedom / (freedom * rank)
    return float(special.fdtrc(rank, denominator_freedom, f_value))


def _unit(rows: np.ndarray) -> np.ndarray:
    """The rows scaled to length one; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _over(value: float, length: float) -> float:
    """value / length; NaN if the length is zero."""
    return float(value / length) if length > 0 else math.nan
