"""Properties of every objective, whatever the model: shapes, terms, transformations, precision."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.distributions import bernoulli_log_prob
from elbo_lab.losses.divergences import gaussian_kl
from tests.losses import calls, hierarchy, linear_gaussian
from tests.losses.mean_gradients import GivenNoise

pytestmark = pytest.mark.usefixtures("fast_compilation")

K, B, D, L = 6, 4, 3, 2  # The batch does not divide the draws.
PARAMS = linear_gaussian.cast(linear_gaussian.make_params(D, L), np.float32)
X = np.random.default_rng(7).normal(size=(B, D)).astype(np.float32)

# Objectives whose KL is in closed form, by default or always.
CLOSED_FORM_KL = [
    "capacity_vae",
    "free_bits",
    "free_bits_batch",
    "dip_vae_i",
    "dip_vae_ii",
    "info_vae",
]
# Objectives that use their key for more than the draws of z.
MORE_RANDOMNESS = ["sumo", "rws", "wake_sleep"]
every_objective = pytest.mark.parametrize("name", losses.OBJECTIVES)


class OwnPosterior(GivenNoise):
    """A user's own posterior with a closed-form KL to the standard normal."""

    def kl_divergence(self, prior):
        return gaussian_kl(self.mean, self.scale)


def call(name, **options):
    return calls.call(name, jax.random.key(0), PARAMS, X, **options)


@functools.cache
def compiled(name, **options):
    return jax.jit(lambda: call(name, **options))()


def call_with_noise(name, params, x, noise, key):
    mean = linear_gaussian.affine(x, params.a, params.c)
    posterior = OwnPosterior(mean, jnp.exp(params.log_scale), noise)
    return calls.call(name, key, params, x, posterior=posterior)


assert_trees_close = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=2e-5)


@every_objective
def test_value_shapes_and_terms(name):
    loss, aux = compiled(name)
    assert loss.shape == aux.kl.shape == (B,)
    np.testing.assert_array_equal(loss, aux.bound if name == "cubo" else -aux.bound)
    assert isinstance(aux, losses.BatchAux if name in calls.NEEDS_BATCH else losses.Aux)
    for field in ("log_w", "log_px_z", "log_pz", "log_qz_x"):
        assert getattr(aux, field).shape == (K, B), field
    assert_trees_close(aux.log_w, aux.log_px_z + aux.log_pz - aux.log_qz_x)
    if name not in CLOSED_FORM_KL:
        assert_trees_close(aux.kl, jnp.mean(aux.log_qz_x - aux.log_pz, axis=0))


@every_objective
def test_the_learning_signal_is_the_value_that_q_follows(name):
    _, aux = compiled(name)
    if name in ("rws", "wake_sleep"):  # rws with a sleep phase
        assert aux.learning_signal is None
        return
    log_w, log_px_z = np.float64(aux.log_w), np.float64(aux.log_px_z)
    outer = log_w.reshape(2, K // 2, B)
    expected = {
        **dict.fromkeys([*CLOSED_FORM_KL, "beta_tcvae"], np.mean(log_px_z, axis=0)),
        "iwae_elbo": np.mean(log_w, axis=0),
        "piwae": np.mean(np.log(np.mean(np.exp(outer), axis=1)), axis=0),
    }
    assert_trees_close(aux.learning_signal, np.float32(expected.get(name, aux.bound)))


def test_each_example_has_its_own_closed_form_kl():
    _, aux = compiled("elbo", kl="analytic")
    params = linear_gaussian.cast(PARAMS, np.float64)
    exact = [linear_gaussian.reconstruction_and_kl(params, x)[1] for x in np.float64(X)]
    np.testing.assert_allclose(aux.kl, exact, rtol=1e-5)


def test_defect_3_the_estimate_has_the_sign_of_log_px_and_uses_all_draws():
    _, aux = compiled("iwae", num_samples=1_000)
    assert aux.log_w.shape == (1_000, B)
    exact = linear_gaussian.log_px(PARAMS, np.float64(X))
    # Relative standard error of the mean weight: below sqrt(1 / 1000).
    np.testing.assert_allclose(aux.bound, exact, atol=4 * 0.032)
    assert np.all(exact < -1)


def test_defect_4_each_draw_has_its_own_log_densities():
    loss, aux = compiled("iwae")
    assert all(len(np.unique(aux.log_qz_x[:, i] - aux.log_pz[:, i])) == K for i in range(B))
    log_w = np.asarray(aux.log_w, np.float64)
    np.testing.assert_allclose(loss, -np.log(np.mean(np.exp(log_w), axis=0)), rtol=1e-5)
    for name in ("iwae", "miwae"):
        with pytest.raises(TypeError, match="kl"):
            call(name, kl="analytic")


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("elbo", "iwae", "piwae") else pytest.param(name, marks=pytest.mark.slow)
        for name in losses.OBJECTIVES
        # free_bits needs a KL per dimension, which a user's own posterior does not give.
        if name not in [*calls.NEEDS_BATCH, *MORE_RANDOMNESS, "free_bits"]
    ],
)
def test_batched_equals_vmap_given_the_same_draws(name):
    noise = np.random.default_rng(0).normal(size=(K, B, L)).astype(np.float32)

    def batched(params):
        loss, aux = call_with_noise(name, params, X, noise, jax.random.key(0))
        return jnp.sum(loss), (loss, aux)

    def per_example(params):
        keys = jax.random.split(jax.random.key(0), B)
        loss, aux = jax.vmap(
            lambda x, noise, key: call_with_noise(name, params, x, noise, key), in_axes=(0, 1, 0)
        )(X, noise, keys)
        aux = losses.Aux(*(term.T for term in aux))  # [B, K] -> [K, B]
        return jnp.sum(loss), (loss, aux)

    results = [
        jax.jit(jax.value_and_grad(function, has_aux=True))(PARAMS)
        for function in (batched, per_example)
    ]
    assert_trees_close(*results)


