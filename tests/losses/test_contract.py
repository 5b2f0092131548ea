"""What every objective promises its caller, whatever the model: shapes, keys, transformations,
errors.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.distributions import Chain, bernoulli_log_prob
from elbo_lab.losses.divergences import gaussian_kl
from tests.losses import calls, linear_gaussian

pytestmark = pytest.mark.usefixtures("fast_compilation")

K, B, D, L = 6, 4, 3, 2  # The batch does not divide the draws.
PARAMS = linear_gaussian.Params(
    *(np.asarray(leaf, np.float32) for leaf in linear_gaussian.make_params(D, L))
)
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
# Objectives whose keys make more than the draws of z.
MORE_RANDOMNESS = ["sumo", "rws", "wake_sleep"]
every_objective = pytest.mark.parametrize("name", losses.OBJECTIVES)


class GivenNoise:
    """A user's own posterior, of no library: N(mean, scale^2) whose noise is given."""

    def __init__(self, mean, scale, noise):
        self.mean, self.scale, self.noise = mean, jnp.broadcast_to(scale, mean.shape), noise

    def sample(self, key, sample_shape=()):
        assert self.noise.shape == (*sample_shape, *self.mean.shape)
        mean, scale = (jnp.broadcast_to(p, self.noise.shape) for p in (self.mean, self.scale))
        return mean + scale * self.noise

    def log_prob(self, z):
        mean, scale = (jnp.broadcast_to(p, z.shape) for p in (self.mean, self.scale))
        squares = ((z - mean) / scale) ** 2
        return jnp.sum(-0.5 * (squares + jnp.log(2 * jnp.pi)) - jnp.log(scale), axis=-1)

    def kl_divergence(self, prior):
        return gaussian_kl(self.mean, self.scale)


def call(name, **options):
    return calls.call(name, jax.random.key(0), PARAMS, X, **options)


@functools.cache
def compiled(name, **options):
    return jax.jit(lambda: call(name, **options))()


def call_with_noise(name, params, x, noise, key):
    posterior = GivenNoise(
        linear_gaussian.affine(x, params.a, params.c), jnp.exp(params.log_scale), noise
    )
    return calls.call(name, key, params, x, posterior=posterior)


def assert_trees_close(one, other, **tolerance):
    tolerance = tolerance or {"rtol": 2e-5, "atol": 2e-5}
    chex.assert_trees_all_close(one, other, **tolerance)


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


def test_no_reduction_over_the_batch_and_one_value_of_kl_each():
    _, aux = compiled("elbo", kl="analytic")
    exact = [
        linear_gaussian.reconstruction_and_kl(
            linear_gaussian.Params(*map(np.float64, PARAMS)), np.float64(x)
        )[1]
        for x in X
    ]
    np.testing.assert_allclose(aux.kl, exact, rtol=1e-5)


def test_defect_3_the_estimate_has_log_pxs_sign_and_all_its_draws():
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
        # free_bits needs a KL per dimension, which this posterior of the user's own has not.
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
    # Operation by operation, each is compiled on its own.
    [n if n == "iwae" else pytest.param(n, marks=pytest.mark.slow) for n in losses.OBJECTIVES],
)
def test_jit_changes_nothing(name):
    assert_trees_close(compiled(name), call(name))


def test_gradient_through_scan_and_checkpoint():
    def step(params, key):
        arguments = linear_gaussian.distributions(params, X)
        return jnp.mean(losses.iwae(key, *arguments, num_samples=K)[0])

    def scanned(params, keys):
        return jax.lax.scan(
            lambda total, key: (total + jax.checkpoint(step)(params, key), None), 0.0, keys
        )[0]

    def looped(params, keys):
        return sum(step(params, keys[i]) for i in range(3))

    results = [
        jax.jit(jax.value_and_grad(function))(PARAMS, jax.random.split(jax.random.key(2), 3))
        for function in (scanned, looped)
    ]
    assert_trees_close(*results)


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


def two_layers(params, x):
    """z = (z_1, z_2) of three and two dimensions."""

    def normal(mean, scale):
        return dist.Normal(mean, scale * jnp.ones(mean.shape)).to_event(1)

    posterior = Chain(normal(x @ params["a"], 0.5), [lambda z: normal(z @ params["b"], 0.7)])
    prior = Chain(
        normal(jnp.zeros(2), 1.0), [lambda z: normal(z @ params["v"], 0.9)], downwards=True
    )
    return posterior, prior, lambda z: normal(z[0] @ params["w"], 0.6).log_prob(x)


