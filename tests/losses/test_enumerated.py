"""Estimators on a discrete latent variable, with every tuple of draws enumerated, in float64.

z is one of four states. Each tuple of draws has a known probability, so the weighted mean of an
estimator's gradient over all tuples is its exact expectation. The reference is the derivative of
the enumerated expectation of the bound, by complex steps of its NumPy formula (`numpy_bounds.py`).
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.losses import bounds, estimators, roulette, weights
from tests.losses import numpy_bounds

pytestmark = pytest.mark.usefixtures("fast_compilation")

STATES = 4
RNG = np.random.default_rng(0)
# Logits of q(z|x) and p(z), and log p(x|z) for the one observed x.
PARAMS = {
    "q": RNG.normal(size=STATES),
    "prior": RNG.normal(size=STATES),
    "likelihood": -3 + 1.5 * RNG.normal(size=STATES),
}
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
    """A categorical distribution whose draws are fixed."""

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
    """The exact mean of the loss and of its gradient, over all tuples of `number` draws."""
    key = jax.random.key(0) if key is None else key

    def loss(params, z):
        posterior = GivenDraws(params["q"], z)
        prior = GivenDraws(params["prior"], z)
        likelihood = params["likelihood"]
        arguments = posterior, prior, lambda z: likelihood[z]
        return objective(key, *arguments, num_samples=num_samples, **options)[0]

    def expected(params):
        probability = np.exp(np.sum(log_softmax(PARAMS["q"])[tuples(number)], axis=1))
        return jnp.dot(probability, jax.vmap(loss, in_axes=(None, 0))(params, tuples(number)))

    return jax.value_and_grad(expected)(PARAMS)


def from_log_w(function, **options):
    """A bound of log-weights as a function of the three log densities."""
    return lambda log_px_z, log_pz, log_qz_x: function(log_px_z + log_pz - log_qz_x, **options)


def power_mean(power):
    return from_log_w(numpy_bounds.power_mean, power=power)


def user_bound(log_w):
    return numpy_bounds.uneven(log_w, jnp)


def weighted_kl(log_px_z, log_pz, log_qz_x):
    return numpy_bounds.mean(log_px_z + 2.5 * (log_pz - log_qz_x))


# "score_baseline": see `estimator_named`. Without a baseline score is tested with the IWAE bound.
ANY_BOUND = ("score_baseline", "score_loo", "vimco")
FIXED = ("score_baseline", "vimco")  # Estimators of bounds that are not defined for K - 1 draws.


class Case(NamedTuple):
    objective: Callable
    options: dict
    value: Callable  # of log p(x|z), log p(z) and log q(z|x), each [K, T]
    estimators: tuple = ANY_BOUND
    num_samples: int = 3
    draws: int = 3


IWAE = from_log_w(numpy_bounds.log_mean_exp)
TVO = functools.partial(numpy_bounds.thermodynamic, partition=(0, 0.2, 0.7, 1))
CASES = {
    "elbo": Case(losses.elbo, {}, from_log_w(numpy_bounds.mean)),
    "beta_vae": Case(losses.beta_vae, {"beta": 2.5, "kl": "mc"}, weighted_kl),
    "iwae": Case(losses.iwae, {}, IWAE, ("score", "score_loo", "vimco", "score_baseline", "ovis")),
    "miwae": Case(losses.miwae, {"num_outer": 2}, from_log_w(numpy_bounds.grouped), FIXED, 2, 4),
    "ciwae": Case(losses.ciwae, {"beta": 0.3}, from_log_w(numpy_bounds.mixed, beta=0.3)),
    "renyi_0.5": Case(losses.renyi, {"alpha": 0.5}, power_mean(0.5)),
    "renyi_-1": Case(losses.renyi, {"alpha": -1.0}, power_mean(2.0)),
    "renyi_2": Case(losses.renyi, {"alpha": 2.0}, power_mean(-1.0), num_samples=2, draws=2),
    "vr_max": Case(losses.renyi, {"alpha": -np.inf}, from_log_w(numpy_bounds.greatest)),
    "jackknife_1": Case(losses.jackknife, {"order": 1}, from_log_w(numpy_bounds.jackknife_1)),
    "jackknife_2": Case(
        losses.jackknife, {"order": 2}, from_log_w(numpy_bounds.jackknife_2), FIXED
    ),
    "tvo": Case(losses.tvo, {"partition": [0, 0.2, 0.7, 1]}, from_log_w(TVO)),
    "sumo": Case(
        losses.from_bound,
        {"bound": functools.partial(bounds.sumo, num_terms=2)},
        from_log_w(numpy_bounds.roulette_2),
        FIXED,
    ),
    "user": Case(losses.from_bound, {"bound": user_bound}, from_log_w(numpy_bounds.uneven)),
}


def estimator_named(name):
    """The name, or score with a constant baseline for "score_baseline"."""
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
    """Gradient of a real, analytic function: Im f(x + ih) / h."""

    def along(name, i):
        moved = {key: leaf.astype(complex) for key, leaf in params.items()}
        moved[name][i] += 1j * step
        return function(moved).imag / step

    return {name: np.array([along(name, i) for i in range(STATES)]) for name in params}


def exact(value, number):
    """E_q[value] over `number` draws, and its gradient."""
    function = functools.partial(expectation, value, number)
    return function(PARAMS), complex_step(function, PARAMS)


def assert_gradient(gradient, expected, names=("q", "prior", "likelihood")):
    for name in names:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_mean_gradient_is_exact(case):
    objective, options, value, names, num_samples, draws = CASES[case]
    compute = functools.partial(estimated, objective, num_samples, draws, **options)

    @jax.jit
    def by_estimator():
        return {name: compute(estimator=estimator_named(name)) for name in names}

    expected_value, expected = exact(value, draws)
    for loss, gradient in by_estimator().values():
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
    # The second half of this key draws two terms or more; three draws have two terms.
    _, terms_key = jax.random.split(jax.random.key(SUMO_SEED))
    assert roulette.draw_terms(terms_key) >= 2

    @jax.jit
    def compute():
        key = jax.random.key(SUMO_SEED)
        return estimated(losses.sumo, 3, 3, key=key, estimator="vimco")

    loss, gradient = compute()
    expected_value, expected = exact(from_log_w(numpy_bounds.roulette_2), 3)
    np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-12)
    assert_gradient(gradient, {name: -leaf for name, leaf in expected.items()})


@pytest.mark.parametrize("gamma", [0.25, 1.0])
def test_ovis_with_gamma_above_0_is_biased_for_q_alone_by_its_formula(gamma):
    ovis = functools.partial(estimators.ovis, gamma=gamma)
    loss, gradient = jax.jit(lambda: estimated(losses.iwae, 3, 3, estimator=ovis))()
    expected_value, expected = exact(IWAE, 3)
    np.testing.assert_allclose(-loss, expected_value, rtol=0, atol=1e-12)
    expected = {name: -leaf for name, leaf in expected.items()}
    assert_gradient(gradient, expected, ("prior", "likelihood"))
    assert np.max(np.abs(gradient["q"] - expected["q"])) > 0.01 * gamma
    # Lievin et al. 2020, eq. 17: weights -log(1 - v_k) - v_k + gamma (v_k + log(1 - 1/K)).
    draws, v, probability = weighted_draws(3)
    by_q = -np.log(1 - v) - v + gamma * (v + np.log(1 - 1 / 3))
    assert_gradient(gradient, {"q": -mean_score(by_q, draws, probability)}, ("q",))


def weighted_draws(number):
    """Draws [K, T], their normalized weights [K, T], and the tuples' probabilities [T]."""
    log_q, log_pz = log_softmax(PARAMS["q"]), log_softmax(PARAMS["prior"])
    draws = tuples(number).T
    weights = np.exp(PARAMS["likelihood"] + log_pz - log_q)[draws]
    return draws, weights / np.sum(weights, axis=0), np.exp(np.sum(log_q[draws], axis=0))


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
    draws, w, probability = weighted_draws(3)
    expected = {
        "q": -mean_score(w, draws, probability),
        "prior": -bound["prior"],
        "likelihood": -bound["likelihood"],
    }
    assert_gradient(gradient, expected)
    assert np.max(np.abs(expected["q"] + bound["q"])) > 0.01  # The bound's direction differs.


