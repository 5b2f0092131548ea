"""The accuracy that `elbo_lab.losses` documents, in each floating-point type."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import mpmath
import numpy as np
import pytest

from elbo_lab import losses
from elbo_lab.losses import bounds
from tests.losses import calls, linear_gaussian
from tests.losses.mean_gradients import GivenNoise

pytestmark = pytest.mark.usefixtures("fast_compilation")

# The accuracy that the documentation states, relative to max(1, max |log_w|). In double precision
# XLA's log1p on CPUs has errors of up to 1.4e-14, and it is divided by 1 - alpha = 1/2 below.
DOUBLE, SINGLE = 5e-14, 5e-7
K, TERMS = 8, 5


def log_mean_exp(log_w):
    return np.logaddexp.reduce(log_w, axis=0) - np.log(len(log_w))


def renyi(log_w, alpha):
    return log_mean_exp((1 - alpha) * log_w) / (1 - alpha)


def jackknife(log_w, order):
    total, count = 0, len(log_w)
    for j in range(order + 1):
        subsets = itertools.combinations(range(count), count - j)
        mean = np.mean([log_mean_exp(log_w[list(kept)]) for kept in subsets], axis=0)
        factor = (-1) ** j / (math.factorial(j) * math.factorial(order - j))
        total = total + factor * (count - j) ** order * mean
    return total


def tvo(log_w, steps):
    total = 0
    for s in range(steps):
        weights = np.exp(s / steps * (log_w - np.max(log_w, axis=0)))
        total = total + np.sum(weights * log_w, axis=0) / np.sum(weights, axis=0) / steps
    return total


def sumo(log_w):
    values = [log_mean_exp(log_w[:k]) for k in range(1, len(log_w) + 1)]
    return values[0] + sum(k * (values[k] - values[k - 1]) for k in range(1, TERMS + 1))


# Name: (our bound, NumPy's, factor on the tolerance).
BOUNDS = {
    "elbo": (bounds.elbo, lambda w: np.mean(w, axis=0), 1),
    "iwae": (bounds.iwae, log_mean_exp, 1),
    "miwae": (
        functools.partial(bounds.miwae, num_outer=2),
        lambda w: (log_mean_exp(w[: K // 2]) + log_mean_exp(w[K // 2 :])) / 2,
        1,
    ),
    "ciwae": (
        functools.partial(bounds.ciwae, beta=0.3),
        lambda w: 0.3 * np.mean(w, axis=0) + 0.7 * log_mean_exp(w),
        1,
    ),
    "renyi": (functools.partial(bounds.renyi, alpha=0.5), lambda w: renyi(w, 0.5), 1),
    "renyi below zero": (functools.partial(bounds.renyi, alpha=-1), lambda w: renyi(w, -1), 1),
    "cubo": (bounds.cubo, lambda w: renyi(w, -1), 1),
    "vr_max": (bounds.vr_max, lambda w: np.max(w, axis=0), 1),
    "jackknife": (bounds.jackknife, lambda w: jackknife(w, 1), 1),
    "jackknife of order 2": (
        functools.partial(bounds.jackknife, order=2),
        lambda w: jackknife(w, 2),
        1,
    ),
    "jackknife of order 3": (
        functools.partial(bounds.jackknife, order=3),
        lambda w: jackknife(w, 3),
        K**3 / 6 + (K - 1) ** 3 / 2 + (K - 2) ** 3 / 2 + (K - 3) ** 3 / 6,
    ),
    "tvo": (bounds.tvo, lambda w: tvo(w, 5), 1),
    # The factor is the sum of the coefficients' magnitudes: the term k is divided by 1 / k.
    "sumo": (functools.partial(bounds.sumo, num_terms=TERMS), sumo, TERMS * (TERMS + 1)),
}
NOISE = np.random.default_rng(0).normal(size=(3, K, 64))
# Log-weights of toys, images and large images.
LOG_W = [NOISE[0], -100 + 5 * NOISE[1], -1e4 + 30 * NOISE[2]]


def all_bounds(log_w):
    return {name: [bound(values) for values in log_w] for name, (bound, *_) in BOUNDS.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "result", "tolerance"),
    [
        (np.float64, np.float64, DOUBLE),
        (np.float32, np.float32, SINGLE),
        # Half-precision log-weights are computed in float32.
        (ml_dtypes.bfloat16, np.float32, SINGLE),
    ],
)
def test_bounds_equal_numpy_float64(dtype, result, tolerance):
    inputs = [log_w.astype(dtype) for log_w in LOG_W]
    with jax.enable_x64(dtype == np.float64):
        computed = jax.jit(all_bounds)(inputs)
    for name, (_, reference, factor) in BOUNDS.items():
        for values, log_w in zip(computed[name], np.float64(inputs), strict=True):
            assert values.dtype == result, name
            size = np.maximum(1, np.max(np.abs(log_w), axis=0))
            error = np.max(np.abs(np.float64(values) - reference(log_w)) / size)
            assert error < factor * tolerance, (name, error)


# The jackknife of many draws, whose formula has coefficients of K^2.


def jackknife_2(log_w):
    """Value and gradient [K] of the second order, in O(K^2)."""
    number, w = len(log_w), np.exp(log_w)
    total = np.sum(w)
    without_two = total - w[:, None] - w
    np.fill_diagonal(without_two, np.inf)
    pairs = number * (number - 1)
    means = [
        np.log(total / number),
        np.mean(np.log((total - w) / (number - 1))),
        np.sum(np.log(without_two / (number - 2)), where=np.isfinite(without_two)) / pairs,
    ]
    # w_j times the mean, over the sets that contain j, of 1 / their sum of weights.
    inverse_1, inverse_2 = 1 / (total - w), 1 / without_two
    slopes = [
        w / total,
        w * (np.sum(inverse_1) - inverse_1) / number,
        w * (np.sum(inverse_2) - 2 * np.sum(inverse_2, axis=1)) / pairs,
    ]
    factors = [number**2 / 2, -((number - 1) ** 2), (number - 2) ** 2 / 2]
    return np.dot(factors, means), np.dot(factors, slopes)


@pytest.mark.parametrize(
    "number",
    [pytest.param(50, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.slow), 1000],
)
def test_the_jackknife_of_many_draws(number):
    log_w = np.random.default_rng(0).normal(size=number)
    exact, exact_v = jackknife_2(np.float64(np.float32(log_w)))
    function = jax.jit(jax.value_and_grad(functools.partial(bounds.jackknife, order=2)))
    program = function.lower(jnp.float32(log_w)).compile()
    value, v = program(jnp.float32(log_w))
    np.testing.assert_allclose(value, exact, rtol=0, atol=2e-6)
    np.testing.assert_allclose(v, exact_v, rtol=1e-5)
    np.testing.assert_allclose(np.sum(v), 1, rtol=0, atol=2e-6)
    # Memory for at most 1,000 numbers for each draw.
    assert program.memory_analysis().temp_size_in_bytes < 1000 * number * 4


# Derivatives by a bound's parameter, up to the greatest log-weights.

SPREADS = np.float32(
    [
        [-100, -90, -95, -101],
        [1e6, -1e6, 0, 999_999],
        [-1e6, 5, 0.25, -3],
        [1e4, 10_001, 9_999.5, 1e4],
        [-90, -90.0078125, -89.9921875, -90],
        [7, 7, 7, 7],
    ]
).T
ORDERS = [-3, 0, 0.5, 1 - 2**-8, 1 - 2**-23, 1, 1 + 2**-20, 2, 4]
SHARES = [0, 0.25, 1]


def exact_slope(log_w, alpha):
    """d renyi / d alpha = -KL(p || uniform) / s^2, s = 1 - alpha, p of the weights exp(s log_w)."""
    log_w, s = [mpmath.mpf(float(x)) for x in log_w], 1 - mpmath.mpf(alpha)
    if s == 0:
        mean = mpmath.fsum(log_w) / len(log_w)
        return -mpmath.fsum((x - mean) ** 2 for x in log_w) / len(log_w) / 2
    top = max(s * x for x in log_w)
    weights = [mpmath.exp(s * x - top) for x in log_w]
    p = [w / mpmath.fsum(weights) for w in weights]
    return -mpmath.fsum(p_k * mpmath.log(len(p) * p_k) for p_k in p if p_k) / s**2


def test_derivatives_by_parameters():
    @jax.jit
    def slopes(log_w, orders, shares):
        def by_parameter(bound):
            slope = jax.grad(lambda parameter, log_w: bound(log_w, parameter))
            return jax.vmap(jax.vmap(slope, (None, 1)), (0, None))

        by_power = by_parameter(bounds.cubo)(1 - orders, log_w)
        by_alpha = by_parameter(bounds.renyi)(orders, log_w)
        return by_alpha, by_power, by_parameter(bounds.ciwae)(shares, log_w)

    by_alpha, by_power, by_beta = slopes(SPREADS, np.float32(ORDERS), np.float32(SHARES))
    with mpmath.workdps(40):
        exact = [[float(exact_slope(log_w, alpha)) for log_w in SPREADS.T] for alpha in ORDERS]
    np.testing.assert_allclose(by_alpha, exact, rtol=5e-6, atol=1e-30)
    np.testing.assert_allclose(by_power, np.negative(exact), rtol=5e-6, atol=1e-30)
    log_w = np.float64(SPREADS)
    difference = np.mean(log_w, axis=0) - log_mean_exp(log_w)
    size = np.max(np.abs(log_w), axis=0)
    assert np.all(np.abs(np.asarray(by_beta) - difference) <= SINGLE * size)


# Whole objectives.

D, L, B = 3, 2, 4
EXACT = linear_gaussian.make_params(D, L)
X = np.random.default_rng(7).normal(size=(B, D))


@pytest.mark.parametrize("name", losses.OBJECTIVES)
def test_objectives_stay_in_float64(name):
    """No term of the losses or their gradients is rounded to float32, as the trace shows."""

    def loss(params):
        values, aux = calls.call(name, jax.random.key(0), params, X)
        return jnp.sum(values), (values, aux)

    with jax.enable_x64(True):
        jaxpr, shapes = jax.make_jaxpr(jax.grad(loss, has_aux=True), return_shape=True)(EXACT)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(shapes))
    assert "f32[" not in str(jaxpr)


def test_gradients_in_float64_and_float32():
    """IWAE's gradients for fixed noise, against central differences of NumPy's value."""
    noise, x = np.random.default_rng(3).normal(size=(K, L)), X[0]

    def value(params):
        z = params.a @ x + params.c + np.exp(params.log_scale) * noise
        return log_mean_exp(linear_gaussian.log_weight(params, x, z))

    exact = linear_gaussian.finite_difference(value, EXACT)

    def loss(params, x, noise):
        _, prior, log_likelihood = linear_gaussian.distributions(params, x)
        posterior = GivenNoise(x @ params.a.T + params.c, jnp.exp(params.log_scale), noise)
        arguments = posterior, prior, log_likelihood
        return losses.iwae(jax.random.key(0), *arguments, num_samples=K)[0]

    for dtype, digits in ((np.float64, 1e-12), (np.float32, 2e-6)):
        inputs = linear_gaussian.cast(EXACT, dtype), x.astype(dtype), noise.astype(dtype)
        with jax.enable_x64(dtype == np.float64):
            bound, slopes = jax.jit(jax.value_and_grad(loss))(*inputs)
        np.testing.assert_allclose(bound, -value(EXACT), rtol=digits)
        # Central differences of step 1e-5 have errors of about 1e-9.
        for slope, expected in zip(slopes, exact, strict=True):
            assert slope.dtype == dtype
            np.testing.assert_allclose(slope, -expected, rtol=0, atol=1e-8 + 10 * digits)


def test_half_precision_densities_are_added_in_float32():
    """Densities of hundreds of nats, where bfloat16 numbers are two nats apart."""
    parts = (-543.0, -131.0, -140.5)  # log p(x|z), log p(z), log q(z|x)
    log_px_z, log_pz, log_qz_x = (np.asarray(part, ml_dtypes.bfloat16) for part in parts)

    class Constant:
        def __init__(self, value):
            self.value = value

        def sample(self, key, sample_shape=()):
            return jnp.zeros((*sample_shape, 1), jnp.bfloat16)

        def log_prob(self, z):
            return self.value + 0 * z[..., 0]

    exact = np.float64(log_px_z) + np.float64(log_pz) - np.float64(log_qz_x)
    densities = log_qz_x, log_pz, log_px_z
    posterior, prior, likelihood = (Constant(jnp.asarray(value)) for value in densities)
    arguments = posterior, prior, likelihood.log_prob
    for objective in (losses.elbo, losses.iwae):
        loss, aux = objective(jax.random.key(0), *arguments, num_samples=3)
        assert loss.dtype == aux.log_w.dtype == np.float32
        np.testing.assert_allclose(loss, -exact, rtol=SINGLE)
