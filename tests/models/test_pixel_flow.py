"""Flows of images: exact masses by quadrature, and bounds by uniform and by learned noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbo_lab import configs, losses
from elbo_lab.cli import validation
from elbo_lab.data import Batch, Spec
from elbo_lab.distributions.dequantization import Dequantized, Rounding, uniform_noise
from elbo_lab.errors import UserError
from elbo_lab.models import pixel_flow
from elbo_lab.models.base import NOTHING_GIVEN

pytestmark = pytest.mark.usefixtures("fast_compilation")

LEVELS = 4
SPEC = Spec("image", (1, 2), LEVELS)
CELLS = np.stack(np.meshgrid(*2 * [np.arange(LEVELS)], indexing="ij"), -1).reshape(-1, 2)
X = jnp.asarray(CELLS / (LEVELS - 1), jnp.float32)
# Smooth networks, for quadrature.
SIZES = {"prior_flow": "affine", "prior_depth": 2, "prior_width": (5,), "noise_width": (4,)}
SIZES |= {"activation": "tanh"}


@functools.cache
def start(dequantization):
    """The model, and parameters drawn anew: of p(v), and of the noise that is not uniform."""
    model = pixel_flow.make(pixel_flow.FlowOptions(dequantization, **SIZES), SPEC)
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(X))
    rng = np.random.default_rng(1)
    prior = jax.tree.map(lambda s: jnp.float32(0.5 * rng.normal(size=s.shape)), shapes["prior"])
    encoder = jax.tree.map(lambda s: jnp.float32(0.5 * rng.normal(size=s.shape)), shapes["encoder"])
    return model, {"encoder": encoder, "decoder": {}, "prior": prior}


def legendre(first, last, number):
    """Points and weights of a product rule on a square, [N, 2] and [N]."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    nodes, weights = first + (last - first) * (nodes + 1) / 2, weights * (last - first) / 2
    points = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    return points, np.outer(weights, weights).ravel()


@functools.cache
def masses(dequantization):
    """P(x) of all 16 images, and the integral of p(v) over all v at half of the parameters."""
    model, params = start(dequantization)
    points, weights = legendre(0, 1, 24)
    # All v = LEVELS (t - 0.05) / 0.9, t a sigmoid, whose tails need a grid of its argument.
    # They are exponential, and with the scales of all parameters too long for float64.
    line, step = np.linspace(-30, 30, 751, retstep=True)
    t = 1 / (1 + np.exp(-np.stack(np.meshgrid(line, line), axis=-1)))
    with jax.enable_x64(True):
        density = jax.jit(lambda params, v: jnp.exp(model.prior(params, NOTHING_GIVEN).log_prob(v)))
        by_cell = density(params, CELLS[:, None] + points)
        half = params | {"prior": jax.tree.map(lambda leaf: leaf / 2, params["prior"])}
        everywhere = density(half, LEVELS * (t - 0.05) / 0.9)
    slope = np.prod(LEVELS / 0.9 * t * (1 - t), axis=-1)
    return np.asarray(by_cell) @ weights, np.sum(np.asarray(everywhere) * slope) * step**2


def log_weights(model, params, key, number):
    """[number, 16]."""
    draws = losses.log_weights(
        key,
        model.posterior(params, X, NOTHING_GIVEN),
        model.prior(params, NOTHING_GIVEN),
        lambda v: model.likelihood(params, v, NOTHING_GIVEN).log_prob(X),
        number,
        vectorized=True,
    )
    return draws.log_w


@pytest.mark.parametrize(
    "dequantization", ["uniform", pytest.param("variational", marks=pytest.mark.slow)]
)
def test_weights_average_to_the_exact_mass_and_bounds_lie_below_it(dequantization):
    number, group = 20_000, 10
    model, params = start(dequantization)
    mass, total = masses(dequantization)
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert mass.sum() < 1
    draw = jax.jit(lambda params, key: log_weights(model, params, key, number))
    log_w = np.float64(draw(params, jax.random.key(2)))
    w = np.exp(log_w)
    assert np.all(np.abs(w.mean(axis=0) - mass) <= 4 * w.std(axis=0) / np.sqrt(number))
    iwae = np.log(w.reshape(-1, group, len(X)).mean(axis=1))
    elbo, bound = log_w.mean(axis=0), iwae.mean(axis=0)
    error = iwae.std(axis=0) / np.sqrt(len(iwae))
    assert np.all(elbo < bound)
    assert np.all(bound <= np.log(mass) + 4 * error)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["reparam", "dreg"])