@pytest.mark.parametrize("vectorized", [False, True])
def test_two_layers_of_latents(vectorized):
    rng = np.random.default_rng(3)
    shapes = {"a": (D, 3), "b": (3, 2), "v": (2, 3), "w": (3, D)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    def iwae(params):
        arguments = two_layers(params, X)
        options = {"num_samples": K, "vectorized": vectorized}
        return jnp.sum(losses.iwae(jax.random.key(1), *arguments, **options)[0])

    def draw():
        return losses.log_weights(jax.random.key(1), *two_layers(params, X), K, vectorized)

    draws = jax.jit(draw)()
    z_1, z_2 = (np.asarray(z, np.float64) for z in draws.z)
    assert z_1.shape == (K, B, 3) and z_2.shape == (K, B, 2)
    q = normal_log_prob(z_1, X @ params["a"], 0.5) + normal_log_prob(z_2, z_1 @ params["b"], 0.7)
    p = normal_log_prob(z_2, 0, 1) + normal_log_prob(z_1, z_2 @ params["v"], 0.9)
    log_w = normal_log_prob(X, z_1 @ params["w"], 0.6) + p - q
    np.testing.assert_allclose(draws.log_w, log_w, rtol=2e-5, atol=2e-5)
    loss, gradient = jax.jit(jax.value_and_grad(iwae))(params)
    np.testing.assert_allclose(loss, -np.sum(np.log(np.mean(np.exp(log_w), axis=0))), rtol=2e-5)
    assert all(jnp.all(jnp.abs(leaf) > 1e-6) for leaf in gradient.values())


def test_keys_are_consumed_once():
    iwae = jax.jit(lambda key: losses.iwae(key, *linear_gaussian.distributions(PARAMS, X))[0])
    key = jax.random.key(0)
    iwae(key)
    with pytest.raises(jax.errors.KeyReuseError):
        iwae(key)


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


# Errors.


def raises(
    match, name="iwae", key=None, posterior=None, prior=None, log_likelihood=None, **options
):
    """Traced and not run: that is where arguments are checked."""

    given = {"posterior": posterior, "prior": prior, "log_likelihood": log_likelihood}
    given = {name: value for name, value in given.items() if value is not None}
    key = jax.random.key(0) if key is None else key

    def trace():
        return calls.call(name, key, PARAMS, X, **given, **options)

    with pytest.raises(ValueError, match=match):
        jax.eval_shape(trace)


@every_objective
@pytest.mark.parametrize("num_samples", [0, -1, 2.5, 2.0, True, "5", None])
def test_num_samples_is_a_positive_integer(name, num_samples):
    raises(f"num_samples .*got {num_samples!r}", name, num_samples=num_samples)


@pytest.mark.parametrize("num_outer", [0, -2, 1.0, True])
def test_num_outer_is_a_positive_integer(num_outer):
    raises(f"num_outer .*got {num_outer!r}", "miwae", num_outer=num_outer)


@pytest.mark.parametrize("name", ["elbo", "beta_vae"])
def test_unknown_kl_and_no_closed_form(name):
    raises("kl must be one of mc, analytic; got 'exact'", name, kl="exact")
    prior = dist.Laplace(jnp.zeros(L), jnp.ones(L)).to_event(1)
    raises('No closed-form KL.*kl="mc"', name, prior=prior, kl="analytic")


class HardDraws(GivenNoise):
    """Floating-point draws that carry no derivative, and say so."""

    has_rsample = False


NOT_REPARAMETERIZABLE = {
    "BernoulliProbs": (dist.BernoulliProbs(jnp.full(B, 0.5)), dist.BernoulliProbs(0.5)),
    "CategoricalProbs": (
        dist.CategoricalProbs(jnp.full((B, 3), 1 / 3)),
        dist.CategoricalProbs(jnp.full(3, 1 / 3)),
    ),
    "Independent": (
        dist.BernoulliLogits(jnp.zeros((B, L))).to_event(1),
        dist.BernoulliLogits(jnp.zeros(L)).to_event(1),
    ),
    "HardDraws": (
        HardDraws(jnp.zeros((B, L)), jnp.ones(L), jnp.zeros((K, B, L))),
        dist.Normal(jnp.zeros(L), 1.0).to_event(1),
    ),
}


@pytest.mark.parametrize("kind", NOT_REPARAMETERIZABLE)
def test_draws_without_a_derivative_are_refused(kind):
    posterior, prior = NOT_REPARAMETERIZABLE[kind]
    raises(
        f"reparam.*{kind}",
        posterior=posterior,
        prior=prior,
        log_likelihood=lambda z: jnp.zeros(B),
        num_samples=K,
        estimator="reparam",
    )


class SeedNamed:
    """Samples as Distrax and TFP on JAX do: the key is called seed."""

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


def test_a_closed_form_kl_that_is_not_summed_is_refused():
    class Mine(SeedNamed):
        def kl_divergence(self, prior):
            return jnp.zeros((B, L))

    prior = dist.Normal(jnp.zeros(L), 1.0).to_event(1)
    with pytest.raises(ValueError, match="closed-form KL must have one value per example"):
        losses.elbo(
            jax.random.key(0),
            Mine(jnp.zeros((B, L))),
            prior,
            lambda z: -jnp.sum(z**2, -1),
            kl="analytic",
        )
