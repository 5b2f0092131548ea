"""Laws with several numbers for each pixel, against NumPy float64: masses sum to one, means, draws,
gradients at extreme inputs.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from elbo_lab.data import Spec
from elbo_lab.distributions import LevelCategorical, LogisticMixture
from elbo_lab.models import laws
from elbo_lab.models.laws import LEAST_LOG_SCALE, LEAST_SCALE, MOST_LOG_SCALE

pytestmark = pytest.mark.usefixtures("fast_compilation")

LEVELS = np.arange(256)
DRAWS = 4000
# One pixel of three colours, two components: [M], [C, M], [C, M], [pairs, M].
MIXTURE = (
    np.array([0.4, -0.3]),
    np.array([[0.2, 0.7], [0.5, 0.4], [0.9, 0.1]]),
    np.array([[-2.5, -4.0], [-3.0, -1.5], [-2.0, -3.5]]),
    np.array([[0.8, -0.6], [-0.5, 0.9], [0.3, 0.7]]),
)


def level_masses(location, log_scale):
    """Masses of all levels, float64, [*shape of the location, 256]."""
    edges = np.concatenate([[-np.inf], (LEVELS[:-1] + 0.5) / 255, [np.inf]])
    below = special.expit((edges - np.asarray(location)[..., None]) / np.exp(log_scale)[..., None])
    return np.diff(below, axis=-1)


def pair_masses():
    """Masses of the first two colours of MIXTURE, float64, [256, 256]."""
    logits, location, log_scale, coefficients = MIXTURE
    weights, x = special.softmax(logits), LEVELS / 255
    masses = np.zeros((256, 256))
    for m in range(2):
        first = level_masses(location[0, m], log_scale[0, m])
        shifted = location[1, m] + coefficients[0, m] * (x - 0.5)
        second = level_masses(shifted, np.full(256, log_scale[1, m]))
        masses += weights[m] * first[:, None] * second
    return masses


def mixture(colours: int, dtype=jnp.float32) -> LogisticMixture:
    """MIXTURE for the first colours, as a law of one pixel."""
    logits, location, log_scale, coefficients = (jnp.asarray(p, dtype)[None] for p in MIXTURE)
    pairs = colours * (colours - 1) // 2
    return LogisticMixture(
        logits, location[:, :colours], log_scale[:, :colours], coefficients[:, :pairs]
    )


@jax.jit
def computed_of_mixtures(pairs, triples):
    one, two, three = mixture(1), mixture(2), mixture(3)
    keys = jax.random.split(jax.random.key(0), 2)
    draws = one.sample(keys[0], (DRAWS,)), two.sample(keys[1], (DRAWS,))
    levels = jnp.asarray(LEVELS / 255, jnp.float32)[:, None]
    values = one.log_prob(levels), two.log_prob(pairs), three.log_prob(triples)
    return values, one.mean, draws


@pytest.fixture(scope="module")
def mixtures():
    # All pairs of levels; all levels of the third colour after 80 and 200.
    pairs = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 2)
    triples = np.stack([np.full(256, 80), np.full(256, 200), LEVELS], -1)
    computed = computed_of_mixtures(*(np.float32(x / 255) for x in (pairs, triples)))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), computed)


def test_a_mixture_of_logistics_has_the_masses_of_numpy(mixtures):
    (one, two, three), *_ = mixtures
    weights = special.softmax(MIXTURE[0])
    expected = np.einsum("m,mv->v", weights, level_masses(MIXTURE[1][0], MIXTURE[2][0]))
    np.testing.assert_allclose(np.exp(one), expected, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(np.exp(two).reshape(256, 256), pair_masses(), rtol=1e-4, atol=1e-9)
    assert np.exp(two).sum() == pytest.approx(1, abs=1e-5)
    # The sum over the third colour is the mass of the first two.
    assert np.exp(three).sum() == pytest.approx(pair_masses()[80, 200], rel=1e-4)


def test_draws_and_mean_of_a_mixture_of_logistics(mixtures):
    _, mean, (one, two) = mixtures
    masses, values = pair_masses(), LEVELS / 255
    expected = np.array([masses.sum(1) @ values, masses.sum(0) @ values])
    np.testing.assert_allclose(mean, expected[:1], atol=1e-5)
    squares = np.array([masses.sum(1) @ values**2, masses.sum(0) @ values**2])
    deviations = np.sqrt(squares - expected**2)
    for draws, number in ((one, 1), (two, 2)):
        assert draws.shape == (DRAWS, number)
        np.testing.assert_allclose(draws, np.round(255 * draws) / 255, atol=1e-7)
        errors = np.abs(draws.mean(axis=0) - expected[:number])
        assert np.all(errors < 4 * deviations[:number] / np.sqrt(DRAWS))
    # The colours depend on each other: their product's mean is not the product of means.
    products = values[:, None] * values
    exact = np.sum(masses * products)
    spread = np.sqrt(np.sum(masses * products**2) - exact**2)
    assert abs(np.mean(two[:, 0] * two[:, 1]) - exact) < 4 * spread / np.sqrt(DRAWS)
    assert abs(exact - expected[0] * expected[1]) > 6 * spread / np.sqrt(DRAWS)


def test_colours_that_depend_on_each_other_have_no_mean():
    with pytest.raises(NotImplementedError, match="several colours"):
        jax.eval_shape(lambda: mixture(2).mean)


def test_a_categorical_law_of_levels():
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)) * 3  # [batch, D, V]
    law = LevelCategorical(jnp.asarray(logits, jnp.float32))
    assert law.batch_shape == (2,) and law.event_shape == (3,)
    levels = np.float32(np.arange(5)[:, None, None] / 4 * np.ones((5, 2, 3)))
    log_prob, mean, draws = jax.jit(
        lambda x: (law.log_prob(x), law.mean, law.sample(jax.random.key(0), (DRAWS,)))
    )(levels)
    log_masses = logits - special.logsumexp(logits, axis=-1, keepdims=True)
    np.testing.assert_allclose(log_prob, log_masses.sum(1).T, rtol=1e-5)
    masses, values = np.exp(log_masses), np.arange(5) / 4
    np.testing.assert_allclose(mean, masses @ values, rtol=1e-5)
    assert set(np.unique(draws)) <= set(np.float32(values))
    deviations = np.sqrt(masses @ values**2 - (masses @ values) ** 2)
    assert np.all(np.abs(np.mean(draws, 0) - masses @ values) < 4 * deviations / np.sqrt(DRAWS))


# --- the laws that networks give ----------------------------------------------------------------


def law_of(name: str, spec: Spec, **settings) -> laws.Likelihood:
    defaults = {"likelihood_variance": 0.01, "likelihood_components": 2}
    return laws.make(SimpleNamespace(likelihood=name, **{**defaults, **settings}), spec)


@pytest.mark.parametrize("name", ["gaussian_fixed", "gaussian_predicted", "gaussian"])
def test_the_gaussians_are_densities(name):
    """The integral by the trapezoidal rule, which is exact to rounding for such a density."""
    law = law_of(name, Spec("real", (1,), None), likelihood_variance=0.3)
    outputs = [jnp.full((1, 1), value) for value in (0.4, -1.0)[: len(law.heads)]]
    x = np.linspace(-12, 12, 2001)
    log_density = law.distribution(*outputs).log_prob(jnp.asarray(x, jnp.float32)[:, None, None])
    assert np.trapezoid(np.exp(np.float64(log_density))[:, 0], x) == pytest.approx(1, abs=1e-5)
    variance = {
        "gaussian_fixed": 0.3,
        "gaussian": (LEAST_SCALE + np.exp(-1)) ** 2,
        "gaussian_predicted": (LEAST_SCALE + np.log1p(np.exp(-1))) ** 2,
    }[name]
    np.testing.assert_allclose(law.distribution(*outputs).variance, [[variance]], rtol=1e-5)


def test_the_fixed_variance_is_the_lambda_of_the_textbook():
    """lambda log p(x|z) = -1/2 |x - mu_G|^2 - lambda D/2 log 2 pi lambda (13.28)."""
    law = law_of("gaussian_fixed", Spec("image", (4,), 256), likelihood_variance=0.07)
    mean, x = np.random.default_rng(5).uniform(size=(2, 4))
    log_prob = law.distribution(jnp.asarray(mean, jnp.float32)).log_prob(jnp.float32(x))
    expected = -0.5 * np.sum((x - mean) ** 2) - 0.07 * 4 / 2 * np.log(2 * np.pi * 0.07)
    assert 0.07 * float(log_prob) == pytest.approx(expected, rel=1e-5)


def test_a_predicted_variance_cannot_diverge():
    """At a constant image the log density is greatest at the floor, and is finite there."""
    law, x = law_of("gaussian_predicted", Spec("image", (3,), 256)), jnp.zeros(3)

    @jax.jit
    @jax.value_and_grad
    def total(raw_scale):
        return law.distribution(jnp.zeros(3), jnp.full(3, raw_scale)).log_prob(x)

    values = {raw: total(raw) for raw in (-1e30, -1e4, -20.0, 0.0, 1e4, 1e30)}
    most = 3 * (np.log(255) - 0.5 * np.log(2 * np.pi))
    assert float(values[-1e30][0]) == pytest.approx(most, rel=1e-6)
    assert all(value <= most * (1 + 1e-6) and np.isfinite(g) for value, g in values.values())


@pytest.mark.slow
def test_gradients_are_finite_at_extreme_outputs():
    """Outputs of either sign and of any size that a diverging network has, for every law."""
    spec = Spec("image", (1, 2, 3), 256)
    x = jnp.asarray([0, 1, 0.5, 1, 0, 0.2], jnp.float32)
    names = [name for name in laws.LIKELIHOODS if name != "gaussian"]  # its scale is one number

    @jax.jit
    def gradients(sizes):
        def of(name, size):
            law = law_of(name, spec)
            outputs = [jnp.where(jnp.arange(head.size or 6) % 2, size, -size) for head in law.heads]
            return jax.value_and_grad(lambda heads: law.distribution(*heads).log_prob(x))(outputs)

        # The discretized logistic law's scale has no ceiling.
        kept = {name: sizes if name != "discretized_logistic" else sizes / 50 for name in names}
        return {name: jax.vmap(lambda s, name=name: of(name, s))(kept[name]) for name in names}

    for name, computed in gradients(jnp.array([-1e3, -1.0, 1.0, 1e3])).items():
        for leaf in jax.tree.leaves(computed):
            assert np.all(np.isfinite(leaf)), name


def test_the_mixtures_scales_have_ends():
    law = law_of("logistic_mixture", Spec("image", (1,), 256))
    for raw, end in ((-1e3, LEAST_LOG_SCALE), (1e3, MOST_LOG_SCALE)):
        made = law.distribution(jnp.zeros(2), jnp.full(2, raw), jnp.zeros(2))
        np.testing.assert_allclose(made.log_scale, end, rtol=1e-6)


def test_a_categorical_law_needs_levels():
    with pytest.raises(ValueError, match="likelihood=categorical needs data of levels"):
        law_of("categorical", Spec("real", (3,), None))