@pytest.mark.parametrize(
    "objective, number, options, by_q, by_p, sign",
    [
        (losses.cubo, 3, {"power": 2.0}, power_mean(2.0), IWAE, 1),
        (losses.iwae_elbo, 3, {}, from_log_w(numpy_bounds.mean), IWAE, -1),
        (losses.piwae, 2, {"num_outer": 2}, from_log_w(numpy_bounds.grouped), IWAE, -1),
    ],
)
def test_two_networks_follow_two_targets(objective, number, options, by_q, by_p, sign):
    draws = number * options.get("num_outer", 1)
    names = FIXED if "num_outer" in options else ANY_BOUND
    compute = functools.partial(estimated, objective, number, draws, **options)

    @jax.jit
    def by_estimator():
        return {name: compute(estimator=estimator_named(name)) for name in names}

    value_q, gradient_q = exact(by_q, draws)
    value_p, gradient_p = exact(by_p, draws)
    # sign is 1 where q's bound is an upper one: then q descends it, and its value is the loss. p
    # ascends its lower bound either way.
    expected = {name: -leaf for name, leaf in gradient_p.items()} | {"q": sign * gradient_q["q"]}
    for loss, gradient in by_estimator().values():
        np.testing.assert_allclose(loss, value_q if sign > 0 else -value_p, rtol=0, atol=1e-12)
        assert_gradient(gradient, expected)


