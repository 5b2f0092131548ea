"""Forms that users write: nested bijectors, expanded and discrete laws, point masses, state."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import tensorflow_probability.substrates.jax as tfp
from numpyro.distributions.transforms import SigmoidTransform

from elbo_lab import losses

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, L, K = 2, 3, 4
MEAN = np.array([[30.0, -2.0, 0.5], [1.0, 25.0, -40.0]], np.float32)
X = np.array([0.5, -0.2], np.float32)
PRIOR = dist.Normal(0, 1).expand([L]).to_event(1)


def log_likelihood(z):
    return -0.5 * (X - jnp.sum(z, axis=-1)) ** 2


def block_of_a_chain(mean):
    base = distrax.MultivariateNormalDiag(jnp.zeros((B, L)), jnp.ones((B, L)))
    chain = distrax.Chain([distrax.Sigmoid(), distrax.ScalarAffine(mean, 2 * jnp.ones_like(mean))])
    return distrax.Transformed(base, distrax.Block(chain, 1))


def expanded_independent(mean):
    squashed = dist.TransformedDistribution(dist.Normal(mean[0], 2.0), SigmoidTransform())
    return dist.ExpandedDistribution(squashed.to_event(1), (B,))


@pytest.mark.parametrize("form", [block_of_a_chain, expanded_independent])
def test_squashed_draws_of_nested_forms(form):
    """Compared with float64. sigmoid(30) is 1 in float32, and its inverse there is infinite."""
    mean = MEAN if form is block_of_a_chain else np.broadcast_to(MEAN[0], MEAN.shape)

    def total(mean):
        loss, _ = losses.iwae(
            jax.random.key(0), form(mean), PRIOR, log_likelihood, num_samples=K, estimator="stl"
        )
        return jnp.sum(loss), loss

    # Both libraries draw a normal from the key as `jax.random.normal` does.
    y = np.float64(mean + 2 * np.float64(jax.random.normal(jax.random.key(0), (K, B, L))))
    (_, loss), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(MEAN))
    z = 1 / (1 + np.exp(-y))
    log_q = -0.5 * ((y - mean) / 2) ** 2 - np.log(2 * np.sqrt(2 * np.pi))
    log_q += np.logaddexp(0, -y) + np.logaddexp(0, y)  # - log dz / dy
    log_p = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    log_w = np.sum(log_p - log_q, axis=-1) - 0.5 * (X - np.sum(z, axis=-1)) ** 2
    expected = np.log(K) - np.logaddexp.reduce(log_w, axis=0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert np.all(np.isfinite(slope))


def test_a_users_posterior_of_integers_gets_integers():
    class Bits:
        batch_shape, event_shape = (B,), (L,)

        def sample(self, key, sample_shape=()):
            return dist.BernoulliProbs(0.5).sample(key, (*sample_shape, B, L))

        def log_prob(self, z):
            assert jnp.issubdtype(z.dtype, jnp.integer)
            return jnp.full(z.shape[:-1], -L * jnp.log(2.0))

    def likelihood(z):
        return log_likelihood(z.astype(jnp.float32))

    prior = dist.BernoulliProbs(jnp.full(L, 0.5)).to_event(1)
    arguments = Bits(), prior, likelihood
    draws = jax.jit(lambda key: losses.log_weights(key, *arguments, K))(jax.random.key(0))
    expected = -0.5 * (X - np.sum(np.asarray(draws.z), axis=-1)) ** 2
    np.testing.assert_allclose(draws.log_w, expected, atol=1e-5)


POINTS = {
    "numpyro": lambda mean: dist.Delta(mean, event_dim=1),
    "distrax": lambda mean: distrax.Independent(distrax.Deterministic(mean), 1),
    "tfp": tfp.distributions.VectorDeterministic,
}


@pytest.mark.parametrize("library", POINTS)
def test_point_masses_take_reparam_alone(library):
    """The draws are equal: reparam gives the point's derivative. dreg would give 1/K of it."""
    point = jnp.asarray(MEAN / 10)

    def total(mean, estimator):
        posterior = POINTS[library](mean)
        options = {"num_samples": K, "estimator": estimator}
        return jnp.sum(
            losses.iwae(jax.random.key(0), posterior, PRIOR, log_likelihood, **options)[0]
        )

    exact = MEAN / 10 - (X - np.sum(MEAN / 10, axis=-1))[:, None]
    with jax.numpy_rank_promotion("allow"):  # TFP promotes ranks.
        slope = jax.jit(jax.grad(lambda mean: total(mean, "reparam")))(point)
        np.testing.assert_allclose(slope, exact, rtol=1e-5)
        for estimator in ("dreg", "score", "wake"):
            with pytest.raises(ValueError, match="support does not depend"):
                jax.eval_shape(jax.grad(lambda mean, e=estimator: total(mean, e)), point)


@pytest.mark.slow
@pytest.mark.parametrize("vectorized", [False, True])
def test_a_decoder_of_flax_nnx_with_dropout(vectorized):
    """As `log_weights` documents: `nnx.merge(..., copy=True)` has the same masks at each call."""
    from flax import nnx

    class Decoder(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.dropout = nnx.Linear(L, 1, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, z):
            return self.linear(self.dropout(z))[..., 0]

    graphdef, state = nnx.split(Decoder(nnx.Rngs(0)))

    def likelihood(z):
        return -0.5 * (X - nnx.merge(graphdef, state, copy=True)(z)) ** 2

    def total(mean, estimator):
        posterior = dist.Normal(mean, 1).to_event(1)
        options = {"num_samples": K, "estimator": estimator, "vectorized": vectorized}
        return jnp.sum(losses.elbo(jax.random.key(0), posterior, PRIOR, likelihood, **options)[0])

    # For the ELBO dreg and stl are one formula; stl evaluates the decoder once.
    # NNX reuses its key, and this decoder promotes ranks.
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):
        slopes = [jax.grad(total)(jnp.asarray(MEAN / 10), name) for name in ("dreg", "stl")]
    np.testing.assert_allclose(*slopes, rtol=1e-5)
