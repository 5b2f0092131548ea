"""Means of NumPyro's flows, of Distrax's and TFP's distributions, and of users' classes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions.flows import InverseAutoregressiveTransform

from elbo_lab import configs, evaluation
from elbo_lab.data import Batch
from elbo_lab.distributions import Chain, means
from elbo_lab.evaluation import quantities
from elbo_lab.methods import importance, variational
from elbo_lab.models import Model
from elbo_lab.training import hyper
from tests.training.toys import importance_evaluator

pytestmark = pytest.mark.usefixtures("fast_compilation")

B = 3
MEAN = np.array([[0.5, -1.0], [0.0, 2.0], [-2.0, 0.3]], np.float32)  # [B, 2]
SCALE, SLOPE, SHIFT = np.array([0.7, 0.4], np.float32), 0.5, 0.8


def autoregressive(z):
    """Shift and log-scale of each dimension: (0, 0), then (SHIFT z_1, SLOPE z_1)."""
    first = z[..., :1]
    return tuple(jnp.concatenate([0 * first, c * first], axis=-1) for c in (SHIFT, SLOPE))


def flow(mean):
    base = dist.Normal(mean, SCALE).to_event(1)
    return dist.TransformedDistribution(base, InverseAutoregressiveTransform(autoregressive))


# y_2 = z_2 exp(SLOPE z_1) + SHIFT z_1, and exp(SLOPE z_1) is log-normal.
_growth = np.exp(SLOPE * MEAN[:, 0].astype(float) + (SLOPE * SCALE[0].astype(float)) ** 2 / 2)
FLOW_MEAN = np.stack([MEAN[:, 0], MEAN[:, 1] * _growth + SHIFT * MEAN[:, 0]], axis=-1)
# sd(y_2)^2 = E[y_2^2] - E[y_2]^2 by quadrature over z_1.
_node, _weight = np.polynomial.hermite_e.hermegauss(60)
_z = MEAN[:, :1] + SCALE[0] * _node
_y = MEAN[:, 1:] * np.exp(SLOPE * _z) + SHIFT * _z
_square = _y**2 + (SCALE[1] * np.exp(SLOPE * _z)) ** 2
FLOW_SD = np.stack(
    [
        np.full(B, SCALE[0]),
        np.sqrt(_square @ _weight / np.sqrt(2 * np.pi) - FLOW_MEAN[:, 1] ** 2),
    ],
    axis=-1,
)


class Own:
    """A user's class without a mean; subclasses define one in different ways."""

    def __init__(self, mean=MEAN):
        self.location = jnp.asarray(mean)

    def sample(self, key, sample_shape=()):
        shape = (*sample_shape, *self.location.shape)
        return self.location + SCALE * jax.random.normal(key, shape)

    def log_prob(self, z):
        return dist.Normal(self.location, SCALE).to_event(1).log_prob(z)


class OwnProperty(Own):
    mean = property(lambda self: self.location)


class OwnMethod(Own):
    def mean(self):
        return self.location


class OwnNetwork(Own):
    """Has a network layer called `mean`."""

    def mean(self, inputs):
        raise AssertionError("a layer is not the mean")


class OwnRefusal(Own):
    @property
    def mean(self):
        raise NotImplementedError


class OwnMistake(Own):
    mean = property(lambda self: self.locatoin)


class OwnSmall(Own):
    """Its mean is shared by the whole batch and has no batch dimension."""

    mean = jnp.asarray(MEAN[0])

    def __init__(self):
        super().__init__(np.broadcast_to(MEAN[0], MEAN.shape))


class OwnPair(Own):
    """Its draws are tuples of two layers."""

    def sample(self, key, sample_shape=()):
        z = super().sample(key, sample_shape)
        return z, z[..., :1] > 0


@jax.jit
def _means_of_draws(key):
    laws = {"flow": flow(jnp.asarray(MEAN)), "none": Own(), "refusal": OwnRefusal()}
    laws |= {"network": OwnNetwork(), "pair": OwnPair()}
    keys = jax.random.split(key, len(laws))
    pairs = zip(laws.items(), keys, strict=True)
    return {name: means.mean_of(law_key, law) for (name, law), law_key in pairs}


def test_without_a_closed_form_the_mean_is_that_of_draws():
    computed = _means_of_draws(jax.random.key(0))
    error = 1 / np.sqrt(means.NUM_DRAWS)
    assert np.all(np.abs(computed["flow"] - FLOW_MEAN) < 5 * FLOW_SD * error)
    assert np.any(np.abs(computed["flow"] - FLOW_MEAN) > 1e-6)
    pair, positive = computed["pair"]
    for value in (computed["none"], computed["refusal"], computed["network"], pair):
        assert value.shape == MEAN.shape
        assert np.all(np.abs(value - MEAN) < 5 * SCALE * error)
    # P(z_1 > 0) = (1 + erf(mean / (scale sqrt 2))) / 2
    probability = 0.5 * (1 + jax.scipy.special.erf(MEAN[:, :1] / SCALE[0] / np.sqrt(2)))
    assert positive.dtype == jnp.float32
    assert np.all(np.abs(positive - probability) < 5 * 0.5 * error)


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (OwnProperty(), MEAN),
        (OwnMethod(), MEAN),
        (OwnSmall(), np.broadcast_to(MEAN[0], MEAN.shape)),
        (dist.Normal(MEAN, SCALE).to_event(1), MEAN),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_closed_form_is_taken_as_it_is(law, expected):
    np.testing.assert_array_equal(means.mean_of(jax.random.key(0), law), expected)


