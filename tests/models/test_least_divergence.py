"""q(z|x) with a least KL to N(0, I) in each dimension, against closed forms in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import lambertw

from elbo_lab import losses
from elbo_lab.data import Batch, Spec
from elbo_lab.models import mlp, text
from elbo_lab.models.base import NOTHING_GIVEN
from elbo_lab.models.networks import gaussian
from elbo_lab.models.posteriors import deviations, least_divergence

pytestmark = pytest.mark.usefixtures("fast_compilation")

FLOORS = (1e-3, 0.25, 1.0, 10.0)


@pytest.mark.parametrize("min_kl", [1e-6, *FLOORS])
def test_the_deviations_are_lamberts(min_kl):
    """x - log x = c has the solutions -W(-e^-c), of both real branches."""
    branches = [-lambertw(-np.exp(-1 - 2 * min_kl), branch).real for branch in (0, -1)]
    # W itself loses half of the digits near its branch point -1/e.
    np.testing.assert_allclose(np.square(deviations(min_kl)), branches, rtol=1e-8)
    for sigma in deviations(min_kl):
        kl = (sigma**2 - 1 - 2 * np.log(sigma)) / 2
        assert kl == pytest.approx(min_kl, rel=1e-9)


@pytest.fixture(scope="module")
def outputs():
    """m and log s of a network: random ones, m = 0, and the ends of what float32 holds."""
    rng = np.random.default_rng(0)
    mean = np.concatenate([3 * rng.normal(size=200), np.zeros(200), [1e-8, -1e-3, 50.0, 0.0, 0.0]])
    log_scale = np.concatenate([4 * rng.normal(size=400), [0.0, -3.0, 2.0, -85.0, 85.0]])
    return np.float32(mean), np.float32(log_scale)


@pytest.fixture(scope="module", params=FLOORS)
def computed(request, outputs):
    """The floor, mean, deviation and KL of each dimension, and the KL's derivatives by m and s."""
    prior = gaussian(jnp.zeros(1), jnp.ones(1))
    law = least_divergence(request.param)

    @jax.jit
    def compute(mean, log_scale):
        def kl(mean, log_scale):
            q = law(mean[:, None], jnp.exp(log_scale)[:, None])
            return losses.kl_divergence(q, prior), q

        q = kl(mean, log_scale)[1]
        gradients = jax.grad(lambda *outputs: jnp.sum(kl(*outputs)[0]), (0, 1))(mean, log_scale)
        drift = jax.grad(lambda *o: jnp.sum(kl(*o)[1].mean), (0, 1))(mean, log_scale)
        return q.mean[:, 0], q.variance[:, 0] ** 0.5, kl(mean, log_scale)[0], gradients, drift

    return request.param, *compute(*outputs)


def test_the_kl_is_the_floor_and_half_the_square_of_m(computed, outputs):
    min_kl, mean, sigma, kl, _, _ = computed
    assert kl.dtype == mean.dtype == sigma.dtype == np.float32
    mean, sigma, m = np.float64(mean), np.float64(sigma), np.float64(outputs[0])
    terms = [mean**2, sigma**2, np.ones_like(m), -2 * np.log(sigma)]
    exact = (terms[0] + terms[1] - terms[2] + terms[3]) / 2
    # Each of the four terms is rounded a few times before they cancel.
    rounding = 4 * np.finfo(np.float32).eps * np.sum(np.abs(terms), axis=0)
    for value in (exact, np.float64(kl)):
        assert np.all(np.abs(value - (min_kl + m**2 / 2)) <= rounding)
        assert np.all(value >= min_kl - rounding)
    least, most = deviations(min_kl)
    assert np.all((least * (1 - 1e-6) <= sigma) & (sigma <= most * (1 + 1e-6)))
    # With m = 0 the whole curve of that KL is reached, from its narrowest Gaussian to its widest.
    on_curve = sigma[m == 0]
    np.testing.assert_allclose([on_curve.min(), on_curve.max()], [least, most], rtol=1e-6)


def test_derivatives_are_finite_and_those_of_the_closed_form(computed, outputs):
    _, _, _, _, (by_mean, by_log_scale), drift = computed
    # KL = delta + m^2 / 2 has the derivative m, and none by s but rounding of terms that cancel.
    np.testing.assert_allclose(by_mean, outputs[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_log_scale, 0, atol=1e-3)
    assert np.all(np.isfinite(drift))


def test_a_model_has_the_floor_in_every_dimension():
    spec = Spec("image", (6,), 2)
    x = jnp.asarray(np.random.default_rng(1).integers(0, 2, (8, 6)), jnp.float32)
    options = mlp.MLPOptions(latent_dims=(3,), hidden_dims=(5,), posterior_min_kl=0.5)
    assert_floor(mlp.make(options, spec), x, 0.5)


@pytest.mark.slow
def test_texts_have_it_too():
    x = jnp.asarray(np.random.default_rng(1).integers(0, 3, (8, 4)), jnp.int32)
    options = text.TextOptions(
        latent_dims=(3,), embedding_dim=3, width=4, layers=2, posterior_min_kl=0.5
    )
    assert_floor(text.make(options, Spec("token", (4,), 3)), x, 0.5)


def assert_floor(model, x, min_kl):
    @jax.jit
    def kls(key):
        params = model.init(key, Batch(x))
        q = model.posterior(params, x, NOTHING_GIVEN)
        unit = gaussian(jnp.zeros(3), jnp.ones(3))
        return q.mean, q.variance, losses.kl_divergence(q, unit)

    mean, variance, kl = map(np.float64, kls(jax.random.key(0)))
    by_dimension = (mean**2 + variance - 1 - np.log(variance)) / 2
    assert np.all(by_dimension >= min_kl - 1e-5)
    assert np.ptp(by_dimension, axis=0).min() > 0  # the rest depends on x
    np.testing.assert_allclose(kl, by_dimension.sum(axis=-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"posterior": "full"}, "posterior_min_kl=0.5 bounds .* got posterior=full"),
        ({"posterior": "iaf"}, "posterior_min_kl=0.5 bounds .* got posterior=iaf"),
        ({"prior": "vamp"}, "posterior_min_kl=0.5 bounds .* got prior=vamp"),
        ({"latent_dims": (4, 3)}, "posterior_min_kl=0.5 bounds .* got latent_dims=4,3"),
    ],
)
def test_what_has_no_such_kl_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mlp.make(mlp.MLPOptions(**values, posterior_min_kl=0.5), Spec("image", (6,), 2))
