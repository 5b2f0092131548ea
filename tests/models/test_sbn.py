"""Sigmoid belief networks against NumPy sums over every state, in float64."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, losses, models
from elbo_lab.cli import validation
from elbo_lab.data import Batch, Spec
from elbo_lab.errors import UserError
from elbo_lab.methods import importance, variational
from elbo_lab.models import enumeration
from elbo_lab.training import hyper
from tests.losses import numpy_bounds

pytestmark = pytest.mark.usefixtures("fast_compilation")

D = 3
IMAGES = np.array(list(itertools.product((0, 1), repeat=D)), np.float64)
# Latent dimensions and hidden widths.
SHAPES = {"one layer": ((4,), ()), "two layers": ((2, 2), ()), "MLPs": ((2, 1), (3,))}
every_shape = pytest.mark.parametrize("name", SHAPES)


def model_of(latent_dims, hidden_dims=()):
    config = configs.make(model="sbn", latent_dims=latent_dims, hidden_dims=hidden_dims)
    return models.make(config, Spec("image", (D,), 2))


@functools.cache
def model_and_params(latent_dims, hidden_dims=()):
    """A model, and parameters that are all different from zero, float32."""
    model = model_of(latent_dims, hidden_dims)
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(jnp.zeros((1, D))))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda p: np.float32(0.8 * rng.normal(size=p.shape)), shapes)


# The model in NumPy, for real and complex parameters.


def states(sizes):
    """All states of all layers: a tuple of [S, L_i]."""
    units = np.array(list(itertools.product((0, 1), repeat=sum(sizes))), np.float64)
    return tuple(np.split(units, np.cumsum(sizes)[:-1], axis=1))


def logits(network, h):
    """Logits that a network, an MLP of at most one hidden layer, gives of h."""
    hidden = network.get("trunk", {}).get("hidden_0")
    if hidden is not None:
        h = np.tanh(h @ hidden["kernel"] + hidden["bias"])
    return h @ network["logits"]["kernel"] + network["logits"]["bias"]


def log_bernoulli(logits, value):
    return np.sum(value * logits - np.log(1 + np.exp(logits)), axis=-1)


def numpy_log_pz(params, z):
    total = log_bernoulli(params["prior"]["top"]["logits"], z[-1])
    for i, (below, above) in enumerate(itertools.pairwise(z), 1):
        total = total + log_bernoulli(logits(params["prior"][f"layer_{i}"], above), below)
    return total


def numpy_log_qz_x(params, z, x):
    return sum(
        log_bernoulli(logits(params["encoder"][f"layer_{i}"], below), above)
        for i, (below, above) in enumerate(itertools.pairwise((x, *z)), 1)
    )


def numpy_log_joint(params, z, x):
    return numpy_log_pz(params, z) + log_bernoulli(logits(params["decoder"], z[0]), x)


def expected_bound(params, sizes, x, bound, number):
    """E[bound(log w_1, ..., log w_number)] over all tuples of draws from q(z|x), one x [D]."""
    z = states(sizes)
    log_q = numpy_log_qz_x(params, z, x)
    log_w = numpy_log_joint(params, z, x) - log_q
    tuples = np.array(list(itertools.product(range(len(log_q)), repeat=number))).T  # [K, T]
    return np.sum(np.exp(np.sum(log_q[tuples], axis=0)) * bound(log_w[tuples]))


def float64(params):
    return jax.tree.map(np.float64, params)


@every_shape
def test_exact_log_px_and_posterior_equal_numpy(name):
    sizes, hidden_dims = SHAPES[name]
    model, params = model_and_params(sizes, hidden_dims)
    x = np.float32(IMAGES.reshape(2, 4, D))  # any number of batch dimensions

    @jax.jit
    def compute(params, x):
        _, log_posterior = enumeration.posterior(model, params, sizes, x)
        return model.log_px(params, x), log_posterior

    log_px, log_posterior = compute(params, x)
    z = states(sizes)
    log_joint = np.stack([numpy_log_joint(float64(params), z, row) for row in IMAGES], axis=1)
    expected = np.log(np.sum(np.exp(log_joint), axis=0))
    np.testing.assert_allclose(log_px, expected.reshape(2, 4), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        log_posterior.reshape(-1, len(IMAGES)), log_joint - expected, rtol=1e-5, atol=2e-6
    )
    np.testing.assert_allclose(np.sum(np.exp(np.float64(log_px))), 1, rtol=1e-6)


def test_sums_over_several_chunks_of_states():
    sizes = (8,)
    assert 2**8 > enumeration.STATES_PER_CHUNK
    model, params = model_and_params(sizes)
    z = states(sizes)
    expected = [np.log(np.sum(np.exp(numpy_log_joint(float64(params), z, x)))) for x in IMAGES]
    log_px = jax.jit(model.log_px)(params, np.float32(IMAGES))
    np.testing.assert_allclose(log_px, expected, rtol=1e-5, atol=1e-6)


def test_states_are_listed_in_the_order_of_binary_numbers():
    np.testing.assert_array_equal(enumeration.binary_states(3), states((3,))[0])


def test_enumeration_is_for_few_units():
    assert model_of((9, 7)).log_px is not None
    assert model_of((9, 8)).log_px is None
    with pytest.raises(
        ValueError, match="17 binary variables have 2.17 values; those of at most 16 are"
    ):
        enumeration.posterior(model_of((9, 8)), {}, (9, 8), jnp.zeros((1, D)))


def test_bounds_lie_below_log_px_and_have_their_expectations():
    sizes, number, draws = (2, 1), 400, 20
    model, params = model_and_params(sizes)
    measure = jax.jit(importance.make_measure(model, 2, draws))
    x = np.repeat(IMAGES, number, axis=0)
    measured = measure(jax.random.key(0), params, (), Batch(jnp.asarray(x, jnp.float32)))
    measured = {name: np.float64(measured[name]).reshape(-1, number) for name in measured}
    for name, bound, k in (("elbo", numpy_bounds.mean, 1), ("iwae", numpy_bounds.log_mean_exp, 2)):
        expected = [expected_bound(float64(params), sizes, row, bound, k) for row in IMAGES]
        assert np.all(expected <= measured["log_px"][:, 0])
        error = np.std(measured[name], axis=1, ddof=1) / np.sqrt(number)
        assert np.all(np.abs(np.mean(measured[name], axis=1) - expected) < 4 * error)
    assert np.all(np.mean(measured["log_likelihood"], axis=1) <= measured["log_px"][:, 0])


BOUNDS = {"elbo": numpy_bounds.mean, "iwae": numpy_bounds.log_mean_exp}
ESTIMATORS = ("score", "score_loo", "vimco", "disarm")


def exact_gradient(params, sizes, x, bound):
    """The gradient of the expected bound of two draws, a list of leaves, by complex steps."""
    leaves, structure = jax.tree.flatten(float64(params))

    def along(leaf, index):
        moved = [np.array(other, complex) for other in leaves]
        moved[leaf][index] += 1j * numpy_bounds.STEP
        moved = jax.tree.unflatten(structure, moved)
        return expected_bound(moved, sizes, x, bound, 2).imag / numpy_bounds.STEP

    return [
        np.array([along(i, index) for index in np.ndindex(leaf.shape)]).reshape(leaf.shape)
        for i, leaf in enumerate(leaves)
    ]


@pytest.mark.parametrize("objective", BOUNDS)
@pytest.mark.parametrize("sizes", [(3,), pytest.param((2, 1), marks=pytest.mark.slow)], ids=str)
def test_mean_gradients_are_those_of_the_expected_bound(objective, sizes):
    model, params = model_and_params(sizes)
    x, number = IMAGES[5], 4000

    def loss(params, key, estimator):
        image = jnp.asarray(x, jnp.float32)
        value, _ = losses.OBJECTIVES[objective](
            key,
            model.posterior(params, image),
            model.prior(params),
            lambda z: model.likelihood(params, z).log_prob(image),
            num_samples=2,
            estimator=estimator,
            vectorized=True,
        )
        return value

    def gradients(params, key):
        return [jax.grad(loss)(params, jax.random.clone(key), name) for name in ESTIMATORS]

    keys = jax.random.split(jax.random.key(4), number)
    by_estimator = jax.jit(jax.vmap(gradients, in_axes=(None, 0)))(params, keys)
    expected = exact_gradient(params, sizes, x, BOUNDS[objective])
    assert max(np.max(np.abs(leaf)) for leaf in expected) > 0.1
    for name, gradient in zip(ESTIMATORS, by_estimator, strict=True):
        for drawn, leaf in zip(jax.tree.leaves(gradient), expected, strict=True):
            drawn = np.asarray(drawn, np.float64)
            error = np.std(drawn, axis=0, ddof=1) / np.sqrt(number)
            assert np.all(np.abs(np.mean(drawn, axis=0) + leaf) < 4.5 * error + 1e-6), name


@pytest.mark.parametrize("vectorized", [True, False])
def test_the_sum_over_z_gives_the_exact_gradient_of_the_elbo(vectorized):
    sizes, x = (3,), IMAGES[[5, 2]]
    model, params = model_and_params(sizes)

    def loss(params):
        values, aux = losses.elbo(
            jax.random.key(0),
            model.posterior(params, jnp.asarray(x, jnp.float32)),
            model.prior(params),
            lambda z: model.likelihood(params, z).log_prob(jnp.asarray(x, jnp.float32)),
            num_samples=3,
            estimator="enumerate",
            vectorized=vectorized,
        )
        assert values.shape == (2,) and aux.log_w.shape == (3, 2)
        return jnp.sum(values)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    bounds = [expected_bound(float64(params), sizes, row, numpy_bounds.mean, 1) for row in x]
    np.testing.assert_allclose(value, -np.sum(bounds), rtol=1e-5)
    expected = [exact_gradient(params, sizes, row, numpy_bounds.mean) for row in x]
    for leaf, *parts in zip(jax.tree.leaves(gradient), *expected, strict=True):
        np.testing.assert_allclose(leaf, -sum(parts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "likelihood"), [("lambda_vae", "gaussian"), ("free_bits", "bernoulli")]
)
def test_objectives_that_are_means_over_draws_take_the_sum_over_z(objective, likelihood):
    values = {"objective": objective, "likelihood": likelihood, "latent_dims": (3,)}
    config = configs.make(model="sbn", estimator="enumerate", **values)
    model = models.make(config, Spec("real", (D,), None))
    batch = Batch(jnp.zeros((2, D)))
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    loss = variational.objective_loss(config, model)
    hparams = hyper.hyperparameters([config])
    assert jax.eval_shape(loss, jax.random.key(0), params, (), batch, hparams).loss.shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("latent_dims", [(3,), (3, 2)], ids=str)
def test_every_objective_that_is_not_refused_has_a_gradient(latent_dims):
    refused = []
    for name in losses.OBJECTIVES:
        options = {"m": 2} if name in ("miwae", "piwae") else {}
        options |= {"phase": "both"} if name == "rws" else {}
        likelihood = "gaussian" if name == "lambda_vae" else "bernoulli"
        values = {"objective": name, "latent_dims": latent_dims, "likelihood": likelihood}
        config = configs.make(model="sbn", binarization="none", **values, **options)
        try:
            validation.check(config)
        except UserError:
            refused.append(name)
            continue
        model = models.make(config, Spec("image", (D,), 2))
        batch = Batch(jnp.zeros((4, D)))
        params = jax.eval_shape(model.init, jax.random.key(0), batch)
        loss = variational.objective_loss(config, model, 4)
        hparams = hyper.hyperparameters([config])

        def mean_loss(params):
            return jnp.mean(loss(jax.random.key(0), params, (), batch, hparams).loss)  # noqa: B023

        jax.eval_shape(jax.grad(mean_loss), params)
    needs_paths = {"beta_tcvae", "info_vae"}
    needs_one_layer = {"capacity_vae", "free_bits", "free_bits_batch", "dip_vae_i", "dip_vae_ii"}
    assert set(refused) == needs_paths | (needs_one_layer if len(latent_dims) > 1 else set())


def test_parts_of_three_layers_with_linear_networks():
    params = jax.eval_shape(model_of((200, 100, 50)).init, jax.random.key(0), Batch(IMAGES))
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)

    def linear(inputs, outputs):
        return {"logits": {"kernel": (inputs, outputs), "bias": (outputs,)}}

    assert shapes == {
        "encoder": {
            "layer_1": linear(D, 200),
            "layer_2": linear(200, 100),
            "layer_3": linear(100, 50),
        },
        "decoder": linear(200, D),
        "prior": {
            "layer_1": linear(100, 200),
            "layer_2": linear(50, 100),
            "top": {"logits": (50,)},
        },
    }


def test_draws_are_binary_float32_and_their_kl_has_a_closed_form():
    model, params = model_and_params((4,))

    @jax.jit
    def compute(params):
        posterior, prior = model.posterior(params, np.float32(IMAGES)), model.prior(params)
        z = posterior.sample(jax.random.key(0), (6,))
        return z, posterior.mean, prior.mean, losses.kl_divergence(posterior, prior)

    z, q, p, kl = compute(params)
    chex.assert_type(z, np.float32)
    assert set(np.unique(z)) == {0, 1}
    q, p = np.float64(q), np.float64(p)
    expected = np.sum(q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)), axis=1)
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
