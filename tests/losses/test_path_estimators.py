"""Estimators that differentiate through the draws: reparam, stl, dreg and wake_dreg.

Single gradients are compared term by term with the linear-Gaussian model's derivatives, in float64,
by the weights that `estimators.py` states. Mean gradients are compared with exact expectations over
two draws by quadrature; keys are fixed, and tolerances are four standard errors.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from elbo_lab import losses
from elbo_lab.losses import bounds, estimators
from tests.losses import hierarchy, linear_gaussian, numpy_bounds
from tests.losses.mean_gradients import (
    GivenNoise,
    float32,
    many,
    objective_loss,
    off_exact,
    one_latent,
    standard_errors_off,
)

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = np.array([0.5, -1.0, 1.5])
# q is away from the posterior: bounds and estimators differ visibly.
LOOSE = linear_gaussian.make_params(seed=2)
LOOSE = LOOSE._replace(log_scale=LOOSE.log_scale + 0.2)
GENERATION, INFERENCE = ("w", "b"), ("a", "c", "log_scale")
COVARIANCE = linear_gaussian.SIGMA**2 * np.eye(3)
K, BETA = 4, 2.5
CUBO = functools.partial(bounds.cubo, power=2.0)


def bent(log_w, module=np):
    """A user's own smooth bound, which is not a power mean."""
    steep = module.log1p(module.mean(module.exp(log_w / 2 + 2), axis=0))
    return steep + module.mean(module.tanh(log_w), axis=0)


def power_mean(power):
    return functools.partial(numpy_bounds.power_mean, power=power)


def roulette_1(log_w):
    """SUMO of one term, L_1 + (L_2 - L_1); draws beyond the second are not used."""
    return numpy_bounds.log_mean_exp(log_w[:2])


TVO_POINTS = (0, 0.2, 0.7, 1)
# Name: (objective, options, the bound in NumPy for four draws, two groups of two).
BOUNDS = {
    "elbo": (losses.elbo, {}, numpy_bounds.mean),
    "beta_vae": (losses.beta_vae, {"beta": BETA, "kl": "mc"}, numpy_bounds.mean),
    "iwae": (losses.iwae, {}, numpy_bounds.log_mean_exp),
    "miwae": (losses.miwae, {"num_outer": 2, "num_samples": K // 2}, numpy_bounds.grouped),
    "ciwae": (losses.ciwae, {"beta": 0.3}, functools.partial(numpy_bounds.mixed, beta=0.3)),
    "renyi_0.5": (losses.renyi, {"alpha": 0.5}, power_mean(0.5)),
    "renyi_-1": (losses.renyi, {"alpha": -1.0}, power_mean(2.0)),
    "cubo": (losses.from_bound, {"bound": CUBO}, power_mean(2.0)),
    "jackknife": (losses.jackknife, {"order": 1}, numpy_bounds.jackknife_1),
    "tvo": (
        losses.tvo,
        {"partition": TVO_POINTS},
        functools.partial(numpy_bounds.thermodynamic, partition=TVO_POINTS),
    ),
    "user": (losses.from_bound, {"bound": functools.partial(bent, module=jnp)}, bent),
    # Bounds whose v is zero for some draws, where the weights of wake_dreg are not.
    "sumo": (losses.from_bound, {"bound": functools.partial(bounds.sumo, num_terms=1)}, roulette_1),
    "vr_max": (losses.renyi, {"alpha": -np.inf}, numpy_bounds.greatest),
    "vr_min": (losses.renyi, {"alpha": np.inf}, lambda log_w: -numpy_bounds.greatest(-log_w)),
}
VANISHING_V = ("sumo", "vr_max", "vr_min")
# Estimators to test with a bound. stl and wake_dreg have one rule for all bounds, so a few bounds
# are enough.
ESTIMATORS = {
    "iwae": ("reparam", "dreg", "stl", "wake_dreg"),
    "beta_vae": ("reparam", "dreg", "stl"),
    **dict.fromkeys(VANISHING_V, ("reparam", "wake_dreg")),
}


# Single gradients, term by term.


class Weights(NamedTuple):
    model: np.ndarray  # [K], of the generation network's terms
    path: np.ndarray  # [K], of d log w / dz
    score: np.ndarray  # [K], of d log q / d its parameters


def weights_of(estimator, value, log_w):
    v = numpy_bounds.gradient(value, log_w)
    w = softmax(log_w)
    path, score = {
        "reparam": (v, -v),
        "stl": (v, 0 * v),
        "dreg": (v - numpy_bounds.diagonal_hessian(value, log_w), 0 * v),
        "wake_dreg": (w - w**2, 0 * v),
    }[estimator]
    return Weights(v, path, score)


def gradient_by_terms(params, x, noise, weights, beta=1.0):
    """The gradient of a bound, for noise [K, L]; beta weighs log p(z) - log q(z|x)."""
    scale = np.exp(params.log_scale)
    z = params.a @ x + params.c + scale * noise
    residuals = (x - z @ params.w.T - params.b) / linear_gaussian.SIGMA**2  # [K, D]
    log_w_slopes, by_mean = linear_gaussian.log_weight_slopes(params, x, z)
    kl_slopes = log_w_slopes - residuals @ params.w  # d (log p(z) - log q(z)) / dz
    slopes, score = log_w_slopes + (beta - 1) * kl_slopes, beta * weights.score
    c = weights.path @ slopes + score @ by_mean
    return linear_gaussian.Params(
        w=np.einsum("k,kd,kl->dl", weights.model, residuals, z),
        b=weights.model @ residuals,
        a=np.outer(c, x),
        c=c,
        log_scale=weights.path @ (slopes * scale * noise) + score @ (noise**2 - 1),
    )


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("iwae", "ciwae", "vr_max") else pytest.param(n, marks=pytest.mark.slow)
        for n in BOUNDS
    ],
)
def test_each_draw_has_the_stated_weights(name):
    objective, options, value = BOUNDS[name]
    names = ESTIMATORS.get(name, ("reparam", "dreg"))
    noise = np.random.default_rng(0).normal(size=(K, 2))

    def loss(params, estimator):
        posterior, prior, log_likelihood = linear_gaussian.distributions(params, X)
        mean, scale = posterior.base_dist.loc, posterior.base_dist.scale
        arguments = GivenNoise(mean, scale, noise), prior, log_likelihood
        all_options = {"num_samples": K, "estimator": estimator} | options
        return objective(jax.random.key(0), *arguments, **all_options)[0]

    with jax.enable_x64(True):
        compute = jax.jit(lambda p: {n: jax.value_and_grad(loss)(p, n) for n in names})
        results = compute(LOOSE)
    z = LOOSE.a @ X + LOOSE.c + np.exp(LOOSE.log_scale) * noise
    log_w = linear_gaussian.log_weight(LOOSE, X, z)
    beta, seen = 1.0, log_w
    if name == "beta_vae":
        log_px_z = linear_gaussian.log_normal(X, z @ LOOSE.w.T + LOOSE.b, COVARIANCE)
        beta, seen = BETA, log_px_z + BETA * (log_w - log_px_z)
    for estimator, (surrogate, gradient) in results.items():
        np.testing.assert_allclose(-surrogate, value(seen), rtol=1e-12)
        weights = weights_of(estimator, value, log_w)
        expected = gradient_by_terms(LOOSE, X, noise, weights, beta)
        for slope, exact in zip(gradient, expected, strict=True):
            np.testing.assert_allclose(-slope, exact, rtol=0, atol=1e-8)


