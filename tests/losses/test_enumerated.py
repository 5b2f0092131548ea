"""Estimators on a discrete latent variable, every tuple of draws enumerated, in float64.

z is one of four states. A tuple of draws has a known probability, so that the mean of an
estimator's gradient over all tuples is its exact expectation. The reference is the derivative of
the enumerated expectation of the bound, by complex steps of its NumPy formula (`numpy_bounds.py`).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import losses
from elbo_lab.losses import bounds, estimators, roulette
from tests.losses import numpy_bounds

pytestmark = pytest.mark.usefixtures("fast_compilation")

STATES = 4
RNG = np.random.default_rng(0)
# Logits of q(z|x) and p(z), and log p(x|z) for the one x that was observed.
PARAMS = {
    "q": RNG.normal(size=STATES),
    "prior": RNG.normal(size=STATES),
    "likelihood": -3 + 1.5 * RNG.normal(size=STATES),
}
BETA = 0.3
SUMO_SEED = 1


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def tuples(number):
    """[T, K], all T = 4^K tuples of K draws."""
    return np.array(list(itertools.product(range(STATES), repeat=number)))


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits)))


class GivenDraws:
    """A categorical posterior whose draws are given."""

    def __init__(self, logits, z):
        self.log_probs, self.z = jax.nn.log_softmax(logits), z

    def sample(self, key, sample_shape=()):
        assert self.z.shape == sample_shape
        return self.z

    def log_prob(self, z):
        return self.log_probs[z]

    def kl_divergence(self, prior):
        return jnp.sum(jnp.exp(self.log_probs) * (self.log_probs - prior.log_probs))


def estimated(objective, num_samples, number, key=None, **options):
    """Mean over all tuples of the loss, and of its gradient."""

    def loss(params, z):
        posterior = GivenDraws(params["q"], z)
        prior = GivenDraws(params["prior"], z)
        likelihood = params["likelihood"]
        given = jax.random.key(0) if key is None else key
        return objective(
            given, posterior, prior, lambda z: likelihood[z], num_samples=num_samples, **options
        )[0]

    def expected(params):
        probability = np.exp(np.sum(log_softmax(PARAMS["q"])[tuples(number)], axis=1))
        return jnp.dot(probability, jax.vmap(loss, in_axes=(None, 0))(params, tuples(number)))

    return jax.value_and_grad(expected)(PARAMS)


def of_log_w(function, **options):
    return lambda log_px_z, log_pz, log_qz_x: function(log_px_z + log_pz - log_qz_x, **options)


def power_mean(power):
    return of_log_w(numpy_bounds.power_mean, power=power)


def user_bound(log_w):
    return numpy_bounds.uneven(log_w, jnp)


def weighted_kl(log_px_z, log_pz, log_qz_x):
    return numpy_bounds.mean(log_px_z + 2.5 * (log_pz - log_qz_x))


IWAE = of_log_w(numpy_bounds.log_mean_exp)
ALL = ("score", "score_loo", "vimco")
FIXED = ("score", "vimco")
# name: objective, K, draws, options, value, estimators.
CASES = {
    "elbo": (losses.elbo, 3, 3, {}, of_log_w(numpy_bounds.mean), ALL),
    "beta_vae": (losses.beta_vae, 3, 3, {"beta": 2.5, "kl": "mc"}, weighted_kl, ALL),
    "iwae": (losses.iwae, 3, 3, {}, IWAE, (*ALL, "score_baseline", "ovis")),
    "miwae": (losses.miwae, 2, 4, {"num_outer": 2}, of_log_w(numpy_bounds.grouped), FIXED),
    "ciwae": (losses.ciwae, 3, 3, {"beta": BETA}, of_log_w(numpy_bounds.mixed, beta=BETA), ALL),
    "renyi_0.5": (losses.renyi, 3, 3, {"alpha": 0.5}, power_mean(0.5), ALL),
    "renyi_-1": (losses.renyi, 3, 3, {"alpha": -1.0}, power_mean(2.0), ALL),
    "renyi_2": (losses.renyi, 2, 2, {"alpha": 2.0}, power_mean(-1.0), ALL),
    "vr_max": (losses.renyi, 3, 3, {"alpha": -np.inf}, of_log_w(numpy_bounds.greatest), ALL),
    "jackknife_1": (losses.jackknife, 3, 3, {"order": 1}, of_log_w(numpy_bounds.jackknife_1), ALL),
    "jackknife_2": (
        losses.jackknife,
        3,
        3,
        {"order": 2},
        of_log_w(numpy_bounds.jackknife_2),
        FIXED,
    ),
    "tvo": (
        losses.tvo,
        3,
        3,
        {"partition": [0, 0.2, 0.7, 1]},
        of_log_w(numpy_bounds.thermodynamic),
        ALL,
    ),
    "sumo": (
        losses.from_bound,
        3,
        3,
        {"bound": functools.partial(bounds.sumo, num_terms=2)},
        of_log_w(numpy_bounds.roulette_2),
        FIXED,
    ),
    "user": (losses.from_bound, 3, 3, {"bound": user_bound}, of_log_w(numpy_bounds.uneven), ALL),
}


def estimator_named(name):
    if name == "score_baseline":
        return functools.partial(estimators.score, baseline=-1.7)
    return name


def expectation(value, number, params):
    """E_q[value] by enumeration, for real or complex parameters."""
    log_q, log_pz = log_softmax(params["q"]), log_softmax(params["prior"])
    draws = tuples(number).T  # [K, T]
    probability = np.exp(np.sum(log_q[draws], axis=0))
    return np.sum(probability * value(params["likelihood"][draws], log_pz[draws], log_q[draws]))


def complex_step(function, params, step=numpy_bounds.STEP):
    """Gradient of a real function that is analytic: Im f(x + ih) / h."""

    def along(name, i):
        moved = {key: leaf.astype(complex) for key, leaf in params.items()}
        moved[name][i] += 1j * step
        return function(moved).imag / step

    return {name: np.array([along(name, i) for i in range(STATES)]) for name in params}


def exact(value, number):
    function = functools.partial(expectation, value, number)
    return function(PARAMS), complex_step(function, PARAMS)


def assert_gradient(gradient, expected, names=("q", "prior", "likelihood")):
    for name in names:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_mean_gradient_is_exact(case):
    objective, number, draws, options, value, names = CASES[case]

    @jax.jit
    def compute():
        return {
            name: estimated(objective, number, draws, estimator=estimator_named(name), **options)
            for name in names
        }

    expected_value, expected = exact(value, draws)
    # What is compared is not zero.
    assert all(np.max(np.abs(leaf)) > 0.01 for leaf in expected.values())
    for loss, gradient in compute().values():
        np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-12)
        assert_gradient(gradient, {name: -leaf for name, leaf in expected.items()})


@pytest.mark.parametrize("estimator", ["score", "score_loo"])
def test_mean_gradient_is_exact_with_the_kl_in_closed_form(estimator):
    loss, gradient = jax.jit(
        lambda: estimated(losses.beta_vae, 2, 2, beta=2.5, kl="analytic", estimator=estimator)
    )()
    expected_value, expected = exact(weighted_kl, 2)
    np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-12)
    assert_gradient(gradient, {name: -leaf for name, leaf in expected.items()})


def test_sumo_follows_the_roulette_that_its_key_drew():
    # The second half of this key draws two terms or more, which is as many as three draws have.
    _, terms_key = jax.random.split(jax.random.key(SUMO_SEED))
    assert roulette.draw_terms(terms_key) >= 2

    @jax.jit
    def compute():
        key = jax.random.key(SUMO_SEED)
        return estimated(losses.sumo, 3, 3, key=key, estimator="vimco")

    loss, gradient = compute()
    expected_value, expected = exact(of_log_w(numpy_bounds.roulette_2), 3)
    np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-12)
    assert_gradient(gradient, {name: -leaf for name, leaf in expected.items()})


@pytest.mark.parametrize("gamma", [0.25, 1.0])
def test_ovis_of_any_gamma_above_0_is_biased_for_q_alone_and_as_its_formula_says(gamma):
    ovis = functools.partial(estimators.ovis, gamma=gamma)
    loss, gradient = jax.jit(lambda: estimated(losses.iwae, 3, 3, estimator=ovis))()
    expected_value, expected = exact(IWAE, 3)
    np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-12)
    expected = {name: -leaf for name, leaf in expected.items()}
    assert_gradient(gradient, expected, ("prior", "likelihood"))
    assert np.max(np.abs(gradient["q"] - expected["q"])) > 0.01 * gamma
    # Lievin et al. 2020, eq. 17: weights -log(1 - v_k) - v_k + gamma (v_k + log(1 - 1/K)).
    draws, _, v, probability = weighed(3)
    by_q = -np.log(1 - v) - v + gamma * (v + np.log(1 - 1 / 3))
    assert_gradient(gradient, {"q": -mean_score(by_q, draws, probability)}, ("q",))


def weighed(number):
    """Draws, log_w and normalized weights, [K, T] each, and the tuples' probabilities."""
    log_q, log_pz = log_softmax(PARAMS["q"]), log_softmax(PARAMS["prior"])
    draws = tuples(number).T
    log_w = (PARAMS["likelihood"] + log_pz - log_q)[draws]
    weights = np.exp(log_w)
    return draws, log_w, weights / np.sum(weights, axis=0), np.exp(np.sum(log_q[draws], axis=0))


