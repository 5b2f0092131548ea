"""Distributions against NumPy float64 and NumPyro."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import expit

from elbo_lab.data import Spec
from elbo_lab.distributions import (
    BernoulliVector,
    Chain,
    ContinuousBernoulli,
    DiscretizedLogistic,
    LevelCategorical,
    LogisticMixture,
    bernoulli_log_prob,
)
from elbo_lab.losses.posteriors import is_reparameterizable
from elbo_lab.models import laws
from elbo_lab.models.mlp import MLPOptions

pytestmark = pytest.mark.usefixtures("fast_compilation")

LOGITS = np.array([0.0, 1e-3, -0.5, 3.0, -20.0, 100.0, -100.0, 1e4, -1e4])


def bernoulli_float64(logits, value):
    """-log(1 + exp(-l)) for a one, -log(1 + exp(l)) for a zero."""
    logits = np.asarray(logits, np.float64)
    ones, zeros = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    return np.sum(np.where(np.asarray(value) == 1, ones, zeros), axis=-1)


# bernoulli_log_prob


@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_bernoulli_log_prob_of_each_logit(pixel):
    logits = jnp.asarray(LOGITS, jnp.float32)[:, None]
    value = bernoulli_log_prob(logits, jnp.full((1,), pixel))
    # 1 + exp(-|l|) in [1, 2] is rounded to 1.2e-7, half of it, and so is its logarithm.
    np.testing.assert_allclose(value, bernoulli_float64(logits, [pixel]), rtol=2.4e-7, atol=1.2e-7)


@pytest.mark.parametrize("size", [1, 7, 11, 18, 784])
def test_bernoulli_log_prob_sums_the_last_axis(size):
    rng = np.random.default_rng(0)
    logits = (5 * rng.normal(size=(4, size))).astype(np.float32)
    logits[0] = 0  # The largest products of 1 + exp(-|l|).
    value = rng.integers(0, 2, size=(4, size)).astype(np.float32)
    # Sums of float32 terms of a few nats.
    np.testing.assert_allclose(
        jax.jit(bernoulli_log_prob)(logits, value),
        bernoulli_float64(logits, value),
        rtol=2e-6,
        atol=5e-7,
    )


def test_the_log_probability_is_a_sum_over_pixels():
    value = bernoulli_log_prob(jnp.zeros(784), jnp.ones(784))
    np.testing.assert_allclose(value, -784 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_bernoulli_derivatives_at_any_logit(pixel):
    logits, data = jnp.asarray(LOGITS, jnp.float32), jnp.full(len(LOGITS), pixel)
    first = pixel - expit(LOGITS)
    reverse = jax.jit(jax.grad(bernoulli_log_prob))(logits, data)
    forward = jax.jit(jax.jacfwd(bernoulli_log_prob))(logits, data)
    for gradient in (reverse, forward):
        np.testing.assert_allclose(gradient, first, rtol=1e-6, atol=2e-7)
    hessian = jax.jit(jax.hessian(bernoulli_log_prob))(logits, data)
    expected = np.diag(-expit(LOGITS) * expit(-LOGITS))
    np.testing.assert_allclose(hessian, expected, rtol=1e-5, atol=2e-7)


def test_derivative_by_the_value_is_the_logit():
    logits = jnp.array([2.0, -3.0])
    gradient = jax.grad(bernoulli_log_prob, argnums=1)(logits, jnp.array([0.3, 1.0]))
    np.testing.assert_array_equal(gradient, logits)


def test_directional_derivative_in_both_arguments():
    arguments = jnp.array([2.0, -3.0]), jnp.array([0.3, 1.0])
    tangents = jnp.array([0.5, 1.0]), jnp.array([-1.0, 0.25])
    _, slope = jax.jvp(bernoulli_log_prob, arguments, tangents)
    expected = np.sum((arguments[1] - expit(arguments[0])) * tangents[0])
    expected += np.sum(arguments[0] * tangents[1])
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, bool])
def test_integer_and_boolean_images(dtype):
    logits, data = jnp.array([0.5, -2.0, 7.0]), jnp.array([1, 0, 1]).astype(dtype)
    value, gradient = jax.jit(jax.value_and_grad(bernoulli_log_prob))(logits, data)
    np.testing.assert_allclose(value, bernoulli_float64(logits, data), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.asarray(data) - expit(logits), rtol=1e-5)


def test_bernoulli_log_prob_of_every_logit_and_every_value():
    rng = np.random.default_rng(0)
    logits = 5 * rng.normal(size=(7, 1, 784)).astype(np.float32)
    values = rng.integers(0, 2, size=(4, 784)).astype(np.float32)
    weights = rng.normal(size=(7, 4)).astype(np.float32)
    exact, x = logits.astype(np.float64), np.float64(values)
    expected = np.sum(x * exact - np.logaddexp(0, exact), axis=-1)

    @jax.jit
    def compute(logits):
        table = bernoulli_log_prob(logits, values)
        return jnp.sum(weights * table), table

    (_, table), gradient = jax.value_and_grad(compute, has_aux=True)(logits)
    # A rounding of each sum, relative to its greatest part.
    np.testing.assert_allclose(
        table, expected, rtol=0, atol=4e-7 * np.max(np.sum(np.abs(exact), -1))
    )
    slope = np.einsum("sb,sbd->sd", weights, x - 1 / (1 + np.exp(-exact)))
    np.testing.assert_allclose(gradient[:, 0], slope, rtol=1e-5, atol=1e-5)


def test_bernoulli_log_prob_broadcasts_the_value():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5, 4, 3)).astype(np.float32)  # [K, B, D]
    value = rng.integers(0, 2, size=(4, 3)).astype(np.float32)
    expected = bernoulli_float64(logits, np.broadcast_to(value, logits.shape))
    np.testing.assert_allclose(bernoulli_log_prob(logits, value), expected, rtol=1e-6)
    gradient = jax.grad(lambda logits: jnp.sum(bernoulli_log_prob(logits, value)))(logits)
    np.testing.assert_allclose(gradient, value - expit(logits), rtol=1e-5, atol=1e-6)
    # Logits broadcast against values too.
    gradient = jax.grad(lambda logits: jnp.sum(bernoulli_log_prob(logits, value)))(logits[0, 0])
    expected = np.sum(value - expit(logits[0, 0]), axis=0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_bernoulli_log_prob_under_vmap():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(5, 4, 3)).astype(np.float32)
    value = rng.integers(0, 2, size=(4, 3)).astype(np.float32)
    grad = jax.grad(bernoulli_log_prob)
    by_vmap = jax.jit(jax.vmap(jax.vmap(grad), in_axes=(0, None)))(logits, value)
    np.testing.assert_allclose(by_vmap, value - expit(logits), rtol=1e-5, atol=1e-6)


def test_bernoulli_log_prob_within_scan_and_checkpoint():
    images = jnp.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])

    def total(logits):
        def add(total, image):
            return total + jax.checkpoint(bernoulli_log_prob)(logits, image), None

        return jax.lax.scan(add, 0.0, images)[0]

    logits = jnp.array([0.3, -4.0])
    gradient = jax.jit(jax.grad(total))(logits)
    np.testing.assert_allclose(gradient, np.sum(images - expit(logits), axis=0), rtol=1e-5)


# BernoulliVector


class TestBernoulliVector(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_equals_numpyros_and_crosses_jit(self):
        logits = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)), jnp.float32)
        ours = self.variant(BernoulliVector)(logits)
        theirs = dist.BernoulliLogits(logits).to_event(1)
        assert ours.batch_shape == theirs.batch_shape and ours.event_shape == theirs.event_shape
        draws = theirs.sample(jax.random.key(0), (7,))
        log_prob = self.variant(lambda law, x: law.log_prob(x))(ours, draws.astype(jnp.float32))
        np.testing.assert_allclose(log_prob, theirs.log_prob(draws), rtol=1e-5)
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6)
        np.testing.assert_allclose(ours.variance, theirs.variance, rtol=1e-5)


def test_bernoulli_vector_samples():
    logits = jnp.array([[-100.0, -1.0, 0.0], [0.5, 2.0, 100.0]])
    draws = BernoulliVector(logits).sample(jax.random.key(1), (20_000,))
    assert draws.shape == (20_000, 2, 3) and draws.dtype == jnp.float32
    assert set(np.unique(draws)) == {0.0, 1.0}
    p = expit(np.asarray(logits, np.float64))
    error = np.sqrt(p * (1 - p) / 20_000)
    assert np.all(np.abs(np.mean(draws, axis=0) - p) <= 4 * error + 1e-6)
    assert BernoulliVector(logits).sample(jax.random.key(2)).shape == (2, 3)
    # Pixels are independent: correlations of p = 1/2 and p = sigmoid(-1) have error 1/sqrt(n).
    assert abs(np.corrcoef(draws[:, 0, 1], draws[:, 0, 2])[0, 1]) < 4 / np.sqrt(20_000)


def test_log_scales_for_more_than_the_locations_are_refused():
    """Otherwise draws would have fewer dimensions than log-probabilities."""
    with pytest.raises(AssertionError, match="broadcast"):
        DiscretizedLogistic(jnp.zeros(3), jnp.zeros((2, 3)))


# Half precision and JAX's strict settings, for every law of ours.

GAUSSIAN = laws.make(MLPOptions(likelihood="gaussian"), Spec("image", (3,), None))
LAWS = {
    "BernoulliVector": lambda a, b: BernoulliVector(a),
    "DiscretizedLogistic": lambda a, b: DiscretizedLogistic(a, b),
    "ContinuousBernoulli": lambda a, b: ContinuousBernoulli(a),
    # a is used once: a sum of several derivatives would be rounded again.
    "LevelCategorical": lambda a, b: LevelCategorical(
        jnp.stack([a, jnp.zeros_like(a), jnp.ones_like(a)], axis=-1)
    ),
    "LogisticMixture": lambda a, b: LogisticMixture(
        jnp.zeros((2, 3, 1), a.dtype),
        a[..., None, None],
        jnp.zeros((2, 3, 1, 1), a.dtype),
        jnp.zeros((2, 3, 0, 1), a.dtype),
    ),
    "gaussian likelihood": GAUSSIAN.distribution,
}


def test_half_precision_costs_no_accuracy_and_strict_settings_are_met():
    """Density, mean and draws are those of the parameters cast to float32; derivatives have the
    parameters' type.
    """
    rng = np.random.default_rng(4)
    a, b = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in ((2, 3), (3,)))
    binary = rng.integers(0, 2, size=(5, 2, 3)).astype(np.uint8)
    grey = jnp.asarray(rng.integers(0, 256, size=(5, 2, 3)) / 255, jnp.float32)
    images = {name: binary if name == "BernoulliVector" else grey for name in LAWS}

    def compute(name, a, b):
        def summed(a, b):
            return jnp.sum(LAWS[name](a, b).log_prob(images[name]))

        law, slopes = LAWS[name](a, b), jax.grad(summed, (0, 1))(a, b)
        draws = law.sample(jax.random.key(0), (5,)).astype(jnp.float32)
        return (law.log_prob(images[name]), law.mean, draws), slopes

    @jax.jit
    def both():
        values = {}
        for name in LAWS:
            # NumPyro's Normal, the Gaussian likelihood, does not work under these settings.
            strict = name != "gaussian likelihood"
            with (
                jax.numpy_rank_promotion("raise" if strict else "allow"),
                jax.numpy_dtype_promotion("strict" if strict else "standard"),
            ):
                single = a.astype(jnp.float32), b.astype(jnp.float32)
                values[name] = compute(name, a, b), compute(name, *single)
        return values

    for name, (half, single) in both().items():
        (values, slopes), (expected_values, expected_slopes) = half, single
        for value, expected in zip(values, expected_values, strict=True):
            assert value.dtype == jnp.float32, name
            np.testing.assert_array_equal(value, expected, err_msg=name)
        for slope, expected in zip(slopes, expected_slopes, strict=True):
            assert slope.dtype == jnp.bfloat16, name
            np.testing.assert_array_equal(slope, expected.astype(jnp.bfloat16), err_msg=name)


# Chain: z_1 ~ N(x, .5), z_2 ~ N(2 z_1[:1] + 1, .3) upwards; z_2 ~ N(.2, 1), z_1 ~ N(-z_2, .7)
# downwards, z_1 of two dimensions and z_2 of one.


def upwards(x) -> Chain:
    first = dist.Normal(x, 0.5).to_event(1)
    return Chain(first, [lambda z: dist.Normal(2 * z[..., :1] + 1, 0.3).to_event(1)])


def downwards() -> Chain:
    first = dist.Normal(jnp.full(1, 0.2), 1.0).to_event(1)
    spread = jnp.array([-1.0, 2.0])
    conditional = [lambda z: dist.Normal(z * spread, 0.7).to_event(1)]
    return Chain(first, conditional, downwards=True)


def normal_float64(z, mean, scale):
    z = np.asarray(z, np.float64)
    return np.sum(-0.5 * ((z - mean) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi)), axis=-1)


BATCH = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]], np.float32)


def drawn(make, sample_shape):
    """Draws, their log-probability, and the same by vmap over the leading dimension."""

    @jax.jit
    def compute():
        chain = make()
        z = chain.sample(jax.random.key(0), sample_shape)
        return z, chain.log_prob(z), jax.vmap(chain.log_prob)(z)

    return compute()


def test_chain_upwards_draws_and_log_prob():
    (z_1, z_2), log_prob, by_vmap = drawn(lambda: upwards(jnp.asarray(BATCH)), (4,))
    assert z_1.shape == (4, 3, 2) and z_2.shape == (4, 3, 1)
    by_hand = normal_float64(z_1, BATCH, 0.5) + normal_float64(z_2, 2 * z_1[..., :1] + 1, 0.3)
    np.testing.assert_allclose(log_prob, by_hand, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_vmap, by_hand, rtol=1e-5, atol=1e-5)


def test_chain_downwards_keeps_the_order_from_the_data_up():
    (z_1, z_2), log_prob, by_vmap = drawn(downwards, (4, 3))
    assert z_1.shape == (4, 3, 2) and z_2.shape == (4, 3, 1)
    by_hand = normal_float64(z_2, 0.2, 1.0) + normal_float64(z_1, z_2 * np.array([-1.0, 2.0]), 0.7)
    np.testing.assert_allclose(log_prob, by_hand, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_vmap, by_hand, rtol=1e-5, atol=1e-5)


def assert_moments(samples, mean, cov):
    """Gaussian samples [N, L]: mean and covariance within four standard errors."""
    samples, count, diagonal = np.float64(samples), len(samples), np.diag(cov)
    assert np.all(np.abs(samples.mean(axis=0) - mean) <= 4 * np.sqrt(diagonal / count))
    # Var of a sample covariance of Gaussians: (S_ii S_jj + S_ij^2) / N.
    error = np.sqrt((np.outer(diagonal, diagonal) + np.square(cov)) / count)
    assert np.all(np.abs(np.cov(samples, rowvar=False) - cov) <= 4 * error)


def test_chain_sampling_statistics():
    z = jnp.concatenate(upwards(jnp.array([1.0, -1.0])).sample(jax.random.key(2), (20_000,)), -1)
    assert_moments(z, [1, -1, 3], [[0.25, 0, 0.5], [0, 0.25, 0], [0.5, 0, 1.09]])
    z = jnp.concatenate(downwards().sample(jax.random.key(3), (20_000,)), -1)
    assert_moments(z, [-0.2, 0.4, 0.2], [[1.49, -2, -1], [-2, 4.49, 2], [-1, 2, 1]])


def test_chain_layers_come_from_the_data_up():
    z = jnp.array([0.3, -0.4]), jnp.array([2.0])
    first, second = upwards(jnp.asarray(BATCH[0])).layers(z)
    np.testing.assert_allclose(first.mean, BATCH[0])
    np.testing.assert_allclose(second.mean, [1.6], rtol=1e-6)
    first, second = downwards().layers(z)
    np.testing.assert_allclose(first.mean, [-2.0, 4.0])
    np.testing.assert_allclose(second.mean, [0.2])


def test_chain_of_three_layers():
    steps = [lambda z: dist.Normal(z + 1, 0.1), lambda z: dist.Normal(3 * z, 0.2)]
    for down in (False, True):
        chain = Chain(dist.Normal(0.0, 1.0), steps, downwards=down)
        z, log_prob, _ = drawn(lambda chain=chain: chain, (5,))
        order = z[::-1] if down else z
        assert len(z) == 3
        means, scales = (0, order[0] + 1, 3 * order[1]), (1.0, 0.1, 0.2)
        by_hand = sum(
            normal_float64(np.asarray(v)[:, None], np.asarray(m)[..., None], s)
            for v, m, s in zip(order, means, scales, strict=True)
        )
        np.testing.assert_allclose(log_prob, by_hand, rtol=1e-5, atol=1e-5)


def test_a_chain_is_reparameterizable_if_every_layer_is():
    key = jax.random.key(0)
    mixed = Chain(
        dist.Normal(jnp.zeros(3), 1.0).to_event(1),
        [lambda z: dist.BernoulliLogits(z).to_event(1)],
    )
    smooth = upwards(jnp.zeros(2))
    assert is_reparameterizable(smooth, smooth.sample(key))
    assert not is_reparameterizable(mixed, mixed.sample(jax.random.key(1)))


def test_chain_draws_are_differentiable():
    def second_layer(x):
        return upwards(x).sample(jax.random.key(5))[1][0]

    # z_2 = 2 z_1[0] + 1 + noise and z_1 = x + noise.
    np.testing.assert_allclose(jax.jit(jax.grad(second_layer))(jnp.zeros(2)), [2.0, 0.0])


def test_a_layer_without_an_event_is_refused():
    """Its log-densities [2, 2] would be added to those of a batch of 2."""
    chain = Chain(dist.Normal(jnp.zeros(2), 1).to_event(1), [lambda z: dist.Normal(z, 1)])
    with pytest.raises(AssertionError, match="rank"):
        jax.eval_shape(chain.log_prob, (jnp.zeros((2, 2)), jnp.zeros((2, 2))))
