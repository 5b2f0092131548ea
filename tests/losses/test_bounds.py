"""Bounds under transformations, in half precision and at limits; expectations against log p(x)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import logsumexp

from elbo_lab import losses
from elbo_lab.losses import bounds, estimators, roulette
from tests.losses import linear_gaussian, numpy_bounds
from tests.losses.every_bound import (
    BOUNDS,
    DISTINCT,
    PARTITION,
    VALUES,
    K,
    close,
    random_log_w,
    value_and_weights,
)

pytestmark = pytest.mark.usefixtures("fast_compilation")

EPS = float(np.finfo(np.float32).eps)
MIWAE = jax.jit(bounds.miwae, static_argnames="num_outer")


def slow_unless_short(name):
    """A test parameter, slow where a bound has many operations, each compiled on its own."""
    short = name in ("elbo", "iwae", "ciwae", "vr_max")
    return name if short else pytest.param(name, marks=pytest.mark.slow)


def float32(values) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


# Transformations.


@pytest.mark.parametrize("name", DISTINCT)
def test_transformations_change_nothing(name):
    """No batch, two batch dimensions, a batch by vmap; forward mode."""
    bound, log_w = BOUNDS[name], random_log_w(shape=(K, 4))

    def value_twice(log_w):
        value = bound(log_w)
        return value, value

    @jax.jit
    def transformed(log_w):
        v, single = jax.jacfwd(value_twice, has_aux=True)(log_w[:, 0])
        return single, v, bound(log_w.reshape(K, 2, 2)), jax.vmap(bound, in_axes=1)(log_w)

    exact = VALUES[name](log_w)
    single, v, folded, mapped = transformed(float32(log_w))
    close(single, exact[0])
    close(folded, exact.reshape(2, 2))
    close(mapped, exact)
    exact_v = numpy_bounds.gradient(VALUES[name], log_w[:, 0])
    np.testing.assert_allclose(v, exact_v, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", [slow_unless_short(name) for name in DISTINCT])
def test_without_jit(name):
    log_w = random_log_w(shape=(K, 4))
    close(BOUNDS[name](float32(log_w)), VALUES[name](log_w))


def test_bfloat16_is_not_promoted_and_shard_map_checks_pass():
    """Values, first and second derivatives are traced, which is when JAX makes both checks."""

    def all_derivatives(log_w, parameter):
        results = []
        for name, bound in BOUNDS.items():
            v = functools.partial(estimators.derivative, bound)
            results += [bound(log_w), v(log_w)]
            if name != "vr_max":
                results.append(jax.jvp(v, (log_w,), (log_w,))[1])
        for bound in (bounds.renyi, bounds.cubo, bounds.ciwae):
            value = functools.partial(bound, log_w)
            results += jax.jvp(value, (parameter,), (jnp.ones_like(parameter),))
        results.append(bounds.sumo(log_w, parameter))
        return jax.lax.psum([jnp.sum(result) for result in results], "data")

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    specs = {"in_specs": (spec(None, "data"), spec("data")), "out_specs": spec()}
    sharded = jax.shard_map(all_derivatives, mesh=mesh, check_vma=True, **specs)
    jax.eval_shape(sharded, jnp.zeros((K, 2), jnp.bfloat16), jnp.ones(2))


# Precisions.


@pytest.mark.parametrize(
    "name, dtype", [(name, jnp.bfloat16) for name in DISTINCT] + [("iwae", jnp.float16)]
)
def test_half_precision_accumulates_in_float32(name, dtype):
    log_w = jnp.asarray(random_log_w(shape=(K, 5)), dtype)
    value = jax.jit(BOUNDS[name])(log_w)
    assert value.dtype == jnp.float32
    # Sums of the rounded inputs are exact. Near 90, half precision itself has steps of 0.06 nats
    # (float16) and 0.5 nats (bfloat16).
    close(value, VALUES[name](np.asarray(log_w, np.float64)))
    gradient = jax.eval_shape(functools.partial(estimators.derivative, BOUNDS[name]), log_w)
    assert gradient.dtype == dtype


# Limits.


def test_one_draw_makes_all_bounds_equal():
    functions = {name: bound for name, bound in BOUNDS.items() if "jackknife" not in name}
    functions["miwae"] = functools.partial(bounds.miwae, num_outer=1)
    functions["jackknife(0)"] = functools.partial(bounds.jackknife, order=0)
    log_w = float32([[0.0, -90.25, 1e4, -1e4, -np.inf]])

    @jax.jit
    def compute(log_w):
        return {name: value_and_weights(bound, log_w) for name, bound in functions.items()}

    for name, (value, v, path) in compute(log_w).items():
        np.testing.assert_array_equal(value, log_w[0], err_msg=name)
        np.testing.assert_array_equal(v, np.ones((1, 5)), err_msg=name)
        np.testing.assert_array_equal(path, np.ones((1, 5)), err_msg=name)


@pytest.mark.parametrize("num_outer", [1, 2, 3, 4, 12])
def test_miwae_equals_float64_formula_for_each_division(num_outer):
    log_w = random_log_w(shape=(12, 5))
    grouped = log_w.reshape(num_outer, 12 // num_outer, 5)
    inner = logsumexp(grouped, axis=1) - np.log(12 // num_outer)
    close(MIWAE(float32(log_w), num_outer=num_outer), inner.mean(axis=0))


def test_limits():
    """Pairs of bounds that must be equal."""
    log_w = random_log_w(shape=(K, 4))
    log_w[2, 1] = log_w[4, 1] = -np.inf
    pairs = {
        "renyi(0)": (lambda x: bounds.renyi(x, 0.0), bounds.iwae),
        "renyi(0), an integer": (lambda x: bounds.renyi(x, 0), bounds.iwae),
        "renyi(1)": (lambda x: bounds.renyi(x, 1), bounds.elbo),
        "renyi(-inf)": (lambda x: bounds.renyi(x, -float("inf")), lambda x: jnp.max(x, 0)),
        "renyi(inf)": (lambda x: bounds.renyi(x, float("inf")), lambda x: jnp.min(x, 0)),
        "ciwae(0)": (lambda x: bounds.ciwae(x, 0.0), bounds.iwae),
        "ciwae(1)": (lambda x: bounds.ciwae(x, 1.0), bounds.elbo),
        "cubo(1)": (lambda x: bounds.cubo(x, 1.0), bounds.iwae),
        "cubo(3)": (lambda x: bounds.cubo(x, 3.0), lambda x: bounds.renyi(x, -2.0)),
        "tvo(1)": (lambda x: bounds.tvo(x, 1), bounds.elbo),
        "tvo(2)": (lambda x: bounds.tvo(x, 2), lambda x: bounds.tvo(x, (0, 0.5, 1))),
        "jackknife(0)": (lambda x: bounds.jackknife(x, 0), bounds.iwae),
        "miwae(1)": (lambda x: bounds.miwae(x, 1), bounds.iwae),
        "miwae(K)": (lambda x: bounds.miwae(x, K), bounds.elbo),
        # L_1 + (L_2 - L_1) of two draws.
        "sumo(1)": (lambda x: bounds.sumo(x, 1), lambda x: bounds.iwae(x[:2])),
        "sumo(0)": (lambda x: bounds.sumo(x, 0), lambda x: x[0]),
    }
    run = jax.jit(lambda x: {name: (f(x), limit(x)) for name, (f, limit) in pairs.items()})
    for name, (value, expected) in run(jnp.float32(log_w)).items():
        assert value.shape == (4,), name
        np.testing.assert_allclose(value, expected, rtol=3e-7, err_msg=name)


def test_limits_that_are_approached():
    log_w = random_log_w(shape=(K, 4))
    orders = jnp.float32([-100.0, -1000.0])
    by_alpha = jax.jit(jax.vmap(bounds.renyi, (None, 0)))(jnp.float32(log_w), orders)
    for alpha, value in zip(orders, by_alpha, strict=True):
        gap = np.max(log_w, axis=0) - value  # log K / (1 - alpha) at most
        assert np.all(gap >= -1e-5) and np.all(gap <= np.log(K) / (1 - alpha) + 1e-5)
    steps = 16
    tvo = jax.jit(lambda x: bounds.tvo(x, steps))(jnp.float32(log_w))
    iwae = logsumexp(log_w, axis=0) - np.log(K)
    weights = np.exp(log_w - logsumexp(log_w, axis=0))
    # A left Riemann sum of a rising integrand is too low by at most its rise times a step.
    rise = np.sum(weights * log_w, axis=0) - np.mean(log_w, axis=0)
    assert np.all(tvo <= iwae + 1e-5) and np.all(tvo >= iwae - rise / steps - 1e-5)


INFINITE = [-np.inf, np.float32(-np.inf), jnp.float32(-np.inf)]
TIED = np.array([[-90.0, -3.0], [-88.5, 2.0], [-95.0, 2.0], [-95.0, -1.0]])


@pytest.mark.parametrize(
    ("bound", "extreme"),
    [(functools.partial(bounds.renyi, alpha=alpha), "greatest") for alpha in INFINITE]
    + [(functools.partial(bounds.renyi, alpha=-alpha), "least") for alpha in INFINITE]
    + [(functools.partial(bounds.cubo, power=-alpha), "greatest") for alpha in INFINITE]
    + [(bounds.vr_max, "greatest")],
)
def test_infinite_orders_are_limits_without_second_derivative(bound, extreme):
    value, v = bound(float32(TIED)), estimators.derivative(bound, float32(TIED))
    end = np.max(TIED, axis=0) if extreme == "greatest" else np.min(TIED, axis=0)
    np.testing.assert_array_equal(value, end)
    np.testing.assert_array_equal(v, (end == TIED) / np.sum(end == TIED, axis=0))
    with pytest.raises(ValueError, match=f'{extreme} log-weight jumps.*estimator="dreg".*vimco'):
        estimators.path_weight(bound, float32(TIED))


@jax.jit
def traced_renyi(log_w, alpha):
    bound = functools.partial(bounds.renyi, alpha=alpha)
    return bound(log_w), estimators.derivative(bound, log_w)


@pytest.mark.parametrize("alpha", [-np.inf, np.inf, -1e30, 1e30])
def test_a_traced_order_may_be_infinite(alpha):
    value, v = traced_renyi(float32(TIED), np.float32(alpha))
    end = np.max(TIED, axis=0) if alpha < 0 else np.min(TIED, axis=0)
    np.testing.assert_array_equal(value, end)
    np.testing.assert_allclose(v, (end == TIED) / np.sum(end == TIED, axis=0), rtol=1e-6)


@pytest.mark.parametrize("alpha", [1 - 1e-7, 1.0, 1 + 1e-7])
def test_a_constant_alpha_near_1_agrees_with_its_limit_at_any_range(alpha):
    log_w = random_log_w(shape=(K, 4))
    log_w[:, 1] = [1e4, 0.0, -1e4, 1e4, -1e4, 1.0]
    value = jax.jit(lambda x: bounds.renyi(x, alpha))(jnp.float32(log_w))
    bias = 1e-7 * np.ptp(log_w, axis=0) ** 2 / 8
    error = np.abs(value - np.mean(log_w, axis=0))
    assert np.all(error <= bias + 4 * EPS * np.max(np.abs(log_w), axis=0))


# Expectations for a linear-Gaussian model with one latent dimension.


@functools.cache
def model():
    """Parameters, x, log p(x) and the ELBO in closed form; q is visibly wrong."""
    params, x = linear_gaussian.one_latent(), np.array([0.5, -1.0])
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(params, x)
    return params, x, linear_gaussian.log_px(params, x), reconstruction - kl


@functools.cache
def log_weights():
    params, x, _, _ = model()
    noise = np.random.default_rng(0).normal(size=(2**18, 1))
    z = params.a @ x + params.c + np.exp(params.log_scale) * noise
    return linear_gaussian.log_weight(params, x, z)


def mean_and_error(bound, draws):
    """Mean of a bound of a number of draws, and its standard error."""
    values = np.asarray(jax.jit(bound)(jnp.float32(log_weights().reshape(draws, -1))), np.float64)
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def test_cubo_lies_below_log_px_at_one_draw_and_above_it_at_many():
    params, x, log_px, elbo = model()
    population = log_px + np.log(linear_gaussian.relative_moment(params, x, 2)) / 2
    mean, error = mean_and_error(bounds.cubo, 1)
    assert abs(mean - elbo) < 4 * error and mean < log_px - 4 * error
    mean, error = mean_and_error(bounds.cubo, 4)
    assert mean < population - 4 * error
    mean, error = mean_and_error(bounds.cubo, 1024)
    # The bias is minus the relative Var(w^n) / (2 n K), n = 2, up to terms of order K^-2.
    fourth, second = (linear_gaussian.relative_moment(params, x, n) for n in (4, 2))
    bias = (fourth / second**2 - 1) / (4 * 1024)
    assert abs(mean - (population - bias)) < 4 * error
    assert mean > log_px + 4 * error


@pytest.mark.parametrize("draws", [1, 8, 1024])
def test_renyi_of_positive_order_lies_below_log_px_at_every_k(draws):
    params, x, log_px, elbo = model()
    population = log_px + 2 * np.log(linear_gaussian.relative_moment(params, x, 0.5))
    assert elbo < population < log_px
    mean, error = mean_and_error(BOUNDS["renyi(.5)"], draws)
    assert mean < log_px - 4 * error
    if draws == 1:
        assert abs(mean - elbo) < 4 * error
    elif draws == 8:
        assert elbo + 4 * error < mean < population - 4 * error
    else:
        # The bias is CUBO's with n = 1/2; E[w / p(x)] = 1.
        bias = (1 / linear_gaussian.relative_moment(params, x, 0.5) ** 2 - 1) / draws
        assert abs(mean - (population - bias)) < 4 * error


def test_renyi_of_negative_order_bounds_nothing_at_small_k():
    _, _, log_px, _ = model()
    below, error = mean_and_error(BOUNDS["renyi(-1)"], 1)
    assert below < log_px - 4 * error
    above, error = mean_and_error(BOUNDS["renyi(-1)"], 64)
    assert above > log_px + 4 * error


@pytest.mark.parametrize("draws", [4, 8])
def test_the_jackknife_is_less_biased_than_iwae(draws):
    _, _, log_px, _ = model()
    iwae, iwae_error = mean_and_error(bounds.iwae, draws)
    jackknife, error = mean_and_error(bounds.jackknife, draws)
    assert log_px - iwae > abs(log_px - jackknife) + 4 * (error + iwae_error)


@pytest.mark.parametrize("draws", [4, 64])
def test_tvo_lies_between_the_elbo_and_log_px(draws):
    _, _, log_px, elbo = model()
    mean, error = mean_and_error(functools.partial(bounds.tvo, partition=PARTITION), draws)
    assert elbo + 4 * error < mean < log_px - 4 * error


# SUMO's loop over chunks of draws.


@pytest.mark.slow
def test_sumo_log_px_equals_the_bound_of_its_draws_where_weights_are_zero():
    number, longest = 200, 64
    posterior = dist.Normal(jnp.zeros((number, 1)), 1.0).to_event(1)
    prior = dist.Normal(jnp.zeros(1), 1.0).to_event(1)
    problem = posterior, prior, lambda z: jnp.where(z[..., 0] > 0, z[..., 0] - 90, -jnp.inf)

    @jax.jit
    def both(key, same_key):
        draws_key, terms_key = jax.random.split(same_key)
        terms = roulette.draw_terms(terms_key, (number,))
        chunks = jax.vmap(
            lambda i: losses.log_weights(jax.random.fold_in(draws_key, i), *problem, 16).log_w
        )(jnp.arange(longest // 16))
        log_w = chunks.reshape(longest, number)
        estimate = roulette.sumo_log_px(key, *problem, chunk=16)
        return estimate, bounds.sumo(log_w, terms), log_w, terms

    estimate, expected, log_w, terms = both(jax.random.key(0), jax.random.key(0))
    short = np.asarray(terms) < longest
    # Each kind of estimate occurs: one leading zero weight, several within the terms, and more than
    # the terms.
    zeros, terms = np.argmax(np.isfinite(log_w), axis=0), np.asarray(terms)
    for kind in (zeros == 1, (zeros > 1) & (zeros <= terms), zeros > terms):
        assert np.any(kind & short)
    np.testing.assert_allclose(estimate[short], expected[short], rtol=3e-6)
