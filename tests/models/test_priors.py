"""Priors that are mixtures or flows, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from elbo_lab import losses
from elbo_lab.data import Batch, Spec
from elbo_lab.models import mlp
from elbo_lab.models.base import NOTHING_GIVEN

pytestmark = pytest.mark.usefixtures("fast_compilation")

L, M, DRAWS = 2, 3, 4000
SPEC = Spec("image", (6,), 2)
SIZES = {"latent_dims": (L,), "hidden_dims": (5,), "prior_components": M}
Z = np.random.default_rng(2).normal(size=(4, 5, L)).astype(np.float32)


def images(number: int) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(1).integers(0, 2, (number, 6)), jnp.float32)


def mixture_log_prob(z, weights, means, scales):
    """log sum_m w_m N(z; m_m, diag s_m^2), float64."""
    by_component = stats.norm.logpdf(np.float64(z)[..., None, :], means, scales).sum(axis=-1)
    return special.logsumexp(by_component + np.log(weights), axis=-1)


def assert_moments(draws, weights, means, scales):
    """The draws' mean is that of the mixture, within four standard errors."""
    mean = weights @ means
    variance = weights @ (scales**2 + means**2) - mean**2
    assert np.all(np.abs(np.mean(draws, axis=0) - mean) <= 4 * np.sqrt(variance / len(draws)))


def test_a_learned_mixture_has_the_density_and_draws_of_numpy():
    model = mlp.make(mlp.MLPOptions(**SIZES, prior="mixture"), SPEC)
    rng = np.random.default_rng(3)
    logits, means = rng.normal(size=M), 2 * rng.normal(size=(M, L))
    scales = rng.uniform(0.3, 1.5, size=(M, L))
    parts = {"logits": logits, "means": means, "log_scales": np.log(scales)}

    @jax.jit
    def compute(key, x, parts):
        keys = jax.random.split(key)
        start = model.init(keys[0], Batch(x))
        prior = model.prior(start | {"prior": parts}, NOTHING_GIVEN)
        assert prior.batch_shape == () and prior.event_shape == (L,)
        return start["prior"], prior.log_prob(Z), prior.sample(keys[1], (DRAWS,))

    parts = jax.tree.map(jnp.float32, parts)
    start, log_pz, draws = compute(jax.random.key(0), images(10), parts)
    weights = special.softmax(logits)
    np.testing.assert_allclose(log_pz, mixture_log_prob(Z, weights, means, scales), rtol=1e-5)
    assert_moments(draws, weights, means, scales)
    # The start has the variance of N(0, I): 1/4 by the means, 3/4 within the components.
    np.testing.assert_allclose(np.exp(2 * start["log_scales"]), 0.75, rtol=1e-6)
    assert start["means"].shape == (M, L) and not np.any(start["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "real"])
def test_a_vamp_prior_is_the_mixture_of_the_posteriors_of_its_inputs(kind):
    spec = SPEC if kind == "image" else Spec("real", (6,), None)
    likelihood = "bernoulli" if kind == "image" else "gaussian"
    model = mlp.make(mlp.MLPOptions(**SIZES, prior="vamp", likelihood=likelihood), spec)
    x = images(2)  # fewer examples than components

    @jax.jit
    def compute(key, x):
        keys = jax.random.split(key)
        params = model.init(keys[0], Batch(x))
        inputs = params["prior"]["pseudo_inputs"]
        u = 1 / (1 + jnp.exp(-inputs)) if kind == "image" else inputs
        q = model.posterior(params, u, NOTHING_GIVEN)
        moments = q.mean, jnp.sqrt(q.variance)

        def log_prob(params):
            return model.prior(params, NOTHING_GIVEN).log_prob(Z)

        gradient = jax.grad(lambda params: jnp.sum(log_prob(params)))(params)
        draws = model.prior(params, NOTHING_GIVEN).sample(keys[1], (DRAWS,))
        return u, moments, log_prob(params), draws, gradient

    u, moments, log_pz, draws, gradient = compute(jax.random.key(0), x)
    means, scales = (np.asarray(moment, np.float64) for moment in moments)
    weights = np.full(M, 1 / M)
    np.testing.assert_allclose(log_pz, mixture_log_prob(Z, weights, means, scales), rtol=1e-5)
    assert_moments(draws, weights, means, scales)
    # Inputs start near training examples, and no two of them are equal.
    nearest = np.min(np.abs(u[:, None] - x).max(axis=-1), axis=1)
    assert np.all(nearest < (0.1 if kind == "image" else 0.5))
    assert len(np.unique(u, axis=0)) == M and (kind == "real" or np.all((u > 0) & (u < 1)))
    # Both the inputs and the inference network learn by p(z).
    for part in ("prior", "encoder"):
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient[part]))


