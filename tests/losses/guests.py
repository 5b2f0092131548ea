"""Laws for distributions that come from outside: other libraries' and a user's own.

A guest is a function of mean [*batch, L], scale [L] and a conditioner's matrix [L, 2 L], to a
distribution of that batch shape; normals leave the matrix out of account. All of them stand for
the posterior of the linear-Gaussian model, whose answers are known.
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
from tests.losses import linear_gaussian

B, D, L = 16, 3, 2
EXACT = linear_gaussian.make_params(D, L)
PARAMS = linear_gaussian.Params(*(np.asarray(leaf, np.float32) for leaf in EXACT))
_rng = np.random.default_rng(5)
X = (
    _rng.normal(size=(B, L)) @ EXACT.w.T
    + EXACT.b
    + linear_gaussian.SIGMA * _rng.normal(size=(B, D))
).astype(np.float32)
LOG_PX = linear_gaussian.log_px(EXACT, np.float64(X))
# A linear conditioner's mask: the first dimension moves the second's shift and log scale.
MASK = np.array([[0, 1, 0, 1], [0, 0, 0, 0]], np.float32)
NO_MATRIX = np.zeros((L, 2 * L), np.float32)
# Estimators whose mean is the ELBO's gradient for all parameters.
UNBIASED = ("reparam", "stl", "dreg", "score", "score_loo", "vimco")


def conditioner(matrix, z):
    """Shift and log scale of each dimension, from those before it alone."""
    return jnp.split(z @ (matrix * MASK), 2, axis=-1)


def posterior_of(guest, params, x, matrix=NO_MATRIX):
    return guest(x @ params.a.T + params.c, jnp.exp(params.log_scale), matrix)


def problem_of(guest, prior, params, x, matrix=NO_MATRIX):
    """Posterior, prior and log_likelihood; the likelihood by JAX alone."""
    prior = guest(jnp.zeros(L), jnp.ones(L), NO_MATRIX) if prior is None else prior

    def log_likelihood(z):
        mean = z @ params.w.T + params.b
        squares = jnp.sum(((x - mean) / linear_gaussian.SIGMA) ** 2, axis=-1)
        return -0.5 * squares - D * np.log(linear_gaussian.SIGMA * np.sqrt(2 * np.pi))

    return posterior_of(guest, params, x, matrix), prior, log_likelihood


def check_gradients(guest, estimators=UNBIASED, draws=2_000):
    """The mean gradient of estimators is the exact one, within four standard errors; every second
    one by the vectorized convention.
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
        for field, samples, expected in zip(exact._fields, by_parameter, exact, strict=True):
            samples = np.asarray(samples, np.float64)
            error = np.std(samples, axis=0, ddof=1) / np.sqrt(draws)
            distance = np.abs(np.mean(samples, axis=0) + expected)  # The loss is minus the ELBO.
            assert np.all(distance <= 4 * error + 1e-5), (name, field)


def check_training(
    guest,
    optimum,
    prior=None,
    objective=losses.elbo,
    joint=False,
    steps=300,
    rate=0.03,
    slack=0.02,
    **options,
):
    """Trains the posterior, the model too if `joint`. The ELBO afterwards exceeds that before by
    more than four standard errors, and comes within `slack` nats of the optimum, which it does not
    exceed.
    """
    start = PARAMS._replace(a=0 * PARAMS.a, c=0 * PARAMS.c, log_scale=0 * PARAMS.log_scale)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def problem(state):
        params, matrix = state
        if not joint:
            params = params._replace(w=PARAMS.w, b=PARAMS.b)
        return problem_of(guest, prior, params, X, matrix)

    def loss(state, key):
        return jnp.mean(objective(key, *problem(state), **options)[0])

    def step(carry, key):
        state, memory = carry
        updates, memory = optimizer.update(jax.grad(loss)(state, key), memory)
        return (optax.apply_updates(state, updates), memory), None

    def evaluate(state):
        log_w = losses.log_weights(jax.random.key(2), *problem(state), num_samples=1_000).log_w
        return jnp.mean(log_w, axis=1)  # [K], each a mean over examples

    @jax.jit
    def run(state, keys):
        trained = jax.lax.scan(step, (state, optimizer.init(state)), keys)[0][0]
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), state, trained)
        return jax.lax.map(evaluate, both)

    elbos = np.float64(run((start, NO_MATRIX), jax.random.split(jax.random.key(1), steps)))
    (before, after), errors = np.mean(elbos, 1), np.std(elbos, 1, ddof=1) / np.sqrt(len(elbos[0]))
    assert after - before > 4 * (errors[0] + errors[1])
    assert optimum - slack - 4 * errors[1] < after < optimum + 4 * errors[1] + 1e-4


