"""Single steps: Adam in NumPy float64, failures at known steps, settings that reach the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbo_lab import configs, keys, losses, models, training
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Spec
from elbo_lab.methods import Loss, Method, variational
from elbo_lab.models import Model
from elbo_lab.models.base import NOTHING_GIVEN
from elbo_lab.training import hyper, step
from tests.training import toys
from tests.training.toys import assert_identical, copied, method_of

pytestmark = pytest.mark.usefixtures("fast_compilation")

IMAGES = np.array([[0, 51, 255], [255, 102, 0], [51, 51, 204], [0, 255, 153]], np.uint8)
# Every step sees all images, so that their order does not matter.
FULL_BATCH = configs.make(
    batch_size=4, epochs=7, binarization="none", log_every=1, lr_schedule="constant"
)


def train(config: Config, method: Method) -> list:
    """(record, state) after each call of a run; first (None, the state before the run)."""
    loop = training.make_loop(config, method, len(IMAGES))
    state, _ = toys.start(config, loop, IMAGES)
    before = copied(state)
    records = toys.run(config, loop, IMAGES, state)
    return [(None, before), *((record, record.state) for record in records)]


def test_a_loss_without_a_batch_axis_is_refused():
    """By broadcasting, a mean over the images would count as the loss of each."""

    def mean_loss(*arguments):
        loss, terms = quadratic_loss(*arguments)
        return jnp.mean(loss), terms

    with pytest.raises(AssertionError, match="shape"):
        train(FULL_BATCH, method_of(quadratic_init, mean_loss))


@pytest.mark.parametrize("which", step.BATCH_GRADIENTS)
def test_the_gradient_by_parts_is_that_of_the_batch(which):
    """The gradient of 1/2 (w . x - y)^2 is (w . x - y) x, in NumPy float64."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(6, 2)), np.arange(6), np.array([0.5, -1.0])

    def loss(key, params, stats, batch, hparams):
        value = 0.5 * jnp.square(batch.x @ params - batch.label)
        return Loss(value, {"half_square": value}, observed={"x": batch.x, "y": batch.label})

    def update(key, params, stats, observed):
        """Sums weighted by the example's place in the batch, which part and order change."""
        weights = 1 + jnp.arange(6.0)
        return jax.tree.map(lambda leaf: weights @ leaf, observed), {"first_w": params[0]}

    minus_gradient = optax.with_extra_args_support(optax.scale(-1.0))
    reduce = step.BATCH_GRADIENTS[which]
    stepper = step.Stepper(
        loss, minus_gradient, lambda h, _: h, reduce, gradient_batch=2, update=update
    )
    params, none = jnp.asarray(w, jnp.float32), step.Failure.none(("half_square", "first_w"))
    stats = {"x": jnp.zeros(2), "y": jnp.zeros(())}
    state = step.TrainState(jnp.int32(0), params, minus_gradient.init(params), none, stats)
    batch = Batch(jnp.asarray(x, jnp.float32), label=jnp.asarray(y, jnp.float32))
    hparams = {"learning_rate": jnp.float32(1.0)}
    keys = jax.random.split(jax.random.key(0))
    after, terms = step.train_step(stepper, hparams, state, keys, batch)
    residual = x @ w - y
    expected = getattr(np, which)(residual[:, None] * x, axis=0)
    np.testing.assert_allclose(w - after.params, expected, rtol=1e-4)
    np.testing.assert_allclose(terms["half_square"], np.mean(0.5 * residual**2), rtol=1e-5)
    # Stats are updated once, by the whole batch in its order and the params before the step.
    np.testing.assert_allclose(after.stats["x"], np.arange(1, 7) @ x, rtol=1e-5)
    np.testing.assert_array_equal(after.stats["y"], np.arange(1, 7) @ y)
    assert terms["first_w"] == w[0]


# The optimizer

W_0, B_0 = np.array([0.5, -1.0, 2.0]), 0.25


def quadratic_init(key, mean):
    return {"w": jnp.asarray(W_0, jnp.float32), "b": jnp.float32(B_0)}


def quadratic_loss(key, params, x, hparams):
    """1/2 (w . x + b)^2 + 2 |w|^2 for each image."""
    del key
    residual = x @ params["w"] + params["b"]
    loss = 0.5 * jnp.square(residual) + 2 * jnp.sum(jnp.square(params["w"]))
    return loss, {"bound": -loss}


QUADRATIC = method_of(quadratic_init, quadratic_loss)