def test_learned_noise_starts_as_uniform_and_gets_a_higher_bound(estimator):
    model, params = start("variational")
    params = params | {"encoder": model.init(jax.random.key(0), Batch(X))["encoder"]}
    optimizer = optax.adam(0.03)
    mass, _ = masses("variational")

    def loss(encoder, key):
        own = params | {"encoder": encoder}
        value, _ = losses.elbo(
            key,
            model.posterior(own, X, NOTHING_GIVEN),
            model.prior(own, NOTHING_GIVEN),
            lambda v: model.likelihood(own, v, NOTHING_GIVEN).log_prob(X),
            num_samples=8,
            estimator=estimator,
            vectorized=True,
        )
        return jnp.mean(value)

    @jax.jit
    def train(key, encoder):
        def body(state, step_key):
            encoder, moments = state
            gradient = jax.grad(loss)(encoder, step_key)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(encoder, updates), moments), None

        keys = jax.random.split(key, 300)
        return jax.lax.scan(body, (encoder, optimizer.init(encoder)), keys)[0][0]

    trained = train(jax.random.key(3), params["encoder"])
    draw = jax.jit(lambda params, key: log_weights(model, params, key, 4000))
    before, after = (
        np.float64(draw(own, jax.random.key(4))) for own in (params, params | {"encoder": trained})
    )
    q = model.posterior(params, X, NOTHING_GIVEN)
    np.testing.assert_allclose(q.log_prob(q.sample(jax.random.key(5), (3,))), 0, atol=1e-4)
    gain, error = (after - before).mean(), (after - before).std() / np.sqrt(after.size)
    assert gain > 4 * error
    gap = np.log(mass) - before.mean(axis=0)
    assert gain > 0.5 * gap.mean()
    assert np.mean(after) <= np.log(mass).mean() + 4 * error


def test_noise_stays_within_its_cube_and_uniform_noise_has_density_one():
    spec = Spec("image", (1, 3), 256)
    level = jnp.array([[0.0, 128.0, 255.0]])
    law = Dequantized(level, uniform_noise(level.shape))
    form = law.base_form()
    y = jnp.array([[[-80.0, 0.0, 80.0]], [[80.0, 80.0, -80.0]]])
    v = form.forward(y)
    np.testing.assert_array_equal(np.floor(v), np.broadcast_to(level, v.shape))
    np.testing.assert_allclose(form.log_prob(y), 0, atol=1e-5)
    np.testing.assert_allclose(law.log_prob(v), 0, atol=1e-5)
    rounding = Rounding(v, spec)
    np.testing.assert_array_equal(rounding.mean, np.broadcast_to(level / 255, v.shape))
    np.testing.assert_array_equal(rounding.log_prob(level / 255), 0)
    np.testing.assert_array_equal(law.log_prob(v + 1), -np.inf)
    np.testing.assert_array_equal(rounding.log_prob((level + 1) / 255), -np.inf)


REFUSALS = [
    ({"noise_depth": 1}, "--noise_depth=1 needs --dequantization=variational; got uniform."),
    ({"encoder_steps": 2}, "--encoder_steps=2 needs --dequantization=variational; got uniform."),
    (
        {"objective": "rws"},
        "--objective=rws does not go with --model=flow, whose bounds are functions of the "
        "log-weights of noise; valid: elbo, beta_vae, iwae, miwae, ciwae, renyi, jackknife, tvo, "
        "sumo.",
    ),
    (
        {"objective": "elbo", "kl": "analytic"},
        "--objective=elbo with --kl=analytic does not go with --model=flow, since the KL of the "
        "noise has no closed form; use --kl=mc.",
    ),
]


@pytest.mark.parametrize("values, message", REFUSALS)
def test_settings_that_do_not_go_together(values, message):
    with pytest.raises(UserError) as caught:
        validation.check(configs.make(model="flow", **values))
    assert str(caught.value) == message


def test_other_data_are_refused():
    for spec in (Spec("real", (3,), None), Spec("token", (3,), 5), Spec("image", (3, 3), None)):
        with pytest.raises(ValueError, match="model=flow needs images with levels"):
            pixel_flow.make(pixel_flow.FlowOptions(), spec)
