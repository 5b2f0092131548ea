"""Squashed posteriors such as tanh of a Gaussian: log q is evaluated before squashing."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
from tensorflow_probability.substrates import jax as tfp

from elbo_lab import losses
from tests.losses.binary_images import PRIOR, B, K, L, W, X, log_likelihood

pytestmark = [
    pytest.mark.usefixtures("fast_compilation"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability"),
]
tfb, tfd = tfp.bijectors, tfp.distributions

MEAN = np.linspace(0, 6, B * L).reshape(B, L)
SCALE = 2.0


class Tanh(dist.transforms.ParameterFreeTransform):
    """tanh as a user's own transform, since NumPyro has none."""

    domain, codomain = dist.constraints.real, dist.constraints.interval(-1.0, 1.0)

    def __call__(self, y):
        return jnp.tanh(y)

    def _inverse(self, z):
        return jnp.arctanh(z)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return 2 * (jnp.log(2.0) - x - jax.nn.softplus(-2 * x))


def numpyro_tanh(mean, scale):
    return dist.TransformedDistribution(dist.Normal(mean, scale).to_event(1), Tanh())


def numpyro_tanh_inside(mean, scale):
    """tanh(y) = 2 sigmoid(2 y) - 1."""
    affine, sigmoid = dist.transforms.AffineTransform, dist.transforms.SigmoidTransform()
    tanh = dist.transforms.ComposeTransform([affine(0.0, 2.0), sigmoid, affine(-1.0, 2.0)])
    return dist.TransformedDistribution(dist.Normal(mean, scale), tanh).to_event(1)


def distrax_tanh(mean, scale):
    base = distrax.MultivariateNormalDiag(mean, scale * jnp.ones(L))
    return distrax.Transformed(base, distrax.Block(distrax.Tanh(), 1))


def distrax_tanh_inside(mean, scale):
    transformed = distrax.Transformed(distrax.Normal(mean, scale), distrax.Tanh())
    return distrax.Independent(transformed, 1)


def tfp_tanh(mean, scale):
    base = tfd.MultivariateNormalDiag(mean, scale * jnp.ones(L))
    return tfd.TransformedDistribution(base, tfb.Tanh())


def tfp_chain(mean, scale):
    """An affine map with parameters, which is not unwrapped, then tanh."""
    base = tfd.Normal(jnp.zeros((B, L)), 1.0)
    chain = tfb.Chain([tfb.Tanh(), tfb.Shift(mean), tfb.Scale(scale)])
    return tfd.Independent(tfd.TransformedDistribution(base, chain), 1)


# Squashed sampler: the sampler of tanh's argument by the same key. tfp_chain's base is N(0, 1).
UNSQUASHED = {
    numpyro_tanh: lambda m, s: dist.Normal(m, s).to_event(1),
    numpyro_tanh_inside: lambda m, s: dist.Normal(m, s).to_event(1),
    distrax_tanh: lambda m, s: distrax.MultivariateNormalDiag(m, s * jnp.ones(L)),
    distrax_tanh_inside: lambda m, s: distrax.Independent(distrax.Normal(m, s), 1),
    tfp_tanh: lambda m, s: tfd.MultivariateNormalDiag(m, s * jnp.ones(L)),
    tfp_chain: lambda m, s: tfd.Independent(tfd.Normal(0 * m, 1.0), 1),
}
# (estimator, vectorized): each estimator by one convention, reparam by both.
SQUASHED_CALLS = [
    ("reparam", True),
    ("reparam", False),
    ("stl", True),
    ("dreg", False),
    ("score", True),
    ("wake", False),
]


def softplus(a):
    return np.logaddexp(0, a)