def quadratic_gradient(w: np.ndarray, b: float) -> np.ndarray:
    """The gradient of the mean loss by (w, b), [4]."""
    x = IMAGES / 255
    residual = x @ w + b
    return np.append((residual[:, None] * x).mean(axis=0) + 4 * w, residual.mean())


def adam(config: Config, rates: list[float]) -> np.ndarray:
    """Adam of Kingma and Ba (2015), algorithm 1, on the quadratic loss; w and b, [4]."""
    theta, m, v = np.append(W_0, B_0), np.zeros(4), np.zeros(4)
    own = config.optimizer_options
    for t, rate in enumerate(rates, start=1):
        g = quadratic_gradient(theta[:3], theta[3])
        if config.clip_norm is not None:
            g = g * min(1, config.clip_norm / np.linalg.norm(g))
        m = own.adam_b1 * m + (1 - own.adam_b1) * g
        v = own.adam_b2 * v + (1 - own.adam_b2) * g**2
        m_hat, v_hat = m / (1 - own.adam_b1**t), v / (1 - own.adam_b2**t)
        theta = theta - rate * m_hat / (np.sqrt(v_hat) + own.adam_eps)
    return theta


def cosine(rate: float) -> list[float]:
    return [rate * 0.5 * (1 + np.cos(np.pi * step / 7)) for step in range(7)]


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({}, [1e-3] * 7),
        ({"learning_rate": 0.1, "adam_b1": 0.5, "adam_b2": 0.9, "adam_eps": 0.3}, [0.1] * 7),
        ({"clip_norm": 0.7, "adam_eps": 1.0, "learning_rate": 0.1}, [0.1] * 7),
        ({"clip_norm": 1e6, "learning_rate": 0.1}, [0.1] * 7),
        ({"lr_schedule": "cosine", "learning_rate": 0.1, "adam_eps": 0.1}, cosine(0.1)),
    ],
    ids=["defaults", "options", "clipped", "not clipped", "cosine"],
)
def test_steps_are_those_of_adam(options, rates):
    config = configs.replace(FULL_BATCH, **options)
    _, state = train(config, QUADRATIC)[-1]
    got = np.append(state.params["w"], state.params["b"])
    np.testing.assert_allclose(got, adam(config, rates), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [0.999, pytest.param(0.5, marks=pytest.mark.slow)])
def test_averaged_weights_are_weighted_means_of_all_steps(decay):
    config = configs.replace(FULL_BATCH, learning_rate=0.1, ema=decay, epochs=5)
    states = [state for _, state in train(config, QUADRATIC)]
    assert_identical(states[0].average, states[0].params)
    w = np.array([state.params["w"] for state in states[1:]], np.float64)
    for t in range(1, len(states)):
        weights = decay ** np.arange(t - 1, -1, -1.0)
        expected = weights @ w[:t] / weights.sum()
        np.testing.assert_allclose(states[t].average["w"], expected, rtol=2e-6)
    # The steps are those of a run without an average.
    _, plain = train(configs.replace(config, ema=0.0), QUADRATIC)[-1]
    assert plain.average == ()
    assert_identical(plain.params, states[-1].params)


def test_the_learning_rate_rises_over_the_warm_up_beside_its_schedule():
    config = configs.make(warmup_steps=4, lr_schedule="cosine", learning_rate=0.5)
    at_step = hyper.courses(config, 10)
    rates = [at_step({"learning_rate": jnp.float32(0.5)}, jnp.int32(s)) for s in range(10)]
    factors = np.minimum(1, np.arange(1, 11) / 4) * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose([r["learning_rate"] for r in rates], 0.5 * factors, rtol=1e-5)


def test_the_metrics_are_means_over_the_batch_at_the_params_before_the_step():
    record, _ = train(FULL_BATCH, QUADRATIC)[1]
    loss = 0.5 * (IMAGES / 255 @ W_0 + B_0) ** 2 + 2 * np.sum(W_0**2)
    np.testing.assert_allclose(record.metrics["bound"], -loss.mean(), rtol=1e-6)


# Failures. The loss -w has gradient -1, so that Adam raises w by the learning rate at each step.

COUNTING = configs.replace(FULL_BATCH, learning_rate=1.0, adam_eps=1e-8, epochs=10, ema=0.5)
BAD_FROM = 4.5  # a w that starts at 0 first exceeds it at step 5


