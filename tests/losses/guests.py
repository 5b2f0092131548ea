"""Laws for distributions from outside: other libraries' and a user's own.

A guest is a function (mean [*batch, L], scale [L], conditioner's matrix [L, 2 L]) -> distribution
of that batch shape. Normals ignore the matrix. Each guest serves as the posterior of the
linear-Gaussian model, whose exact answers are known.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from elbo_lab import losses
from elbo_lab.losses import weights
from tests.losses import linear_gaussian, mean_gradients

B, D, L = 16, 3, 2
EXACT = linear_gaussian.make_params(D, L)
PARAMS = linear_gaussian.cast(EXACT, np.float32)
_rng = np.random.default_rng(5)
X = (
    _rng.normal(size=(B, L)) @ EXACT.w.T
    + EXACT.b
    + linear_gaussian.SIGMA * _rng.normal(size=(B, D))
).astype(np.float32)
LOG_PX = linear_gaussian.log_px(EXACT, np.float64(X))
# A linear conditioner's mask: the first dimension determines the second's shift and log scale.
MASK = np.array([[0, 1, 0, 1], [0, 0, 0, 0]], np.float32)
NO_MATRIX = np.zeros((L, 2 * L), np.float32)
# Estimators whose mean is the ELBO's gradient for all parameters.
UNBIASED = ("reparam", "stl", "dreg", "score", "score_loo", "vimco")


def conditioner(matrix, z):
    """Shift and log scale of each dimension, from the dimensions before it."""
    return jnp.split(z @ (matrix * MASK), 2, axis=-1)


def posterior_of(guest, params, x, matrix=NO_MATRIX):
    return guest(x @ params.a.T + params.c, jnp.exp(params.log_scale), matrix)


def problem_of(guest, prior, params, x, matrix=NO_MATRIX):
    """Posterior, prior (the guest's own if None) and log_likelihood, which uses JAX alone."""
    prior = guest(jnp.zeros(L), jnp.ones(L), NO_MATRIX) if prior is None else prior

    def log_likelihood(z):
        mean = z @ params.w.T + params.b
        squares = jnp.sum(((x - mean) / linear_gaussian.SIGMA) ** 2, axis=-1)
        return -0.5 * squares - D * np.log(linear_gaussian.SIGMA * np.sqrt(2 * np.pi))

    return posterior_of(guest, params, x, matrix), prior, log_likelihood


def check_gradients(guest, estimators=UNBIASED, draws=2_000):
    """Checks that the mean gradient of each estimator is exact, within four standard errors.

    Every second estimator is called by the vectorized convention.
    """
    x = X[0]

    def loss(params, key, name, vectorized):
        arguments = problem_of(guest, None, params, x)
        options = {"num_samples": 2, "estimator": name, "vectorized": vectorized}
        return losses.elbo(key, *arguments, **options)[0]

    @jax.jit
    def gradients(params, keys):
        def samples(i, name):
            slope = jax.grad(functools.partial(loss, name=name, vectorized=i % 2 == 1))
            return jax.vmap(slope, (None, 0))(params, keys[i])

        return {name: samples(i, name) for i, name in enumerate(estimators)}

    exact = linear_gaussian.elbo_gradient(EXACT, np.float64(x))
    keys = jax.random.split(jax.random.key(0), (len(estimators), draws))
    for name, by_parameter in gradients(PARAMS, keys).items():
        samples = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), by_parameter)
        assert mean_gradients.off_exact(samples._asdict(), exact) <= 4, name


def check_training(guest, optimum, prior=None, objective=losses.elbo, joint=False, **options):
    """Trains the posterior, and the model too if `joint`; checks that the ELBO reaches its optimum.

    The ELBO must rise by more than four standard errors, come within 0.02 nats of the optimum, and
    not exceed it.

    Args:
      guest: the posterior's family.
      optimum: the greatest ELBO, nats.
      prior: the guest's own if None.
      objective: the objective that is trained.
      joint: True to train the generation network too.
      **options: the objective's.
    """
    steps = 300
    start = PARAMS._replace(a=0 * PARAMS.a, c=0 * PARAMS.c, log_scale=0 * PARAMS.log_scale)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, steps))

    def problem(state):
        params, matrix = state
        if not joint:
            params = params._replace(w=PARAMS.w, b=PARAMS.b)
        return problem_of(guest, prior, params, X, matrix)

    def loss(state, key):
        return jnp.mean(objective(key, *problem(state), **options)[0])

    def step(carry, key):
        state, optimizer_state = carry
        updates, optimizer_state = optimizer.update(jax.grad(loss)(state, key), optimizer_state)
        return (optax.apply_updates(state, updates), optimizer_state), None

    def evaluate(state):
        log_w = losses.log_weights(jax.random.key(2), *problem(state), num_samples=1_000).log_w
        return jnp.mean(log_w, axis=1)  # [K]: means over examples

    @jax.jit
    def run(state, keys):
        trained = jax.lax.scan(step, (state, optimizer.init(state)), keys)[0][0]
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), state, trained)
        return jax.lax.map(evaluate, states)

    elbos = np.float64(run((start, NO_MATRIX), jax.random.split(jax.random.key(1), steps)))
    before, after = np.mean(elbos, axis=1)
    error_before, error_after = np.std(elbos, axis=1, ddof=1) / np.sqrt(elbos.shape[1])
    assert after - before > 4 * (error_before + error_after)
    assert optimum - 0.02 - 4 * error_after < after < optimum + 4 * error_after + 1e-4


# The objective by which each estimator trains a flow.
FLOW_OBJECTIVES = {"reparam": losses.elbo, "stl": losses.elbo, "dreg": losses.iwae}