@every_objective
def test_vectorized_changes_nothing(name):
    assert_trees_close(compiled(name, vectorized=True), compiled(name))


@pytest.mark.parametrize(
    "name",
    # Without jit each operation is compiled on its own: slow.
    [n if n == "iwae" else pytest.param(n, marks=pytest.mark.slow) for n in losses.OBJECTIVES],
)
def test_jit_changes_nothing(name):
    assert_trees_close(compiled(name), call(name))


def test_float64_log_weights_equal_numpy():
    with jax.enable_x64(True):
        params, x = linear_gaussian.make_params(D, L), np.float64(X[0])

        @jax.jit
        def compute(x):
            arguments = linear_gaussian.distributions(params, x)
            draws = losses.log_weights(jax.random.key(0), *arguments, num_samples=K)
            return draws, *losses.iwae(jax.random.key(0), *arguments, num_samples=K)

        draws, loss, aux = compute(x)
        assert loss.dtype == draws.log_w.dtype == jnp.float64
        log_w = linear_gaussian.log_weight(params, x, np.asarray(draws.z))
        np.testing.assert_allclose(draws.log_w, log_w, rtol=1e-12)
        np.testing.assert_allclose(aux.log_w, log_w, rtol=1e-12)
        np.testing.assert_allclose(loss, -np.log(np.mean(np.exp(log_w))), rtol=1e-12)


def normal_log_prob(z, mean, scale):
    return np.sum(-0.5 * ((z - mean) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi)), axis=-1)


@pytest.mark.parametrize("vectorized", [False, True])
def test_two_layers_of_latents(vectorized):
    params = jax.tree.map(np.float32, hierarchy.LAYERS)

    def iwae(params):
        arguments = hierarchy.two_layers(params, X)
        draws = losses.log_weights(jax.random.key(1), *arguments, K, vectorized)
        options = {"num_samples": K, "vectorized": vectorized}
        return jnp.sum(losses.iwae(jax.random.key(1), *arguments, **options)[0]), draws

    (loss, draws), gradient = jax.jit(jax.value_and_grad(iwae, has_aux=True))(params)
    z_1, z_2 = (np.asarray(z, np.float64) for z in draws.z)
    assert z_1.shape == (K, B, 3) and z_2.shape == (K, B, 2)
    q_1 = normal_log_prob(z_1, X @ params["a"], 0.6)
    q_2 = normal_log_prob(z_2, z_1 @ params["b"], np.exp(params["s"]))
    p = normal_log_prob(z_2, 0, 1) + normal_log_prob(z_1, z_2 @ params["v"], 0.9)
    log_w = normal_log_prob(X, z_1 @ params["w"], 0.8) + p - q_1 - q_2
    np.testing.assert_allclose(draws.log_w, log_w, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(loss, -np.sum(np.log(np.mean(np.exp(log_w), axis=0))), rtol=2e-5)
    assert all(jnp.all(jnp.abs(leaf) > 1e-6) for leaf in gradient.values())


def test_defect_6_saturated_logits_stay_finite_in_iwae():
    data = jnp.array([[0.0, 1.0, 1.0, 0.0]])
    logits = jnp.array([100.0, -100.0, 100.0, -100.0])
    prior = dist.Normal(jnp.zeros(4), 1.0).to_event(1)

    def loss(logits):
        posterior = dist.Normal(jnp.zeros((1, 4)), 0.1).to_event(1)
        arguments = posterior, prior, lambda z: bernoulli_log_prob(logits[None] + z, data)
        return losses.iwae(jax.random.key(0), *arguments, num_samples=K)[0][0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    # Two wrong pixels of 100 nats; log p(z) - log q(z) and z itself add a few nats.
    assert abs(value - 200) < 20
    np.testing.assert_allclose(gradient, [1, -1, 0, 0], atol=1e-5)


def test_defect_7_log_likelihood_and_kl_are_both_sums():
    size = 784

    def elbo(x):
        q = dist.Normal(jnp.full((B, 50), 0.5), 1.0).to_event(1)
        p = dist.Normal(jnp.zeros(50), 1.0).to_event(1)
        arguments = q, p, lambda z: bernoulli_log_prob(jnp.zeros((B, size)), x)
        return losses.elbo(jax.random.key(0), *arguments, kl="analytic")

    loss, _ = jax.jit(elbo)(jnp.ones((B, size)))
    np.testing.assert_allclose(loss, size * np.log(2) + 50 * 0.5**2 / 2, rtol=1e-5)


class SeedNamed:
    """A posterior whose sampler calls the key `seed`, as Distrax's and TFP's do."""

    def __init__(self, mean):
        self.inner = dist.Normal(mean, jnp.ones(L)).to_event(1)
        self.log_prob = self.inner.log_prob

    def sample(self, *, seed, sample_shape=()):
        return self.inner.sample(seed, sample_shape)


def test_posteriors_whose_key_is_called_seed():
    prior = dist.Normal(jnp.zeros(L), 1.0).to_event(1)
    mean = jnp.linspace(-1, 1, B * L).reshape(B, L)

    def loss(posterior):
        key = jax.random.key(3)
        return losses.iwae(key, posterior, prior, lambda z: -jnp.sum(z**2, -1), num_samples=K)[0]

    named = SeedNamed(mean)
    np.testing.assert_array_equal(loss(named), loss(named.inner))