# The objective that each estimator trains a flow by.
FLOW_OBJECTIVES = {"reparam": losses.elbo, "stl": losses.elbo, "dreg": losses.iwae}


def slow_but_last(*guests):
    return [*(pytest.param(guest, marks=pytest.mark.slow) for guest in guests[:-1]), guests[-1]]


def flow_cases(one, other, fast="dreg"):
    """Both flows with the estimators above; one pair in the fast suite, the others in the slow."""
    fast = [(other, fast)]
    every = [(flow, estimator) for flow in (one, other) for estimator in FLOW_OBJECTIVES]
    return [pytest.param(*case, marks=[] if case in fast else pytest.mark.slow) for case in every]


def check_flow(guest, prior, estimator):
    """The posterior of the linear-Gaussian model is among these flows: they reach log p(x)."""
    objective = FLOW_OBJECTIVES[estimator]
    options = {"objective": objective, "estimator": estimator, "num_samples": 4}
    check_training(guest, np.mean(LOG_PX), prior=prior, **options)


def greatest_likelihood():
    """The mean log p(x) of the best W and b for X: probabilistic PCA of given noise (Tipping and
    Bishop 1999). The best W may be rotated such that p(z|x) is a product, so that the best ELBO of
    normals is as great.
    """
    x, variance = np.float64(X), linear_gaussian.SIGMA**2
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    w = vectors[:, -L:] * np.sqrt(np.maximum(values[-L:] - variance, 0))
    best = EXACT._replace(w=w, b=np.mean(x, axis=0))
    return np.mean(linear_gaussian.log_px(best, x))


def check_freezing(guest):
    """log q with q held fixed has no gradient by any parameter: exactly zero, under jit, vmap, scan
    and checkpoint, though it depends on each and keeps its derivative by z.
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

    both = jax.jit(jax.value_and_grad(transformed, argnums=(0, 1)), static_argnums=2)
    value, (slope, by_z) = both(state, z, False)
    frozen_value, (zero, frozen_by_z) = both(state, z, True)
    np.testing.assert_allclose(frozen_value, value, rtol=1e-5)
    np.testing.assert_allclose(frozen_by_z, by_z, rtol=1e-5, atol=1e-5)
    for leaf in jax.tree.leaves(zero):
        np.testing.assert_array_equal(leaf, 0)
    moved = [slope[0].a, slope[0].c, slope[0].log_scale]
    assert all(np.all(np.abs(leaf) > 1e-4) for leaf in moved)


def check_batch_objectives(guest):
    """Objectives that want moments, factors and closed-form KLs give, for the guest's normals, what
    they give for NumPyro's, but for the draws.
    """

    def terms(guest):
        arguments = problem_of(guest, None, PARAMS, X)
        options = {"num_samples": 4}
        key = functools.partial(jax.random.key, 3)
        return {
            "dip_vae_i": losses.dip_vae_i(key(), *arguments, **options)[1],
            "dip_vae_ii": losses.dip_vae_ii(key(), *arguments, **options)[1],
            "free_bits": losses.free_bits(key(), *arguments, **options)[1],
            "beta_tcvae": losses.beta_tcvae(key(), *arguments, dataset_size=50, **options)[1],
        }

    def host(mean, scale, matrix):
        del matrix
        return dist.Normal(mean, scale).to_event(1)

    theirs, ours = jax.jit(lambda: (terms(guest), terms(host)))()
    for name in ("dip_vae_i", "dip_vae_ii", "free_bits"):
        np.testing.assert_allclose(theirs[name].kl, ours[name].kl, rtol=1e-5)
    for name in ("dip_vae_i", "dip_vae_ii"):  # No draws enter these.
        np.testing.assert_allclose(theirs[name].penalty, ours[name].penalty, rtol=1e-5)
    exact = [
        linear_gaussian.reconstruction_and_kl(EXACT, x)[1] for x in np.float64(X)
    ]  # Closed form, shares no code with the library.
    np.testing.assert_allclose(theirs["free_bits"].kl, exact, rtol=1e-5)
    assert np.all(np.isfinite(theirs["beta_tcvae"].bound))
    assert theirs["beta_tcvae"].bound.shape == (B,)


def check_closed_forms(*forms):
    """KL between any two ways of writing normals, in all and per dimension, against NumPy."""
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
