"""Protocols have the settings of their papers and public code, and each setting has its effect."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, methods, models, schedules, training
from elbo_lab.cli import protocols, validation
from elbo_lab.data import Batch, Dataset, Spec, hold_out
from elbo_lab.errors import UserError
from elbo_lab.models.base import NOTHING_GIVEN
from elbo_lab.training import optimizer, step
from tests.training.toys import method_of

pytestmark = pytest.mark.usefixtures("fast_compilation")

# Settings that the papers and their code state (Burda et al. 2016, section 5, and experiments.py,
# optimizers.py and loop.py of the public code; main_loop.py of Tucker et al. 2018).
STATED = {
    "burda2015_paper": dict(
        batch_size=20, epochs=3280, learning_rate=0.001, adam_b1=0.9, adam_b2=0.999, adam_eps=1e-4,
        hidden_dims=(200, 200), latent_dims=(50,), activation="tanh", lr_schedule="burda",
        binarization="dynamic", eval_k=5000, held_out=0, shuffle=True, batch_gradient="mean",
    ),
    "burda2015_code": dict(
        batch_size=20, epochs=3280, adam_b1=0.99, adam_eps=1e-4, adam_nu_start=1.0, held_out=400,
        adam_eps_hat=True, shuffle=False, batch_gradient="sum", lr_schedule="burda_rounded",
        init="glorot_same_key", output_bias="train_mean", au_images=500, test_draw="by_seed",
    ),
    "rainforth2018": dict(k=64, batch_size=20, latent_dims=(50,), hidden_dims=(200, 200)),
    "tucker2018": dict(
        batch_size=32, k=64, latent_dims=(50,), hidden_dims=(200, 200), activation="tanh",
        learning_rate=3e-4, lr_schedule="constant", center_inputs=True, held_out=10_000,
    ),
    # Ours, as the comments in protocols.py describe them.
    "fast": dict(
        batch_size=250, optimizer="soap", soap_max_dim=256, adam_eps=1e-8, estimator="stl",
        lr_schedule="cosine", latent_dims=(50,), hidden_dims=(200, 200), activation="tanh",
        binarization="dynamic", eval_k=5000, held_out=0,
    ),
    "fast_continued": dict(
        batch_size=250, optimizer="soap", learning_rate=2e-3, epochs=15, estimator="stl",
    ),
    "fast_adam": dict(
        batch_size=100, optimizer="adam", estimator="dreg", lr_schedule="cosine", latent_dims=(50,),
        hidden_dims=(200, 200), activation="tanh", binarization="dynamic", eval_k=5000,
    ),
}  # fmt: skip
TINY = configs.make(hidden_dims=(6,), latent_dims=(3,), batch_size=4, epochs=2, k=2, eval_k=2)
DATA_DIM = 9
SPEC = Spec("image", (3, 3), 2)
GREY = Batch(jnp.full((1, DATA_DIM), 0.3))


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_protocols_are_valid_and_have_the_stated_settings(name):
    config = protocols.PROTOCOLS[name]
    validation.check(config)
    assert {key: configs.all_values(config)[key] for key in STATED[name]} == STATED[name]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.k = 1


def test_tuckers_public_code_takes_five_million_steps():
    config = protocols.PROTOCOLS["tucker2018"]
    # There, the last and smaller batch of each pass also counts as a step.
    assert training.total_steps(config, 50_000) == pytest.approx(5e6, rel=1e-3)


def test_fast_adam_takes_a_tenth_of_the_papers_steps():
    fast, paper = (
        training.total_steps(protocols.PROTOCOLS[name], 60_000)
        for name in ("fast_adam", "burda2015_paper")
    )
    assert fast == 0.1 * paper


def test_a_budget_does_not_make_invalid_epochs_valid():
    for epochs in (0, -5):
        scaled = protocols.scaled(configs.make(epochs=epochs), 1.0)
        with pytest.raises(UserError, match="--epochs must be at least 1"):
            validation.check(scaled)


@pytest.mark.parametrize("name", ["burda", "burda_rounded"])
@pytest.mark.parametrize("budget", [1.0, 0.1, 0.01])
def test_a_budget_keeps_the_schedules_shape(name, budget):
    config = protocols.scaled(protocols.PROTOCOLS["burda2015_code"], budget)
    assert config.epochs == round(3280 * budget)
    total = training.total_steps(config, 59_600)
    assert total == 2980 * config.epochs
    factor = jax.vmap(schedules.LR_SCHEDULES[name](total))
    # The middle of each stage of 3^i passes, in steps of the shrunk run.
    middles = [(3**i - 1) / 2 + 3**i / 2 for i in range(8)]
    factors = factor(jnp.asarray([int(middle / 3280 * total) for middle in middles]))
    rounded = [1.0, 0.72, 0.52, 0.37, 0.27, 0.19, 0.14, 0.1]
    exact = [10 ** (-i / 7) for i in range(8)]
    np.testing.assert_allclose(factors, rounded if name == "burda_rounded" else exact, rtol=1e-6)


def test_a_tiny_budget_trains_one_pass():
    assert protocols.scaled(protocols.PROTOCOLS["burda2015_paper"], 1e-6).epochs == 1


@pytest.fixture
def images():
    return np.where(np.random.default_rng(0).random((12, DATA_DIM)) < 0.3, 255, 0).astype(np.uint8)


def test_the_gradient_of_the_sum_is_the_batch_times_that_of_the_mean():
    x = np.array([[1.0, 2.0], [3.0, -5.0], [0.5, 1.0]])

    def loss(key, params, x, hparams):
        del key, hparams
        return x @ params["w"], {"bound": -x @ params["w"]}

    method = method_of(lambda key, mean: {"w": jnp.ones(2)}, loss)
    batch = Batch(jnp.asarray(x, jnp.float32))

    def first_moment(which):
        tx = optimizer.make(TINY)
        params, stats = method.init(None, batch)
        none = step.Failure.none(method.terms)
        state = step.TrainState(jnp.int32(0), params, tx.init(params), none, stats)
        stepper = step.Stepper(method.loss, tx, lambda h, _: h, step.BATCH_GRADIENTS[which])
        after, _ = step.train_step(stepper, {"learning_rate": 1.0}, state, (None, None), batch)
        return after.opt_state.mu["w"]

    # After one step Adam's first moment is (1 - b1) times the gradient.
    np.testing.assert_allclose(first_moment("sum"), 0.1 * x.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(first_moment("mean"), 0.1 * x.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("shuffle", [True, False])
def test_without_shuffling_images_keep_their_stored_order(shuffle):
    config = configs.replace(TINY, shuffle=shuffle)
    loop = training.make_loop(config, methods.make(config, SPEC, 50), 50)
    orders = loop.orders(jax.random.key(0), 3)
    assert orders.shape == (2, 50)
    stored = np.all(orders == np.arange(50))
    assert stored != shuffle
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.stack([np.arange(50)] * 2))


def test_glorot_same_key_draws_every_layer_from_one_stream():
    config = configs.replace(TINY, init="glorot_same_key")
    init = jax.jit(models.make(config, SPEC).init)
    params = init(jax.random.key(0), GREY)
    matrices = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    assert len(matrices) == 5
    # Uniform in +-sqrt(6 / (inputs + outputs)); the bound is divided out. Rows are filled in order.
    streams = [np.ravel(m) / np.sqrt(6 / sum(m.shape)) for m in matrices]
    shortest = min(map(len, streams))
    for stream in streams:
        np.testing.assert_allclose(stream[:shortest], streams[0][:shortest], rtol=1e-6)
        assert np.abs(stream).max() <= 1


def test_inputs_are_centred_and_the_centre_has_no_gradient(images):
    config = configs.replace(TINY, center_inputs=True)
    centred, plain = models.make(config, SPEC), models.make(TINY, SPEC)
    params = jax.jit(centred.init)(jax.random.key(0), GREY)
    np.testing.assert_allclose(params["encoder"]["center"], 0.3, rtol=1e-6)
    x = jnp.asarray(images[:2] / 255, jnp.float32)

    def mean(model, params, x):
        return model.posterior(params, x, NOTHING_GIVEN).mean

    np.testing.assert_allclose(mean(centred, params, x), mean(plain, params, x - 0.3), rtol=1e-5)
    gradient = jax.grad(lambda p: jnp.sum(mean(centred, p, x)))(params)["encoder"]
    np.testing.assert_array_equal(gradient["center"], 0)
    assert np.any(gradient["layer_1"]["mean"]["kernel"])


def test_the_last_images_are_held_out():
    x = np.arange(24, dtype=np.uint8).reshape(12, 2)
    dataset = Dataset("x", x, x[:3], np.arange(12), np.arange(3), (1, 2))
    kept = hold_out(dataset, 5)
    np.testing.assert_array_equal(kept.x_train, x[:7])
    np.testing.assert_array_equal(kept.y_train, np.arange(7))
    np.testing.assert_array_equal(kept.x_test, x[:3])
    assert hold_out(dataset, 0).x_train.shape == (12, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"held_out": 12}, ["--held_out", "below", "12"]),
        ({"held_out": 5, "au_images": 8}, ["--au_images", "7", "8"]),
        ({"held_out": 9}, ["--batch_size", "3"]),
    ],
)
def test_more_images_than_the_data_have_are_refused(options, words):
    x = np.zeros((12, 4), np.uint8)
    dataset = Dataset("x", x, x, None, None, (2, 2))
    with pytest.raises(UserError) as caught:
        validation.check_data(configs.replace(TINY, **options), dataset)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
@pytest.mark.parametrize(
    "options",
    [
        {"objective": "elbo", "k": 1},
        {"objective": "miwae", "k": 8, "m": 8},
        {"objective": "piwae", "k": 8, "m": 8},
        {"objective": "ciwae", "beta": 0.5},
        {"latent_dims": (100, 50)},
    ],
    ids=str,
)
def test_every_protocol_is_valid_with_the_objectives_of_the_tables(name, options):
    config = configs.replace(protocols.PROTOCOLS[name], **options)
    if options.get("objective") == "piwae":
        config = configs.replace(config, estimator=None)  # it takes no estimator
    validation.check(config)