def slow_but_last(*guests):
    """Test parameters of which only the last is in the fast suite."""
    return [*(pytest.param(guest, marks=pytest.mark.slow) for guest in guests[:-1]), guests[-1]]


def flow_cases(first, second, fast="dreg"):
    """Both flows with all estimators of FLOW_OBJECTIVES; all slow but (second, fast)."""
    cases = [(flow, estimator) for flow in (first, second) for estimator in FLOW_OBJECTIVES]
    return [
        pytest.param(*case, marks=[] if case == (second, fast) else pytest.mark.slow)
        for case in cases
    ]


def check_flow(guest, prior, estimator):
    """Checks that a flow reaches log p(x): the model's exact posterior is among these flows."""
    objective = FLOW_OBJECTIVES[estimator]
    options = {"objective": objective, "estimator": estimator, "num_samples": 4}
    check_training(guest, np.mean(LOG_PX), prior=prior, **options)


def greatest_likelihood():
    """The mean log p(x) of the best W and b for X, and so the greatest ELBO of diagonal normals.

    This is probabilistic PCA of known noise (Tipping and Bishop 1999). The best W may be rotated
    such that p(z|x) is a product.
    """
    x, variance = np.float64(X), linear_gaussian.SIGMA**2
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    w = vectors[:, -L:] * np.sqrt(np.maximum(values[-L:] - variance, 0))
    best = EXACT._replace(w=w, b=np.mean(x, axis=0))
    return np.mean(linear_gaussian.log_px(best, x))


def check_freezing(guest):
    """Checks that frozen log q has exactly zero gradient by q's parameters.

    This holds under jit, vmap, scan and checkpoint. Unfrozen log q depends on each parameter, and
    freezing keeps the derivative by z.
    """
    z = np.random.default_rng(0).normal(size=(4, B, L)).astype(np.float32)
    state = PARAMS, np.full((L, 2 * L), 0.1, np.float32)

    def log_q(state, z, freeze):
        function = posterior_of(guest, state[0], X, state[1]).log_prob
        return jnp.sum((weights.frozen(function) if freeze else function)(z))

    def transformed(state, z, freeze):
        def step(total, pair):
            return total + jnp.sum(jax.vmap(lambda z: log_q(state, z, freeze))(pair)), None

        return jax.lax.scan(jax.checkpoint(step), jnp.float32(0), z.reshape(2, 2, B, L))[0]

    compute = jax.jit(jax.value_and_grad(transformed, argnums=(0, 1)), static_argnums=2)
    value, (slope, by_z) = compute(state, z, False)
    frozen_value, (frozen_slope, frozen_by_z) = compute(state, z, True)
    np.testing.assert_allclose(frozen_value, value, rtol=1e-5)
    np.testing.assert_allclose(frozen_by_z, by_z, rtol=1e-5, atol=1e-5)
    for leaf in jax.tree.leaves(frozen_slope):
        np.testing.assert_array_equal(leaf, 0)
    moved = [slope[0].a, slope[0].c, slope[0].log_scale]
    assert all(np.all(np.abs(leaf) > 1e-4) for leaf in moved)


def check_batch_objectives(guest):
    """Checks objectives that need moments, factors and closed-form KLs, on the guest's normals.

    Terms without draws equal those of NumPyro's normals.
    """

    def terms(guest):
        arguments = problem_of(guest, None, PARAMS, X)
        names = "dip_vae_i", "dip_vae_ii", "free_bits", "beta_tcvae"
        results = {}
        for name in names:
            options = {"dataset_size": 50} if name == "beta_tcvae" else {}
            objective = losses.OBJECTIVES[name]
            results[name] = objective(jax.random.key(3), *arguments, num_samples=4, **options)[1]
        return results

    def numpyro_normal(mean, scale, matrix):
        del matrix
        return dist.Normal(mean, scale).to_event(1)

    aux, numpyro_aux = jax.jit(lambda: (terms(guest), terms(numpyro_normal)))()
    exact = [linear_gaussian.reconstruction_and_kl(EXACT, x)[1] for x in np.float64(X)]
    for name in ("dip_vae_i", "dip_vae_ii", "free_bits"):
        np.testing.assert_allclose(aux[name].kl, exact, rtol=1e-5)
    for name in ("dip_vae_i", "dip_vae_ii"):  # No draws enter these.
        np.testing.assert_allclose(aux[name].penalty, numpyro_aux[name].penalty, rtol=1e-5)
    assert np.all(np.isfinite(aux["beta_tcvae"].bound))
    assert aux["beta_tcvae"].bound.shape == (B,)


def check_closed_forms(*forms):
    """Checks KLs between any two classes of normals, summed and per dimension, against NumPy."""
    rng = np.random.default_rng(1)
    means = rng.normal(size=(2, B, L)).astype(np.float32)
    scales = rng.uniform(0.5, 2, size=(2, L)).astype(np.float32)
    (mean_q, mean_p), (scale_q, scale_p) = np.float64(means), np.float64(scales)
    ratio = (scale_q / scale_p) ** 2
    exact = 0.5 * (ratio + ((mean_q - mean_p) / scale_p) ** 2 - 1 - np.log(ratio))

    @jax.jit
    def divergences():
        values = []
        for q in forms:
            for p in forms:
                pair = q(means[0], scales[0], None), p(means[1], scales[1], None)
                values.append(
                    (losses.kl_divergence(*pair), losses.divergences.kl_per_dimension(*pair))
                )
        return values

    for summed, each in divergences():
        np.testing.assert_allclose(each, exact, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(summed, np.sum(exact, axis=-1), rtol=1e-5, atol=1e-6)
