"""Estimators of binary draws, with their noise integrated out, in float64.

The mean of an estimator's gradient over its noise is compared with the derivative of the enumerated
expectation of the bound, by complex steps of its NumPy formula. See `binary_model.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import losses
from elbo_lab.distributions import BernoulliVector
from elbo_lab.losses import estimators
from tests.losses import binary_model, numpy_bounds
from tests.losses.binary_model import CHAIN, PARAMS
from tests.losses.test_enumerated import CASES, IWAE, from_log_w, power_mean, weighted_kl

pytestmark = pytest.mark.usefixtures("fast_compilation")

UNBIASED = ("arm", "disarm", "rebar")
BINARY = (*UNBIASED, "gumbel_softmax", "straight_through")
# Nodes per interval of u that make means of functions of relaxed draws exact to 1e-9.
NODES = 10


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def slow_unless(fast, values):
    return [v if v in fast else pytest.param(v, marks=pytest.mark.slow) for v in values]


def exact(value, sizes, number):
    """The expectation of a bound, and its gradient."""
    function = functools.partial(binary_model.expectation, sizes=sizes, value=value, number=number)
    return function(PARAMS), binary_model.complex_step(function, PARAMS)


def assert_gradient(gradient, expected, sign=-1, names=tuple(PARAMS), atol=1e-9):
    for name in names:
        np.testing.assert_allclose(gradient[name], sign * expected[name], rtol=0, atol=atol)


def check(names, objective, value, sizes, number, draws, nodes=1, **options):
    """Checks the mean loss and the mean gradient of estimators of K draws."""
    grid = binary_model.noise_grid(sizes, draws, nodes)
    compute = functools.partial(binary_model.mean_and_gradient, objective, sizes, number, grid)

    @jax.jit
    def by_estimator():
        return [compute(name, **options) for name in names]

    expected_value, expected = exact(value, sizes, draws)
    for loss, gradient in by_estimator():
        np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-9)
        assert_gradient(gradient, expected)


# Mean gradients.


@pytest.mark.parametrize("case", slow_unless(["iwae"], CASES))
def test_pairs_have_the_exact_mean_gradient(case):
    objective, options, value, _, number, draws = CASES[case]
    check(("arm", "disarm"), objective, value, (2,), number, draws, **options)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["iwae", "elbo", "beta_vae", "user"])
def test_pairs_in_two_layers_have_the_exact_mean_gradient(case):
    objective, options, value, *_ = CASES[case]
    check(("arm", "disarm"), objective, value, CHAIN, 2, 2, **options)


# Without vr_max, which has kinks at relaxed draws, and miwae, whose four draws need many points.
SMOOTH = [case for case in CASES if case not in ("vr_max", "miwae")]


@pytest.mark.slow
@pytest.mark.parametrize("case", SMOOTH)
def test_rebar_has_the_exact_mean_gradient(case):
    objective, options, value, _, number, draws = CASES[case]
    check(("rebar",), objective, value, (1,), number, draws, NODES, **options)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.25, 1.0])
def test_rebar_is_exact_at_any_temperature(temperature):
    rebar = functools.partial(estimators.rebar, temperature=temperature)
    check((rebar,), losses.iwae, IWAE, (1,), 2, 2, nodes=40)
    check((rebar,), losses.elbo, from_log_w(numpy_bounds.mean), (2,), 1, 1, nodes=40)


@pytest.mark.parametrize("objective", slow_unless([losses.elbo], [losses.elbo, losses.iwae]))
def test_one_draw_is_enough(objective):
    value = from_log_w(numpy_bounds.mean)  # of both bounds
    check(("arm", "disarm"), objective, value, (2,), 1, 1)
    check(("rebar",), objective, value, (1,), 1, 1, nodes=16)


@pytest.mark.slow
def test_the_kl_in_closed_form():
    options = {"beta": 2.5, "kl": "analytic"}
    grid = binary_model.noise_grid((2,), 2)
    for name in ("arm", "disarm"):
        _, gradient = binary_model.mean_and_gradient(
            losses.beta_vae, (2,), 2, grid, name, **options
        )
        assert_gradient(gradient, exact(weighted_kl, (2,), 2)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "number", "options", "by_q", "by_p", "sign"),
    [
        (losses.cubo, 2, {"power": 2.0}, power_mean(2.0), IWAE, 1),
        (losses.iwae_elbo, 2, {}, from_log_w(numpy_bounds.mean), IWAE, -1),
        (losses.piwae, 1, {"num_outer": 2}, from_log_w(numpy_bounds.mean), IWAE, -1),
    ],
)
def test_two_networks_follow_two_targets(objective, number, options, by_q, by_p, sign):
    for name, nodes in (("disarm", 1), ("rebar", 16)):
        grid = binary_model.noise_grid((1,), 2, nodes)
        _, gradient = binary_model.mean_and_gradient(objective, (1,), number, grid, name, **options)
        assert_gradient(gradient, exact(by_q, (1,), 2)[1], sign, ["q"])
        assert_gradient(gradient, exact(by_p, (1,), 2)[1], -1, ["prior", "likelihood"])


# The biased estimators.


def relaxed_gradient(temperature, through_binary_draws, value, grid):
    """The gradient by q of the mean of a bound at relaxed draws, by complex steps, [3].

    With `through_binary_draws` the values are those of binary draws, and the derivatives those of
    relaxed ones.
    """
    (u,), weights = grid

    def mean(params):
        logits = params["q"][: u.shape[-1]]
        y = 1 / (1 + np.exp(-(logits - np.log(u / (1 - u))) / temperature))
        z = np.where(y.real > 0.5, 1.0, 0.0) + 1j * y.imag if through_binary_draws else y
        parts = binary_model.densities(params, (u.shape[-1],), z)  # [T, K]
        return np.sum(weights * value(*(part.T for part in parts)))

    return binary_model.complex_step(mean, PARAMS)["q"]


def biases(temperature, nodes):
    """The bias by q relative to the exact gradient's norm, for the IWAE bound of two draws."""
    grid = binary_model.noise_grid((1,), 2, nodes)
    _, expected = exact(IWAE, (1,), 2)
    shares = []
    for through_binary_draws in (False, True):
        gradient = relaxed_gradient(temperature, through_binary_draws, IWAE, grid)
        shares.append(abs(gradient[0] - expected["q"][0]) / abs(expected["q"][0]))
    return shares