def test_path_weights_equal_their_closed_forms():
    log_w = 2 * np.random.default_rng(1).normal(size=(6, 3))
    w = softmax(log_w, axis=0)
    ciwae = functools.partial(bounds.ciwae, beta=0.3)
    renyi = functools.partial(bounds.renyi, alpha=-1.0)
    functions = (bounds.elbo, bounds.iwae, ciwae, renyi)
    with jax.enable_x64(True):
        elbo, iwae, ciwae, renyi = jax.jit(
            lambda log_w: [estimators.path_weight(bound, log_w) for bound in functions]
        )(log_w)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-14)
    close(elbo, np.full(w.shape, 1 / 6))
    close(iwae, w**2)
    close(ciwae, 0.3 / 6 + 0.7 * w**2)
    # (1 - s) v + s v^2 with v = softmax(s log w), s = 1 - alpha.
    v = softmax(2 * log_w, axis=0)
    close(renyi, -v + 2 * v**2)


# Means of many gradients.


def off_reparam(gradients, estimator):
    """Standard errors between an estimator's mean gradient and reparam's, by parameter."""
    reparam = gradients["reparam"]
    return {
        leaf: standard_errors_off(gradients[estimator][leaf] - reparam[leaf], 0) for leaf in reparam
    }


SLOW = ("elbo", "beta_vae", "ciwae", "renyi_0.5", "renyi_-1", "jackknife", "tvo")