def mean_score(weights, draws, probability):
    """E sum_k weights_k d log q(z_k) / d logits, by d log q(z) = e_z - q."""
    scores = np.eye(STATES)[draws] - np.exp(log_softmax(PARAMS["q"]))  # [K, T, STATES]
    return np.einsum("kt,kts,t->s", weights, scores, probability)


@pytest.mark.parametrize(
    "objective, options",
    [(losses.iwae, {"estimator": "wake"}), (losses.rws, {"phase": "wake"})],
)
def test_wake_follows_the_bound_for_p_and_weighted_draws_for_q(objective, options):
    loss, gradient = jax.jit(lambda: estimated(objective, 3, 3, **options))()
    expected_value, bound = exact(IWAE, 3)
    np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-12)
    draws, _, w, probability = weighed(3)
    expected = {
        "q": -mean_score(w, draws, probability),
        "prior": -bound["prior"],
        "likelihood": -bound["likelihood"],
    }
    assert_gradient(gradient, expected)
    assert np.max(np.abs(expected["q"] + bound["q"])) > 0.01  # another direction than the bound's


@pytest.mark.parametrize(
    "objective, number, options, by_q, by_p, sign",
    [
        (losses.cubo, 3, {"power": 2.0}, power_mean(2.0), IWAE, 1),
        (losses.iwae_elbo, 3, {}, of_log_w(numpy_bounds.mean), IWAE, -1),
        (losses.piwae, 2, {"num_outer": 2}, of_log_w(numpy_bounds.grouped), IWAE, -1),
    ],
)
def test_two_networks_follow_two_targets(objective, number, options, by_q, by_p, sign):
    draws = number * options.get("num_outer", 1)
    names = FIXED if "num_outer" in options else ALL

    @jax.jit
    def compute():
        return {
            name: estimated(objective, number, draws, estimator=estimator_named(name), **options)
            for name in names
        }

    value_q, gradient_q = exact(by_q, draws)
    value_p, gradient_p = exact(by_p, draws)
    # The upper bound is descended and its value returned; p ascends its lower bound either way.
    expected = {name: -leaf for name, leaf in gradient_p.items()} | {"q": sign * gradient_q["q"]}
    for loss, gradient in compute().values():
        np.testing.assert_allclose(loss, value_q if sign > 0 else -value_p, rtol=0, atol=1e-12)
        assert_gradient(gradient, expected)