def exact_squashed_loss(noise, mean, scale):
    """-L_K in float64 of noise [K, B, L]: z = tanh(mean + scale noise)."""
    y = mean + scale * noise
    z = np.tanh(y)
    log_normal = -0.5 * noise**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    log_det = 2 * (np.log(2) - y - softplus(-2 * y))
    log_q = np.sum(log_normal - log_det, axis=-1)
    log_pz = np.sum(-0.5 * z**2 - 0.5 * np.log(2 * np.pi), axis=-1)
    scores = z @ np.float64(W)
    log_px_z = np.sum(X * scores - softplus(scores), axis=-1)
    log_w = log_px_z + log_pz - log_q
    return -(scipy.special.logsumexp(log_w, axis=0) - np.log(len(noise)))


@pytest.mark.parametrize(
    "squashed",
    [
        numpyro_tanh,
        # Distrax and TFP promote ranks.
        *(
            pytest.param(function, marks=[pytest.mark.slow, pytest.mark.promotes])
            for function in UNSQUASHED
            if function is not numpyro_tanh
        ),
    ],
)
def test_squashed_posteriors(squashed):
    """Values of all estimators and reparam's gradient, against float64 with the same base draws."""
    number = 50

    def loss(parameters, estimator, vectorized):
        arguments = squashed(*parameters), PRIOR, log_likelihood
        options = {"num_samples": number, "estimator": estimator, "vectorized": vectorized}
        return losses.iwae(jax.random.key(0), *arguments, **options)[0]

    @jax.jit
    def compute(parameters):
        def total(parameters, *options):
            value = loss(parameters, *options)
            return jnp.sum(value), value

        slope = jax.value_and_grad(total, has_aux=True)
        return {options: slope(parameters, *options) for options in SQUASHED_CALLS}

    mean = MEAN.astype(np.float32)
    results = compute((mean, np.float32(SCALE)))
    # z may be rounded to 1, and does not determine y = arctanh z. The sampler without tanh gives y.
    unsquashed = UNSQUASHED[squashed](mean, SCALE)
    draws = losses.log_weights(jax.random.key(0), unsquashed, PRIOR, log_likelihood, number)
    y = np.float64(draws.z)
    noise = y if squashed is tfp_chain else (y - MEAN) / SCALE
    exact = exact_squashed_loss(noise, MEAN, SCALE)
    for name, ((_, values), (by_mean, by_scale)) in results.items():
        np.testing.assert_allclose(values, exact, rtol=2e-5, err_msg=str(name))
        assert np.all(np.isfinite(by_mean)) and np.isfinite(by_scale), name
    step = 1e-5
    above, below = (np.sum(exact_squashed_loss(noise, MEAN, SCALE + h)) for h in (step, -step))
    slope = (above - below) / (2 * step)
    for vectorized in (True, False):
        np.testing.assert_allclose(results["reparam", vectorized][1][1], slope, rtol=1e-4)


@pytest.mark.slow
def test_squashed_gradients_of_all_estimators_have_one_mean():
    """The mean over many keys of dreg and vimco is that of reparam."""
    names = ("reparam", "dreg", "vimco")

    def loss(scale, key, estimator):
        # Moderate means keep the score function's variance moderate.
        arguments = numpyro_tanh(jnp.asarray(MEAN / 6, jnp.float32), scale), PRIOR, log_likelihood
        return jnp.sum(losses.iwae(key, *arguments, num_samples=K, estimator=estimator)[0])

    draws = 2_000
    keys = jax.random.split(jax.random.key(1), (len(names), draws))

    @jax.jit
    def compute(scale, keys):
        slopes = (jax.grad(functools.partial(loss, estimator=name)) for name in names)
        return [jax.vmap(slope, (None, 0))(scale, k) for slope, k in zip(slopes, keys, strict=True)]

    slopes = np.float64(compute(1.0, keys))  # [estimators, draws]
    means, errors = np.mean(slopes, axis=1), np.std(slopes, axis=1) / np.sqrt(draws)
    for i in (1, 2):
        distance = abs(means[i] - means[0])
        assert distance < 4 * np.hypot(errors[i], errors[0]), (names[i], means, errors)