# MIWAE is a mean of independent IWAEs, and CUBO-2 is Renyi's bound of order -1.
@pytest.mark.parametrize(
    "name", ["iwae", "user", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_mean_gradient_of_two_draws_is_exact(name):
    params, x = one_latent()
    objective, options, value = BOUNDS[name]
    options = {"num_samples": 2} | options
    expectation = functools.partial(linear_gaussian.expectation_2, x=x, bound=value)
    exact = linear_gaussian.finite_difference(expectation, params)
    if name == "beta_vae":
        exact = linear_gaussian.elbo_gradient(params, x, BETA)
    linear = name in ("elbo", "beta_vae")
    names = ("dreg", "stl") if linear or name == "iwae" else ("dreg",)
    gradients = many(objective_loss(objective, options, x), params, 20_000, names)
    assert off_exact(gradients["dreg"], exact) < 4
    if linear:
        assert off_exact(gradients["stl"], exact) < 4
    if name == "iwae":
        # The comparison has enough power: stl's path weights are v instead of v - h.
        assert off_exact(gradients["stl"], exact) > 6


def test_mean_wake_dreg_gradient_of_two_draws_is_exact():
    params, x = one_latent()
    z, weights = linear_gaussian.pairs(params, x)
    w = softmax(linear_gaussian.log_weight(params, x, z), axis=0)
    mean, scale = params.a @ x + params.c, np.exp(params.log_scale)
    noise = (z - mean) / scale  # [2, N, 1]
    by_mean = weights @ np.sum(w[..., None] * noise / scale, axis=0)
    by_log_scale = weights @ np.sum(w[..., None] * (noise**2 - 1), axis=0)
    bound = linear_gaussian.finite_difference(
        functools.partial(linear_gaussian.iwae_2, x=x, nodes=80), params
    )
    exact = bound._replace(a=np.outer(by_mean, x), c=by_mean, log_scale=by_log_scale)
    loss = objective_loss(losses.iwae, {"num_samples": 2}, x)
    assert off_exact(many(loss, params, 20_000, ("wake_dreg",))["wake_dreg"], exact) < 4
    assert np.max(np.abs(exact.c - bound.c)) > 0.01  # The bound's direction differs.


def squares_on_everything(key, problem, bound, weigh):
    """A defective estimator: the generation network's weights are w^2 too."""
    z = losses.weights.sample(key, problem)
    draws = losses.weights.densities(problem, z, freeze_posterior=True)
    v = jax.lax.stop_gradient(estimators.derivative(bound, draws.log_w))
    return -jnp.sum(v**2 * draws.log_w, axis=0), draws


def test_dreg_has_reparams_mean_and_the_comparison_finds_defects():
    loss = objective_loss(losses.iwae, {"num_samples": K}, X)
    gradients = many(loss, LOOSE, 4_000, ("reparam", "dreg", "stl", squares_on_everything))
    dreg, stl = off_reparam(gradients, "dreg"), off_reparam(gradients, "stl")
    squares = off_reparam(gradients, squares_on_everything)
    assert max(dreg.values()) < 4, dreg
    # stl's path weights are v instead of v - h.
    assert stl["w"] == stl["b"] == 0 and max(stl[field] for field in INFERENCE) > 6
    assert max(squares[field] for field in GENERATION) > 6
    # Squares are right for the inference network.
    assert max(squares[field] for field in INFERENCE) < 4


def test_dreg_has_less_variance_than_reparam():
    loss = objective_loss(losses.iwae, {"num_samples": 16}, X)
    gradients = many(loss, LOOSE, 4_000, ("reparam", "dreg"))
    for field in INFERENCE:
        dreg, reparam = (np.var(gradients[name][field], axis=0) for name in ("dreg", "reparam"))
        assert np.sum(dreg) < 0.5 * np.sum(reparam), field


def test_dreg_of_a_bound_with_another_weight_of_log_q():
    """Through the estimators' own interface: 2 log q in the log-weights, so that h counts twice."""

    def weigh(log_px_z, log_pz, log_qz_x):
        return log_px_z + 2 * (log_pz - log_qz_x)

    def loss(params, key, estimator):
        problem = estimators.Problem(*linear_gaussian.distributions(params, float32(X)), K)
        return estimators.ESTIMATORS[estimator](key, problem, bounds.iwae, weigh)[0]

    gradients = many(loss, LOOSE, 4_000, ("reparam", "dreg", "stl"))
    dreg, stl = off_reparam(gradients, "dreg"), off_reparam(gradients, "stl")
    assert max(dreg.values()) < 4 and max(stl.values()) > 6


# Two stochastic layers, and no variance at the optimum.


def test_dreg_of_two_stochastic_layers():
    def loss(params, key, estimator):
        arguments = hierarchy.two_layers(params, float32(X))
        return losses.iwae(key, *arguments, num_samples=K, estimator=estimator)[0]

    gradients = many(loss, hierarchy.LAYERS, 4_000, ("reparam", "dreg", "stl"))
    dreg, stl = off_reparam(gradients, "dreg"), off_reparam(gradients, "stl")
    assert max(dreg.values()) < 4, dreg
    assert dreg["v"] == dreg["w"] == 0  # The generation network's gradients are equal.
    assert max(stl[leaf] for leaf in "abs") > 6


def test_stl_has_no_variance_at_the_exact_posterior():
    params = linear_gaussian.with_exact_posterior(LOOSE)
    with jax.enable_x64(True):

        def loss(params, key, estimator):
            arguments = linear_gaussian.distributions(params, X)
            return losses.elbo(key, *arguments, num_samples=3, estimator=estimator)[0]

        @jax.jit
        @jax.vmap
        def gradients(key):
            names = ("stl", "reparam")
            return [jax.grad(loss)(params, jax.random.clone(key), name) for name in names]

        stl, reparam = gradients(jax.random.split(jax.random.key(0), 100))
    for field in INFERENCE:
        np.testing.assert_allclose(getattr(stl, field), 0, atol=1e-12)
        assert np.max(np.abs(getattr(reparam, field))) > 0.1