def counter(starts: dict[int, float], bad: str) -> Method:
    """A method with loss -w for each image, and a NaN in the place named `bad` if w > BAD_FROM.

    Args:
      starts: seed -> the first w.
      bad: "loss", "gradient" or "kl".
    """
    values = jnp.asarray([starts[seed] for seed in sorted(starts)], jnp.float32)
    init_keys = [keys.stream_key(jax.random.key(s), keys.INITIALIZATION) for s in sorted(starts)]
    key_data = jnp.stack([jax.random.key_data(key) for key in init_keys])

    def init(key, mean):
        same = jnp.all(jax.random.key_data(key) == key_data, axis=-1)
        return {"w": jnp.sum(jnp.where(same, values, 0.0))}

    def loss(key, params, x, hparams):
        w, ones = params["w"], jnp.ones(len(x))
        nan = jnp.where(w > BAD_FROM, jnp.nan, 0.0)
        value = -w
        if bad == "loss":
            value = value + w * nan
        if bad == "gradient":
            # Finite for every w, but its derivative above the limit is infinity * 0.
            value = value + 1e-3 * jnp.sqrt(jnp.maximum(BAD_FROM - w, 0.0))
        kl = ones + (nan if bad == "kl" else 0.0)
        return value * ones, {"bound": -value * ones, "kl": kl, "reconstruction": ones}

    return method_of(init, loss, ("bound", "kl", "reconstruction"))


def failed_terms(failure, r: int | None = None) -> list[str]:
    """The names of what failed in a single run, or in replicate r."""
    is_finite = failure.is_finite if r is None else {n: f[r] for n, f in failure.is_finite.items()}
    return training.failed_terms(is_finite)


@pytest.mark.parametrize("log_every", [1, 4])
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("kl", ["kl"]),
        ("gradient", ["gradient"]),
        ("loss", ["bound", "gradient"]),
    ],
)
def test_the_first_bad_step_and_its_terms_are_recorded(bad, expected, log_every):
    # Batches of one of the four images: a pass has four steps, and so may a call.
    config = configs.replace(COUNTING, batch_size=1, epochs=3, log_every=log_every)
    history = train(config, counter({0: 0.0}, bad))
    for record, state in history[1:]:
        failed = record.step > 5
        assert int(record.failed_at) == (5 if failed else -1)
        assert failed_terms(state.failure) == (expected if failed else [])
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    # Frozen as it was at the latest call boundary before the failure.
    _, good = [entry for entry in history if int(entry[1].step) <= 5][-1]
    _, last = history[-1]
    assert int(last.step) == 12
    assert_identical(
        (last.params, last.opt_state, last.average), (good.params, good.opt_state, good.average)
    )
    assert not np.array_equal(last.average["w"], last.params["w"])
    np.testing.assert_allclose(last.params["w"], 5 if log_every == 1 else 4, rtol=1e-4)


def test_a_failing_replicate_leaves_the_others_alone():
    config = configs.replace(COUNTING, replicates=3)
    history = train(config, counter({0: -90.0, 1: 2.0, 2: -50.0}, "loss"))
    for record, state in history[1:]:
        # Replicate 1 has w = 2 at step 0, and so w = 5 at step 3.
        expected = 3 if record.step > 3 else -1
        assert record.failed_at.tolist() == [-1, expected, -1]
        assert np.all(np.isfinite(state.params["w"]))
        assert np.all(np.isfinite(record.metrics["bound"][[0, 2]]))
    _, last = history[-1]
    np.testing.assert_allclose(last.params["w"], [-80.0, 5.0, -40.0], rtol=1e-4)
    named = [failed_terms(last.failure, r) for r in range(3)]
    assert named == [[], ["bound", "gradient"], []]


def test_a_loss_that_is_bad_at_step_0_leaves_the_initial_params():
    history = train(COUNTING, counter({0: 7.0}, "loss"))
    _, last = history[-1]
    assert int(last.failure.step) == 0
    assert float(last.params["w"]) == float(last.average["w"]) == 7


# What reaches the objective


def spied(config: Config, shapes: list) -> Model:
    """The configured model; appends the shapes of draws that its generation network sees."""
    model = models.make(config, Spec("image", (3,), 2))

    def likelihood(params, z, given):
        shapes.append(z.shape)
        return model.likelihood(params, z, given)

    return model._replace(likelihood=likelihood)


SMALL = configs.make(latent_dims=(2,), hidden_dims=(4,), batch_size=4)
BINARY = Batch(np.asarray(IMAGES > 100, np.float32))