# The estimator that sums over all values of z.


def summed_loss(params, likelihood, vectorized=True, objective=losses.elbo, **options):
    """The loss of two equal examples by estimator="enumerate", [2]."""

    def both(logits):
        return dist.CategoricalLogits(jnp.broadcast_to(logits, (2, STATES)))

    arguments = both(params["q"]), dist.CategoricalLogits(params["prior"]), likelihood
    options |= {"estimator": "enumerate", "vectorized": vectorized}
    return objective(jax.random.key(0), *arguments, **options)[0]


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize(
    ("objective", "options", "value"),
    [
        (losses.elbo, {}, from_log_w(numpy_bounds.mean)),
        (losses.beta_vae, {"beta": 2.5, "kl": "mc"}, weighted_kl),
        (losses.beta_vae, {"beta": 2.5, "kl": "analytic"}, weighted_kl),
    ],
)
def test_the_sum_over_z_is_exact(objective, options, value, vectorized):
    def loss(params):
        losses_of_both = summed_loss(
            params, lambda z: params["likelihood"][z], vectorized, objective, **options
        )
        assert losses_of_both.shape == (2,)
        return jnp.mean(losses_of_both)

    mean_loss, gradient = jax.jit(jax.value_and_grad(loss))(PARAMS)
    expected_value, expected = exact(value, 1)
    np.testing.assert_allclose(-mean_loss, expected_value, rtol=0, atol=1e-12)
    assert_gradient(gradient, {name: -leaf for name, leaf in expected.items()})


def test_the_hessian_of_the_sum_over_z_is_exact():
    def slope(logits):
        def loss(logits):
            likelihood = jnp.asarray(PARAMS["likelihood"])
            return jnp.mean(summed_loss(PARAMS | {"q": logits}, lambda z: likelihood[z]))

        return jax.grad(loss)(logits)

    value = functools.partial(expectation, from_log_w(numpy_bounds.mean), 1)
    step = 1e-5

    def difference(i):
        ends = [PARAMS | {"q": PARAMS["q"] + sign * step * np.eye(STATES)[i]} for sign in (1, -1)]
        upper, lower = (complex_step(value, end)["q"] for end in ends)
        return (upper - lower) / (2 * step)

    expected = -np.array([difference(i) for i in range(STATES)])
    np.testing.assert_allclose(jax.jit(jax.jacfwd(slope))(PARAMS["q"]), expected, atol=1e-8)


def test_a_value_without_mass_has_no_part_in_the_sum():
    q = np.array([0.3, -np.inf, 0.7, -0.2])
    mass = np.exp(q) / np.sum(np.exp(q))

    @jax.jit
    def compute(params):
        likelihood = params["likelihood"]
        return jnp.mean(summed_loss(PARAMS | {"q": q}, lambda z: likelihood[z]))

    value, gradient = jax.value_and_grad(compute)(PARAMS)
    log_w = PARAMS["likelihood"] + log_softmax(PARAMS["prior"]) - np.log(np.maximum(mass, 1e-300))
    np.testing.assert_allclose(-value, np.sum(mass * log_w), rtol=1e-12)
    np.testing.assert_allclose(gradient["likelihood"], -mass, rtol=1e-12)


@pytest.mark.parametrize(
    ("posterior", "name"),
    [
        (dist.Normal(np.zeros((2, 3)), 1.0).to_event(1), "Independent"),
        (dist.Bernoulli(logits=np.zeros((2, 3))).to_event(1), "Independent"),
        (dist.CategoricalLogits(np.zeros((2, 4))).mask(np.array([True, False])), "Masked"),
        (dist.Poisson(np.ones(2)), "Poisson"),
    ],
)
def test_the_sum_over_z_needs_a_posterior_that_lists_its_values(posterior, name):
    with pytest.raises(ValueError, match=f"needs a posterior with enumerate_support; {name}"):
        jax.eval_shape(
            lambda key: losses.elbo(
                key, posterior, posterior, lambda z: jnp.zeros(2), estimator="enumerate"
            )[0],
            jax.random.key(0),
        )


def test_the_sum_over_z_is_for_means_over_draws():
    problem = weights.Problem(None, None, None, 2)
    with pytest.raises(ValueError, match="is for means over draws alone"):
        estimators.enumerated(jax.random.key(0), problem, bounds.iwae, estimators.log_w_of)