def test_a_mixture_is_the_prior_of_the_highest_layer():
    options = mlp.MLPOptions(
        **SIZES | {"latent_dims": (4, L)}, upper_hidden_dims=(3,), prior="mixture", posterior="full"
    )
    model = mlp.make(options, SPEC)

    def shapes(key, x):
        keys = jax.random.split(key)
        params = model.init(keys[0], Batch(x))
        z = model.posterior(params, x, NOTHING_GIVEN).sample(keys[1], (7,))
        return params["prior"], z, model.prior(params, NOTHING_GIVEN).log_prob(z)

    prior, z, log_pz = jax.eval_shape(shapes, jax.random.key(0), images(6))
    assert sorted(prior) == ["layer_1", "log_scales", "logits", "means"]
    assert [layer.shape for layer in z] == [(7, 6, 4), (7, 6, L)] and log_pz.shape == (7, 6)


def test_a_vamp_prior_of_two_layers_is_refused():
    options = mlp.MLPOptions(latent_dims=(4, 3), prior="vamp")
    with pytest.raises(ValueError, match="prior=vamp mixes .* got latent_dims=4,3"):
        mlp.make(options, SPEC)


def numpy_maf(params, depth, z):
    """log p(z) of a masked autoregressive flow of one hidden layer of two latents, float64: each
    step is y_i = exp(a_i) z_i + m_i with a_1, m_1 constant and a_2, m_2 functions of z_1.
    """
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    log_det = 0.0
    for i in reversed(range(depth)):
        step = params[f"step_{i + 1}"]
        # The second half of the units sees the first value, the other half none.
        sees_first = np.arange(len(step["hidden_0_bias"])) >= len(step["hidden_0_bias"]) / 2
        of_first = z[..., :1] * step["hidden_0_kernel"][0] * sees_first
        hidden = np.tanh(of_first + step["hidden_0_bias"])
        m, raw = (
            np.stack(
                [
                    (hidden * ~sees_first) @ kernel[:, 0] + bias[0],
                    hidden @ kernel[:, 1] + bias[1],
                ],
                axis=-1,
            )
            for kernel, bias in (
                (step[f"output_{n}_kernel"], step[f"output_{n}_bias"]) for n in range(2)
            )
        )
        a = 3 * np.tanh(raw / 3)
        z, log_det = np.exp(a) * z + m, log_det + a.sum(axis=-1)
        z = z[..., ::-1] if i else z
    return stats.norm.logpdf(z).sum(axis=-1) + log_det


@pytest.mark.slow
def test_the_elbo_with_a_flow_prior_is_that_of_quadrature():
    """L = 2, q(z|x) and p(x|z) Gaussian, p(z) a masked autoregressive flow."""
    number, depth, variance = 20_000, 2, 0.5
    sizes = {"latent_dims": (L,), "hidden_dims": (3,), "prior_width": (6,), "prior_depth": depth}
    law = {"likelihood": "gaussian_fixed", "likelihood_variance": variance}
    model = mlp.make(mlp.MLPOptions(**sizes, **law, prior="flow"), Spec("real", (3,), None))
    x = np.random.default_rng(4).normal(size=(1, 3))
    rng = np.random.default_rng(5)

    @jax.jit
    def start(key, x):
        return model.init(key, Batch(x))

    params = start(jax.random.key(0), jnp.float32(x))
    params = jax.tree.map(lambda leaf: jnp.float32(0.6 * rng.normal(size=leaf.shape)), params)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = np.outer(weights, weights) / (2 * np.pi)

    @jax.jit
    def compute(key, params, x, nodes):
        q = model.posterior(params, x, NOTHING_GIVEN)
        z = q.mean + jnp.sqrt(q.variance) * nodes  # [40, 40, 1, L]
        decoded = model.likelihood(params, z, NOTHING_GIVEN).mean
        loss, aux = losses.elbo(
            key,
            q,
            model.prior(params, NOTHING_GIVEN),
            lambda z: model.likelihood(params, z, NOTHING_GIVEN).log_prob(x),
            num_samples=number,
            vectorized=True,
        )
        return q.mean, jnp.sqrt(q.variance), z, decoded, loss, aux.log_w

    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1)[:, :, None]
    outputs = compute(jax.random.key(1), params, jnp.float32(x), jnp.float32(grid))
    mean, scale, z, decoded, loss, log_w = (np.asarray(output, np.float64) for output in outputs)
    log_px_z = stats.norm.logpdf(x, decoded, np.sqrt(variance)).sum(axis=-1)
    log_pz = numpy_maf(params["prior"]["flow"], depth, z)
    entropy = np.sum(np.log(scale) + 0.5 * np.log(2 * np.pi * np.e))
    expected = np.sum(weights * (log_px_z + log_pz)[..., 0]) + entropy
    assert np.abs(-loss[0] - expected) <= 4 * log_w.std() / np.sqrt(number)