def test_a_mistake_inside_a_mean_is_no_missing_mean():
    with pytest.raises(AttributeError, match="locatoin"):
        means.mean_of(jax.random.key(0), OwnMistake())


def test_a_mean_of_another_shape_is_refused():
    law = OwnSmall()
    law.mean = jnp.zeros(5)
    with pytest.raises(ValueError, match=r"OwnSmall.mean has the shape \(5,\), but a draw has \(3"):
        means.mean_of(jax.random.key(0), law)


def test_a_figure_shows_the_mean_or_else_a_draw():
    np.testing.assert_array_equal(means.mean_or_draw(jax.random.key(1), OwnMethod()), MEAN)
    drawn, expected = means.mean_or_draw(jax.random.key(1), Own()), Own().sample(jax.random.key(1))
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.slow
def test_means_of_distrax_and_tfp():
    import distrax
    from tensorflow_probability.substrates import jax as tfp

    tfd, tfb = tfp.distributions, tfp.bijectors
    mean, scale = jnp.asarray(MEAN), jnp.asarray(SCALE)
    closed = {
        "distrax": distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(scale, mean.shape)),
        "tfp": tfd.MultivariateNormalDiag(mean, scale),
        "tfp, to events": tfd.Independent(tfd.Normal(mean, scale), 1),
    }
    for law in closed.values():
        np.testing.assert_array_equal(means.mean_of(jax.random.key(0), law), MEAN)
    squashed = {
        "distrax": distrax.Transformed(closed["distrax"], distrax.Block(distrax.Tanh(), 1)),
        "tfp": tfd.TransformedDistribution(closed["tfp"], tfb.Tanh()),
    }
    # E tanh(z) by quadrature; |tanh| < 1, so that a standard deviation is at most 1.
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    values = np.tanh(MEAN[..., None].astype(float) + SCALE[:, None] * nodes)
    exact = values @ weights / np.sqrt(2 * np.pi)
    for law in squashed.values():
        computed = jax.jit(lambda key: means.mean_of(key, law))(jax.random.key(0))  # noqa: B023
        assert np.all(np.abs(computed - exact) < 4 / np.sqrt(means.NUM_DRAWS))


# --- where means are used ---------------------------------------------------------------------


@pytest.mark.slow
def test_an_evaluation_by_a_flow():
    """A flow as posterior, a likelihood that has no mean, and means against the closed form."""
    model = Model(
        None,
        lambda params, given: dist.Normal(jnp.zeros(2), 1.0).to_event(1),
        lambda params, x, given: flow(x),
        lambda params, z, given: Own(z),
    )
    evaluator, examples = importance_evaluator(model, 2, 4), Batch(jnp.asarray(MEAN))
    result = evaluation.evaluate(evaluator, jax.random.key(0), {}, (), examples)
    (layer,) = quantities.layers(result)
    assert np.all(np.abs(layer - FLOW_MEAN) < 5 * FLOW_SD / np.sqrt(means.NUM_DRAWS))
    # The variance that the noise of draws adds to a unit's activity is far below the threshold.
    assert np.max(FLOW_SD**2) / means.NUM_DRAWS < evaluation.ACTIVE_THRESHOLD / 20


def test_layer_means_of_a_hierarchy_without_closed_forms():
    chain = Chain(OwnMethod(), [lambda z: Own(2 * z), lambda z: OwnProperty(z + 1)])
    computed = jax.jit(lambda key: importance.layer_means(key, chain))(jax.random.key(0))
    below, middle, above = quantities.layers(computed)
    np.testing.assert_array_equal(below, MEAN)
    # Means given one draw of the layer below: 2 z_1 with z_1 ~ N(MEAN, SCALE^2).
    assert np.all(np.abs(middle - 2 * MEAN) < 2 * 5 * SCALE)
    assert np.any(np.abs(middle - 2 * MEAN) > 0.1 * SCALE)
    assert above.shape == MEAN.shape


def test_an_objective_of_the_mean_takes_a_method_and_refuses_where_there_is_none():
    """lambda KL + 1/2 |x - mu_G(z)|^2 with q = p and mu_G constant: no draw enters."""
    config = configs.make(objective="lambda_vae", k=1, regularization=0.5)
    prior = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    x = MEAN + np.array([1.0, 2.0], np.float32)

    def loss(likelihood):
        model = Model(
            None,
            lambda params, given: prior,
            lambda params, x, given: prior.expand((B,)),
            lambda params, z, given: likelihood(jnp.broadcast_to(jnp.asarray(MEAN), z.shape)),
        )
        objective = variational.objective_loss(config, model)
        hparams = hyper.hyperparameters([config])
        return objective(jax.random.key(0), {}, (), Batch(jnp.asarray(x)), hparams).loss

    np.testing.assert_allclose(loss(OwnMethod), np.full(B, 2.5), rtol=1e-6)
    with pytest.raises(ValueError, match="lambda_vae needs a p.x.z. with a closed-form mean"):
        loss(Own)