def loss_shapes(config: Config, model: Model, **options) -> Loss:
    key, batch = jax.random.key(0), Batch(jax.ShapeDtypeStruct((4, 3), jnp.float32))
    params = jax.eval_shape(model.init, jax.random.clone(key), batch)
    loss = variational.objective_loss(config, model, **options)
    return jax.eval_shape(loss, key, params, (), batch, {})


@pytest.mark.parametrize(
    ("options", "draws"),
    [
        ({"objective": "iwae", "k": 3}, 3),
        ({"objective": "miwae", "k": 3, "m": 2}, 6),
        ({"objective": "elbo", "k": 4}, 4),
        ({"objective": "beta_vae", "k": 2}, 2),
    ],
    ids=lambda value: value["objective"] if isinstance(value, dict) else str(value),
)
def test_k_and_m_reach_the_objective(options, draws):
    config, shapes = configs.replace(SMALL, **options), []
    model = spied(config, shapes)
    loss, terms, stats = loss_shapes(config, model)
    assert set(shapes) == {(draws, 4, 2)}
    assert loss.shape == (4,) and stats == ()
    assert {name: value.shape for name, value in terms.items()} == dict.fromkeys(
        variational.TERMS, (4,)
    )


@pytest.mark.slow
def test_beta_weighs_the_closed_form_kl():
    config = configs.replace(SMALL, objective="beta_vae", k=2)
    model = models.make(config, Spec("image", (3,), 2))
    params = model.init(jax.random.key(0), BINARY)
    loss = jax.jit(variational.objective_loss(config, model))

    def value(hparams: dict) -> np.ndarray:
        return np.asarray(loss(jax.random.key(1), params, (), BINARY, hparams).loss, np.float64)

    by_beta = {beta: value({"beta": beta}) for beta in (1.0, 3.0)}
    q = model.posterior(params, BINARY.x, NOTHING_GIVEN)
    mean, variance = np.asarray(q.mean, np.float64), np.asarray(q.variance, np.float64)
    kl = 0.5 * np.sum(mean**2 + variance - 1 - np.log(variance), axis=-1)
    np.testing.assert_allclose(by_beta[3.0] - by_beta[1.0], 2 * kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value({}), by_beta[1.0] + 3 * kl, rtol=1e-4)


@pytest.mark.parametrize("name", losses.OBJECTIVES)
def test_every_objective_reaches_the_loop(name):
    config = configs.replace(SMALL, objective=name, k=3, m=2)
    loss, terms, _ = loss_shapes(config, models.make(config, Spec("image", (3,), 2)), num_train=10)
    assert loss.shape == (4,)
    assert tuple(terms) == variational.TERMS


@pytest.mark.slow
def test_settings_reach_the_objective():
    config = configs.replace(SMALL, objective="renyi", alpha=-np.inf, k=4)
    model = models.make(config, Spec("image", (3,), 2))
    params = model.init(jax.random.key(0), BINARY)
    loss = jax.jit(variational.objective_loss(config, model))
    hparams = hyper.hyperparameters([config])
    value = loss(jax.random.key(1), params, (), BINARY, hparams).loss
    draws = losses.log_weights(
        jax.random.key(1),
        model.posterior(params, BINARY.x, NOTHING_GIVEN),
        model.prior(params, NOTHING_GIVEN),
        lambda z: model.likelihood(params, z, NOTHING_GIVEN).log_prob(BINARY.x),
        4,
    )
    np.testing.assert_allclose(-value, np.max(draws.log_w, axis=0), rtol=1e-6)


def test_a_course_moves_over_the_steps_of_the_compiled_loop():
    config = configs.replace(FULL_BATCH, objective="beta_vae", beta="linear:2:4:4")

    def loss(key, params, x, hparams):
        ones = jnp.ones(len(x))
        return params["w"][0] * ones, {"bound": hparams["beta"] * ones}

    bounds = [r.metrics["bound"] for r, _ in train(config, method_of(quadratic_init, loss))[1:]]
    np.testing.assert_allclose(bounds, [2, 2.5, 3, 3.5, 4, 4, 4], rtol=1e-6)


def test_hyperparameters_are_float32_scalars_and_beta_only_where_the_objective_has_it():
    config = configs.replace(SMALL, objective="beta_vae", beta=0.5, learning_rate=0.01)
    values = hyper.hyperparameters([config])
    assert {name: float(value) for name, value in values.items()} == pytest.approx(
        {"learning_rate": 0.01, "beta": 0.5}
    )
    assert {value.dtype for value in values.values()} == {np.dtype("float32")}
    assert set(hyper.hyperparameters([SMALL])) == {"learning_rate"}
