"""Estimators that differentiate through the draws: reparam, stl, dreg and wake_dreg.

One gradient is compared term by term with the linear-Gaussian model's derivatives, in float64, with
the weights that `estimators.py` states; means of many with exact expectations of two draws by
quadrature. Keys are fixed, tolerances are four standard errors.
"""

import functools

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
# q away from the posterior: bounds and estimators that differ visibly.
LOOSE = linear_gaussian.make_params(seed=2)
LOOSE = LOOSE._replace(log_scale=LOOSE.log_scale + 0.2)
GENERATION, INFERENCE = ("w", "b"), ("a", "c", "log_scale")
COVARIANCE = linear_gaussian.SIGMA**2 * np.eye(3)
K, BETA = 4, 2.5
CUBO = functools.partial(bounds.cubo, power=2.0)


def bent(log_w, module=np):
    """A user's own smooth bound, and no mean of powers."""
    steep = module.log1p(module.mean(module.exp(log_w / 2 + 2), axis=0))
    return steep + module.mean(module.tanh(log_w), axis=0)


def power_mean(power):
    return functools.partial(numpy_bounds.power_mean, power=power)


def roulette_1(log_w):
    """SUMO of one term: L_1 + (L_2 - L_1), which draws beyond the second do not enter."""
    return numpy_bounds.log_mean_exp(log_w[:2])


# name: objective, options, the bound in NumPy for four draws (two groups of two).
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
    "tvo": (losses.tvo, {"partition": [0, 0.2, 0.7, 1]}, numpy_bounds.thermodynamic),
    "user": (losses.from_bound, {"bound": functools.partial(bent, module=jnp)}, bent),
    # Here v is zero for some draws, and the weights of wake_dreg are not.
    "sumo": (losses.from_bound, {"bound": functools.partial(bounds.sumo, num_terms=1)}, roulette_1),
    "vr_max": (losses.renyi, {"alpha": -np.inf}, numpy_bounds.greatest),
    "vr_min": (losses.renyi, {"alpha": np.inf}, lambda log_w: -numpy_bounds.greatest(-log_w)),
}
VANISHING = ("sumo", "vr_max", "vr_min")


# One gradient, term by term.


def weights_of(estimator, value, log_w):
    """Weights of the generation network's terms, of paths and of scores, [K] each."""
    v = numpy_bounds.gradient(value, log_w)
    w = softmax(log_w)
    paths, scores = {
        "reparam": (v, -v),
        "stl": (v, 0 * v),
        "dreg": (v - numpy_bounds.diagonal_hessian(value, log_w), 0 * v),
        "wake_dreg": (w - w**2, 0 * v),
    }[estimator]
    return v, paths, scores