@pytest.mark.parametrize("name", ["gumbel_softmax", "straight_through"])
def test_relaxed_draws_serve_q_alone_and_p_has_no_bias(name):
    grid = binary_model.noise_grid((1,), 2, 16)
    loss, gradient = jax.jit(
        lambda: binary_model.mean_and_gradient(losses.iwae, (1,), 2, grid, name)
    )()
    expected_value, expected = exact(IWAE, (1,), 2)
    np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-9)
    assert_gradient(gradient, expected, names=["prior", "likelihood"])
    of_relaxed = relaxed_gradient(0.5, name == "straight_through", IWAE, grid)
    np.testing.assert_allclose(gradient["q"], -of_relaxed, rtol=0, atol=1e-9)
    assert np.max(np.abs(of_relaxed - expected["q"])) > 0.005  # It is biased.


def test_the_bias_of_gumbel_softmax_falls_with_the_temperature():
    relaxed = [biases(temperature, nodes=60)[0] for temperature in (0.1, 0.5, 1.0)]
    assert relaxed == sorted(relaxed)


# Variance.


def test_disarm_is_arms_expectation_and_has_less_variance():
    grid = binary_model.noise_grid((2,), 1, nodes=2)  # Squares of arm's weights are quadratic.

    def gradients(name):
        losses_of = binary_model.each(losses.elbo, (2,), 1, grid, name)
        return np.asarray(jax.jit(jax.jacobian(losses_of))(PARAMS)["q"])

    arm, disarm = gradients("arm"), gradients("disarm")
    second_moments = [grid[1] @ gradient**2 for gradient in (arm, disarm)]
    assert np.all(second_moments[1][:2] < second_moments[0][:2])
    # The noise of each interval has two points of equal weight.
    by_interval = [g[:, :2].reshape(3, 2, 3, 2, 2).mean(axis=(1, 3)) for g in (arm, disarm)]
    np.testing.assert_allclose(*by_interval, rtol=0, atol=1e-12)


@pytest.mark.parametrize("objective", slow_unless([losses.iwae], [losses.elbo, losses.iwae]))
def test_unbiased_estimators_have_no_variance_where_q_is_the_posterior(objective):
    slope = np.array([0.8, -1.1])
    prior = BernoulliVector(jnp.asarray(PARAMS["prior"]))

    def loss(logits, name):
        key, posterior = jax.random.key(0), BernoulliVector(logits)

        def log_likelihood(z):
            return jnp.dot(z, slope)

        return objective(key, posterior, prior, log_likelihood, num_samples=3, estimator=name)[0]

    @jax.jit
    def gradients(logits):
        return [jax.grad(loss)(logits, name) for name in UNBIASED]

    np.testing.assert_allclose(gradients(PARAMS["prior"] + slope), 0, atol=1e-12)
