"""Likelihoods of grey levels, against SciPy and NumPy float64; masses sum to one."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from elbo_lab import configs, models
from elbo_lab.cli import validation
from elbo_lab.data import Batch, Dataset, Spec
from elbo_lab.distributions import (
    ContinuousBernoulli,
    DiscretizedLogistic,
    LogisticMixture,
    continuous_bernoulli_mean,
)
from elbo_lab.errors import UserError
from elbo_lab.models.base import NOTHING_GIVEN
from elbo_lab.models.laws import LEAST_LOG_SCALE, LEAST_SCALE, LIKELIHOODS
from elbo_lab.reports import results
from tests.training.toys import MEASURED

LEVELS = np.arange(256)
LOCATIONS = [-0.5, 0.0, 0.3, 0.999, 2.0]
LOG_SCALES = [LEAST_LOG_SCALE, -7.0, -3.0, -1.0, 2.0]
LOGITS = [0.0, 1e-4, -0.01, 0.3, -0.499, 0.501, 3.0, -20.0, 88.0, -500.0]
GREY = [name for name, law in LIKELIHOODS.items() if not law.binary]


def logistic(location: float, log_scale: float) -> DiscretizedLogistic:
    return DiscretizedLogistic(jnp.full(1, location), jnp.full(1, log_scale))


@jax.jit
def logistic_log_masses(location, log_scale):
    law = DiscretizedLogistic(location[None], log_scale[None])
    return law.log_prob(jnp.asarray(LEVELS / 255, jnp.float32)[:, None])


def log_masses(location: float, log_scale: float) -> np.ndarray:
    """Log masses of all levels, float64, from the smaller tail, so that no difference cancels."""
    law = stats.logistic(location, np.exp(log_scale))
    edges = np.concatenate([[-np.inf], (LEVELS[:-1] + 0.5) / 255, [np.inf]])
    low, high = edges[:-1], edges[1:]
    below, above = law.cdf(high) - law.cdf(low), law.sf(low) - law.sf(high)
    with np.errstate(divide="ignore"):
        return np.log(np.where(low + high > 2 * location, above, below))


# --- discretized logistic ---------------------------------------------------------------------


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("log_scale", LOG_SCALES)
def test_discretized_logistic_is_a_mass(location, log_scale):
    computed = logistic_log_masses(jnp.float32(location), jnp.float32(log_scale))
    assert np.all(computed <= 0) and np.all(np.isfinite(computed))
    assert np.sum(np.exp(np.asarray(computed, np.float64))) == pytest.approx(1, abs=2e-4)
    expected = log_masses(location, log_scale)
    in_range = expected > -600  # Smaller masses underflow in the float64 reference.
    # Float32 rounds v / 255 - location by 1e-7, which the least scale, exp(-7.7), magnifies.
    error = 1e-6 * np.abs(expected) + 3e-7 * np.exp(-log_scale) + 1e-5
    assert np.all(np.abs(computed - expected)[in_range] <= error[in_range])


def test_a_level_can_have_nearly_all_of_the_mass():
    # sigmoid(h / s) - sigmoid(-h / s) = tanh(h / 2s), h being half a level.
    expected = np.tanh(0.5 / 255 / 2 / np.exp(LEAST_LOG_SCALE))
    computed = logistic_log_masses(jnp.float32(100 / 255), jnp.float32(LEAST_LOG_SCALE))
    assert np.exp(computed[100]) == pytest.approx(expected, rel=1e-3) and expected > 0.97


def test_discretized_logistic_has_finite_gradients(fast_compilation):
    grid = np.meshgrid(LOCATIONS, LOG_SCALES, [0.0, 0.5, 1.0])
    location, log_scale, value = (jnp.asarray(axis.ravel(), jnp.float32) for axis in grid)

    @jax.jit
    @jax.grad
    def gradient(parameters):
        return DiscretizedLogistic(*parameters).log_prob(value)

    assert all(np.all(np.isfinite(g)) for g in gradient((location, log_scale)))


@pytest.mark.parametrize("log_scale", [-7.0, -2.0])
def test_discretized_logistic_mean_and_samples(log_scale):
    law = logistic(0.3, log_scale)
    masses = np.exp(log_masses(0.3, log_scale))
    mean = masses @ LEVELS / 255
    np.testing.assert_allclose(jax.jit(lambda: law.mean)(), mean, atol=1e-5)
    draws = np.asarray(law.sample(jax.random.key(0), (20_000,)), np.float64)[:, 0]
    deviation = np.sqrt(masses @ (LEVELS / 255 - mean) ** 2)
    assert abs(draws.mean() - mean) < 4 * deviation / np.sqrt(20_000)
    levels = np.round(255 * draws)
    np.testing.assert_allclose(draws, levels / 255, atol=1e-7)
    for level in (0, 76, 77, 255):
        share = np.mean(levels == level)
        assert abs(share - masses[level]) <= 4 * np.sqrt(masses[level] / 20_000) + 1e-9


# --- continuous Bernoulli ---------------------------------------------------------------------


def density(x, logit: float):
    """exp(l x) l / (exp(l) - 1), computed for -|l| so that nothing overflows."""
    if logit == 0:
        return np.ones_like(x)
    if logit > 0:
        return density(1 - np.asarray(x), -logit)
    return np.exp(logit * np.asarray(x)) * logit / np.expm1(logit)


@jax.jit
def continuous(logits, x):
    """For each logit: log densities [n, logits], means, 20,000 draws, and the gradient at 1/4."""

    def log_densities(logits, x):
        return ContinuousBernoulli(logits[:, None]).log_prob(x[:, None, None])

    gradient = jax.grad(lambda logits: log_densities(logits, jnp.full(1, 0.25)).sum())(logits)
    law = ContinuousBernoulli(logits)
    draws = law.sample(jax.random.key(1), (20_000,))
    return log_densities(logits, x), law.mean, draws, gradient


@pytest.fixture(scope="module")
def computed_of_logits():
    """The points x, and `continuous` for all LOGITS there."""
    # The points are dense at the ends, where the density is steep.
    x = (0.5 - 0.5 * np.cos(np.linspace(0, np.pi, 4001))).astype(np.float32)
    return x, [np.asarray(values, np.float64) for values in continuous(jnp.asarray(LOGITS), x)]


@pytest.mark.parametrize("i", range(len(LOGITS)))
def test_continuous_bernoulli_is_a_density(i, computed_of_logits):
    x, (log_densities, *_) = computed_of_logits
    x = x.astype(np.float64)
    with np.errstate(divide="ignore"):
        expected = np.log(density(x, LOGITS[i]))
    in_range = expected > -600  # Smaller masses underflow in the float64 reference.
    np.testing.assert_allclose(log_densities[in_range, i], expected[in_range], rtol=2e-6, atol=1e-5)
    total = integrate.simpson(np.exp(log_densities[:, i]), x=x)
    assert total == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("i", range(len(LOGITS)))
def test_continuous_bernoulli_mean_samples_and_gradient(i, computed_of_logits):
    _, (_, means, draws, gradients) = computed_of_logits
    logit = LOGITS[i]
    width = 30 / max(abs(logit), 30)  # beyond which there is no mass
    ends = (0, width) if logit <= 0 else (1 - width, 1)
    mean = integrate.quad(lambda x: x * density(x, logit), *ends)[0]
    square = integrate.quad(lambda x: (x - mean) ** 2 * density(x, logit), *ends)[0]
    np.testing.assert_allclose(means[i], mean, rtol=1e-5, atol=1e-7)
    assert np.all((draws >= 0) & (draws <= 1))
    assert abs(draws[:, i].mean() - mean) < 4 * np.sqrt(square / 20_000)
    # d log p(x) / dl = x - mean
    np.testing.assert_allclose(gradients[i], 0.25 - mean, rtol=1e-4, atol=1e-5)


def mp_continuous(logit, x):
    """Log density, its derivative by the logit, and the mean."""
    with mpmath.workdps(60):
        logit, x = mpmath.mpf(float(logit)), mpmath.mpf(float(x))
        if logit == 0:
            return 0, x - mpmath.mpf(1) / 2, mpmath.mpf(1) / 2
        mean = -1 / mpmath.expm1(-logit) - 1 / logit
        return logit * x - mpmath.log(mpmath.expm1(logit) / logit), x - mean, mean


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_digits_of_the_continuous_bernoulli(dtype):
    """Logits on both sides of the points where the formula changes, and extreme ones."""
    sizes = [0, 1e-8, 1e-3, 0.1, 0.4999, 0.5001, 0.9999, 1.0001, 3, 20, 88, 1e3, 1e4]
    logits, x = np.meshgrid(np.array([*sizes, *(-s for s in sizes)]), [0, 0.25, 1])
    logits, x = logits.ravel().astype(dtype), x.ravel().astype(dtype)

    def log_density(logit, x):
        return ContinuousBernoulli(logit[None]).log_prob(x[None])

    with jax.enable_x64(dtype == np.float64):
        value, slope = jax.jit(jax.vmap(jax.value_and_grad(log_density)))(logits, x)
        mean = jax.jit(continuous_bernoulli_mean)(logits)
    exact = [mp_continuous(*pair) for pair in zip(logits, x, strict=True)]
    error = 4 * np.finfo(dtype).eps
    for computed, expected in zip((value, slope, mean), zip(*exact, strict=True), strict=True):
        assert computed.dtype == dtype
        np.testing.assert_allclose(computed, np.array(expected, float), rtol=error, atol=error)


# --- models -----------------------------------------------------------------------------------


def start_of(law):
    """The location of a logistic law, of all components of a mixture, or the mean of another."""
    if isinstance(law, LogisticMixture):
        np.testing.assert_equal(law.location.shape[-2:], (1, 5))
        return jnp.mean(law.location[..., 0, :], axis=-1)
    return law.location if isinstance(law, DiscretizedLogistic) else law.mean


@pytest.mark.parametrize(
    "likelihood",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith("gaussian_") else name
        for name in LIKELIHOODS
    ],
)
def test_the_output_starts_at_the_training_mean(likelihood, fast_compilation):
    config = configs.make(likelihood=likelihood, latent_dims=(2,), hidden_dims=(3,))
    model = models.make(config, Spec("image", (4,), 2))
    mean = np.array([0.1, 0.4, 0.5, 0.8], np.float32)
    x = np.round(mean) if likelihood == "bernoulli" else np.round(255 * mean) / 255

    @jax.jit
    def outputs(key):
        params = model.init(key, Batch(mean[None]))
        # At z = 0 the trunk's output is zero. A logistic law's tails beyond [0, 1] move its mean.
        law = model.likelihood(params, jnp.zeros((5, 2)), NOTHING_GIVEN)
        assert law.batch_shape == (5,) and law.event_shape == (4,)
        start = start_of(law)
        z = jnp.ones((3, 5, 2))
        gradients = jax.grad(
            lambda params: jnp.sum(model.likelihood(params, z, NOTHING_GIVEN).log_prob(x))
        )(params)
        return start, gradients, jax.eval_shape(law.log_prob, jnp.zeros((3, 5, 4))).shape

    start, gradients, shape = outputs(jax.random.key(0))
    np.testing.assert_allclose(start, np.tile(mean, (5, 1)), atol=1e-5)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients)) and shape == (3, 5)


def test_the_gaussians_one_scale_has_a_floor():
    model = models.make(
        configs.make(likelihood="gaussian", latent_dims=(2,), hidden_dims=(3,)),
        Spec("image", (4,), None),
    )
    params = jax.jit(model.init)(jax.random.key(0), Batch(jnp.full((1, 4), 0.5)))
    assert params["decoder"]["log_scale"].shape == (1,)
    params["decoder"]["log_scale"] = jnp.full(1, -50.0)
    law = model.likelihood(params, jnp.zeros(2), NOTHING_GIVEN)
    expected = 4 * stats.norm(0, LEAST_SCALE).logpdf(0)
    assert law.log_prob(law.mean) == pytest.approx(expected, rel=1e-5)


# --- data that a likelihood accepts, names of results -------------------------------------------


def dataset(images) -> Dataset:
    return Dataset("faces", images, images, None, None, (2, 2))


def refusal(check, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        check(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("likelihood", GREY)
def test_likelihoods_of_grey_levels_need_those(likelihood):
    config = configs.make(likelihood=likelihood, batch_size=4)
    message = refusal(validation.check, config)
    assert message.startswith(f"--likelihood={likelihood} is for grey levels, and needs --binar")
    config = configs.replace(config, binarization="none")
    validation.check(config)
    grey, binary = np.array([[0, 9, 200, 255]] * 5, np.uint8), np.array([[0, 255, 255, 0]] * 5)
    validation.check_data(config, dataset(grey))
    message = refusal(validation.check_data, config, dataset(binary.astype(np.uint8)))
    assert message.endswith("the images of faces are binary; use bernoulli.")
    floats = dataset(grey.astype(np.float32) / 255)
    if not LIKELIHOODS[likelihood].density:
        message = refusal(validation.check_data, config, floats)
        assert message.endswith(
            "are floats; use gaussian, gaussian_fixed, gaussian_predicted or continuous_bernoulli."
        )
    else:
        validation.check_data(config, floats)


def test_results_say_what_is_a_density():
    values = np.array([-784.0, -392.0])
    measured = dict.fromkeys(MEASURED, values) | {"means_1": np.zeros((2, 3))}
    names = {}
    for likelihood, law in LIKELIHOODS.items():
        config = configs.make(likelihood=likelihood, k=1, eval_k=7)
        spec = Spec("image", (28, 28), 2 if law.binary else 256)
        names[likelihood] = {r.name: r for r in results.test_results(config, measured, spec)}
    for likelihood in (name for name, law in LIKELIHOODS.items() if law.density):
        for name in ("ELBO", "IWAE bound", "log-likelihood", "reconstruction"):
            assert f"{name}, density" in names[likelihood] and name not in names[likelihood]
        assert "bits per dimension" not in names[likelihood]
    assert "bits per dimension" not in names["bernoulli"]
    assert all("bits per dimension" in names[name] for name in ("logistic_mixture", "categorical"))
    bits = names["discretized_logistic"]["bits per dimension"]
    assert bits.value == pytest.approx(0.75 / np.log(2)) and bits.unit == "bits per dimension"
    assert bits.standard_error == pytest.approx(0.25 / np.log(2))
    assert bits.bound == "upper bound in expectation" and bits.symbol == "-L_7 / D"