def gradient_by_terms(params, x, noise, weights, beta=1.0):
    of_model, of_paths, of_scores = weights
    scale = np.exp(params.log_scale)
    z = params.a @ x + params.c + scale * noise
    residuals = (x - z @ params.w.T - params.b) / linear_gaussian.SIGMA**2  # [K, D]
    slopes, by_mean = linear_gaussian.log_weight_slopes(params, x, z)
    of_kl = slopes - residuals @ params.w  # d (log p(z) - log q(z)) / dz
    slopes, of_scores = slopes + (beta - 1) * of_kl, beta * of_scores
    c = of_paths @ slopes + of_scores @ by_mean
    return linear_gaussian.Params(
        w=np.einsum("k,kd,kl->dl", of_model, residuals, z),
        b=of_model @ residuals,
        a=np.outer(c, x),
        c=c,
        log_scale=of_paths @ (slopes * scale * noise) + of_scores @ (noise**2 - 1),
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
    # The weights of wake_dreg, and that stl's are v, do not depend on the bound.
    names = ("reparam", "dreg", *{"iwae": ("stl", "wake_dreg"), "beta_vae": ("stl",)}.get(name, ()))
    names = ("reparam", "wake_dreg") if name in VANISHING else names
    noise = np.random.default_rng(0).normal(size=(K, 2))

    def loss(params, estimator):
        posterior, prior, log_likelihood = linear_gaussian.distributions(params, X)
        mean, scale = posterior.base_dist.loc, posterior.base_dist.scale
        arguments = GivenNoise(mean, scale, noise), prior, log_likelihood
        given = {"num_samples": K} | options
        return objective(jax.random.key(0), *arguments, estimator=estimator, **given)[0]

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
        for one, other in zip(gradient, expected, strict=True):
            np.testing.assert_allclose(-one, other, rtol=0, atol=1e-8)


def test_path_weights_of_the_iwae_bound_are_squares_and_of_others_in_closed_form():
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


def off_reparam(found, name):
    """Distances from reparam's mean, by parameter."""
    gradients, expected = found[name], found["reparam"]
    return {leaf: standard_errors_off(gradients[leaf] - expected[leaf], 0) for leaf in expected}


SLOW = ("beta_vae", "ciwae", "renyi_-1", "tvo")


# MIWAE is a mean of independent IWAEs, and CUBO-2 is Renyi's bound of order -1. The slow ones are
# mixtures or neighbours of the others.
@pytest.mark.parametrize(
    "name",
    [
        *("iwae", "user"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("elbo", "renyi_0.5", "jackknife", *SLOW)
        ),
    ],
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
    found = many(objective_loss(objective, options, x), params, 20_000, names)
    assert off_exact(found["dreg"], exact) < 4
    if linear:
        assert off_exact(found["stl"], exact) < 4
    if name == "iwae":
        # The comparison has the power to tell: paths that weigh v, and not v - h, are biased.
        assert off_exact(found["stl"], exact) > 6


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
    assert np.max(np.abs(exact.c - bound.c)) > 0.01  # another direction than the bound's


def squares_on_everything(key, problem, bound, weigh):
    """A defect: the generation network weighs its terms by w^2 too."""
    z = losses.weights.sample(key, problem)
    draws = losses.weights.densities(problem, z, freeze_posterior=True)
    v = jax.lax.stop_gradient(estimators.derivative(bound, draws.log_w))
    return -jnp.sum(v**2 * draws.log_w, axis=0), draws


def test_dreg_has_reparams_mean_and_the_comparison_finds_defects():
    loss = objective_loss(losses.iwae, {"num_samples": K}, X)
    found = many(loss, LOOSE, 4_000, ("reparam", "dreg", "stl", squares_on_everything))
    dreg, stl, squares = (off_reparam(found, name) for name in [*found][1:])
    assert max(dreg.values()) < 4, dreg
    # Paths that weigh v, where they should v - h.
    assert stl["w"] == stl["b"] == 0 and max(stl[field] for field in INFERENCE) > 6
    assert max(squares[field] for field in GENERATION) > 6
    assert max(squares[field] for field in INFERENCE) < 4  # for which the squares are right


def test_dreg_has_less_variance_than_reparam():
    loss = objective_loss(losses.iwae, {"num_samples": 16}, X)
    found = many(loss, LOOSE, 4_000, ("reparam", "dreg"))
    for field in INFERENCE:
        variances = {name: np.sum(np.var(found[name][field], axis=0)) for name in found}
        assert variances["dreg"] < 0.5 * variances["reparam"], field


def test_bounds_that_see_a_part_of_log_q():
    # The estimators' own interface: log-weights with 2 log q in them, so that h counts twice.
    def weigh(log_px_z, log_pz, log_qz_x):
        return log_px_z + 2 * (log_pz - log_qz_x)

    def loss(params, key, estimator):
        problem = estimators.Problem(*linear_gaussian.distributions(params, float32(X)), K)
        return estimators.ESTIMATORS[estimator](key, problem, bounds.iwae, weigh)[0]

    found = many(loss, LOOSE, 4_000, ("reparam", "dreg", "stl"))
    dreg, stl = off_reparam(found, "dreg"), off_reparam(found, "stl")
    assert max(dreg.values()) < 4 and max(stl.values()) > 6


# Two stochastic layers, and no variance at the optimum.


def test_dreg_of_two_stochastic_layers():
    def loss(params, key, estimator):
        arguments = hierarchy.two_layers(params, float32(X))
        return losses.iwae(key, *arguments, num_samples=K, estimator=estimator)[0]

    found = many(loss, hierarchy.LAYERS, 4_000, ("reparam", "dreg", "stl"))
    dreg, stl = off_reparam(found, "dreg"), off_reparam(found, "stl")
    assert max(dreg.values()) < 4, dreg
    assert dreg["v"] == dreg["w"] == 0  # The generation network's are equal.
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
