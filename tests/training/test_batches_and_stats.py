"""Labels, and state that no gradient moves, in the loop and in the evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, evaluation, keys, methods, training
from elbo_lab.data import Batch, Spec
from elbo_lab.data.streaming import Examples
from elbo_lab.methods import Loss, Method
from elbo_lab.models.networks import masked
from tests.training import toys

pytestmark = pytest.mark.usefixtures("fast_compilation")

NUMBER, BATCH_SIZE = 12, 4
INT, FLOAT = np.dtype("int32"), np.dtype("float32")
# Kind -> stored examples, and the type in which a method sees them.
KINDS = {
    "token": (np.arange(36, dtype=np.int32).reshape(NUMBER, 3) * 1000, INT),
    "real": (np.linspace(-300, 300, 36, dtype=np.float32).reshape(NUMBER, 3), FLOAT),
    "image": (np.arange(36, dtype=np.uint8).reshape(NUMBER, 3), FLOAT),
}
LABELS = np.arange(NUMBER, dtype=np.int32) ** 2 % 7
ORDERED = configs.make(
    batch_size=BATCH_SIZE,
    epochs=2,
    log_every=1,
    binarization="none",
    shuffle=False,
    lr_schedule="constant",
)


def seeing(seen: list) -> Method:
    """A method whose terms and quantities are the batch's; appends the batch's types to `seen`."""

    def look(batch: Batch) -> dict:
        seen.append((batch.x.dtype, batch.label.dtype))
        return {
            "label": batch.label.astype(jnp.float32),
            "first": batch.x[:, 0].astype(jnp.float32),
        }

    def loss(key, params, stats, batch, hparams):
        return Loss(params["w"] * jnp.ones(len(batch.x)), look(batch))

    def measure(key, params, stats, batch):
        return look(batch) | {"stats": stats * jnp.ones(len(batch.x))}

    def init(key, batch, mean=None):
        return {"w": jnp.zeros(())}, ()

    return Method(init, loss, ("label", "first"), measure, 5, {}, None)


@pytest.mark.parametrize(
    ("kind", "streamed", "replicates"),
    [
        ("token", False, 1),
        ("token", True, 2),
        ("real", False, 2),
        ("real", True, 1),
        ("image", True, 2),
    ],
)
def test_labels_reach_the_loss_beside_their_examples(kind, streamed, replicates):
    x, dtype = KINDS[kind]
    config, seen = configs.replace(ORDERED, replicates=replicates), []
    loop = training.make_loop(config, seeing(seen), NUMBER, kind)
    data = Examples(x, "none", LABELS) if streamed else Batch(x, LABELS)
    records = toys.run(config, loop, data)
    assert set(seen) == {(dtype, INT)} and len(records) == 6
    scale = 255 if kind == "image" else 1
    for s, record in enumerate(records):
        rows = np.arange(BATCH_SIZE) + s % 3 * BATCH_SIZE
        for name, values in (("label", LABELS), ("first", x[:, 0] / scale)):
            expected = np.mean(values[rows], dtype=np.float64)
            shape = (2,) if replicates == 2 else ()
            assert record.metrics[name].shape == shape
            np.testing.assert_allclose(record.metrics[name], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_stats_reach_the_evaluation(kind):
    """Twelve examples in batches of five."""
    seen = []
    stored, dtype = KINDS[kind]
    x = stored.astype(dtype)
    evaluator = evaluation.make_evaluator(seeing(seen))
    examples = Batch(jnp.asarray(x), jnp.asarray(LABELS))
    values = evaluation.evaluate(evaluator, jax.random.key(0), {}, jnp.float32(7.5), examples)
    assert seen == [(dtype, INT)]
    np.testing.assert_array_equal(values["label"], LABELS)
    np.testing.assert_array_equal(values["first"], x[:, 0])
    np.testing.assert_array_equal(values["stats"], np.full(NUMBER, 7.5))


# Stats are a count of steps and a moving average of x. In the replicate of seed 1 the term or stats
# named by `bad` are not finite from step FAILS_AT on, counted from 0.

FAILS_AT = 5


def moving(bad: str) -> Method:
    failing = jax.random.key_data(keys.stream_key(jax.random.key(1), keys.INITIALIZATION))

    def init(key, batch, mean=None):
        fails = jnp.all(jax.random.key_data(key) == failing)
        stats = {"count": jnp.int32(0), "average": jnp.zeros(3), "fails": fails}
        return {"w": jnp.zeros(())}, stats

    def loss(key, params, stats, batch, hparams):
        ones = jnp.ones(len(batch.x))
        terms = {"bound": ones * jnp.sum(stats["average"])}
        return Loss(-params["w"] * ones, terms, batch.x)

    def update(key, params, stats, observed):
        is_bad = stats["fails"] & (stats["count"] >= FAILS_AT)
        nan = jnp.where(is_bad, jnp.nan, 0.0)
        average = 0.5 * stats["average"] + 0.5 * jnp.mean(observed, axis=0)
        if bad == "stats":
            average = average + nan
        terms = {"kl": 1 + nan if bad == "kl" else jnp.ones(())}
        return stats | {"count": stats["count"] + 1, "average": average}, terms

    return Method(init, loss, ("bound", "kl"), None, 1, {}, None, update=update)


def averages(x: np.ndarray, steps: int) -> np.ndarray:
    """The moving average before each step and after the last, [steps + 1, 3], by NumPy."""
    history = [np.zeros(3)]
    for s in range(steps):
        rows = np.arange(BATCH_SIZE) + s % 3 * BATCH_SIZE
        history.append(0.5 * history[-1] + 0.5 * x[rows].mean(axis=0, dtype=np.float64))
    return np.array(history)


@pytest.mark.parametrize("log_every", [1, 3])
@pytest.mark.parametrize("bad", ["kl", "stats"])
def test_stats_travel_through_the_scan_and_are_undone_after_a_failure(bad, log_every):
    x = KINDS["real"][0]
    config = configs.replace(ORDERED, replicates=2, epochs=3, log_every=log_every)
    loop = training.make_loop(config, moving(bad), NUMBER, "real")
    records, expected = toys.run(config, loop, Batch(x)), averages(x, 9)
    last_good = FAILS_AT // log_every * log_every  # the call boundary before the failure
    for record in records:
        counts = [record.step, record.step if record.step <= FAILS_AT else last_good]
        stats = record.state.stats
        assert stats["count"].tolist() == counts and stats["count"].dtype == np.int32
        np.testing.assert_allclose(stats["average"], expected[counts], rtol=1e-5, atol=1e-4)
        # The loss sees the stats of the step before.
        before = expected[record.step - log_every : record.step].sum(axis=-1).mean()
        np.testing.assert_allclose(record.metrics["bound"][0], before, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(np.isnan(record.metrics["bound"]), record.failed_at >= 0)
    # Terms are checked at every step, stats at the end of a compiled call.
    failed_at = FAILS_AT if bad == "kl" else last_good + log_every - 1
    assert record.failed_at.tolist() == [-1, failed_at]
    failed = [
        training.failed_terms({n: f[r] for n, f in record.state.failure.is_finite.items()})
        for r in (0, 1)
    ]
    assert failed == [[], [bad]]
    assert np.all(np.isfinite(record.state.stats["average"]))

    # Params and the optimizer's moments are undone together with the stats.
    def params_and_moments(state: training.TrainState):
        """Those of the replicate that failed."""
        return jax.tree.map(lambda leaf: leaf[1], (state.params, state.opt_state))

    (good,) = [r.state for r in records if r.step == last_good]
    toys.assert_identical(params_and_moments(record.state), params_and_moments(good))


@pytest.mark.slow
def test_a_pixelcnn_trains_by_parts_of_the_batch_as_by_the_whole(monkeypatch):
    monkeypatch.setattr(masked, "CACHED", 16)
    sizes = {"width": 2, "layers": 1, "output_width": 2, "first_kernel_size": 3}
    config = configs.make(model="pixelcnn", batch_size=4, epochs=2, log_every=1, **sizes)
    method = methods.make(config, Spec("image", (2, 2), 2), NUMBER)
    assert method.gradient_batch == 2
    x = np.random.default_rng(0).integers(0, 256, (NUMBER, 4)).astype(np.uint8)

    def records(method: Method) -> list:
        return toys.run(config, training.make_loop(config, method, NUMBER), x)

    by_parts, whole = records(method), records(method._replace(gradient_batch=None))
    assert len(whole) == 6
    for part, record in zip(by_parts, whole, strict=True):
        toys.assert_close(part.metrics, record.metrics)
        toys.assert_close(part.state.params, record.state.params)
    assert whole[-1].metrics["nll"] != whole[0].metrics["nll"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codebook", "levels", "replicates"), [("ema", 1, 2), ("loss", 2, 1)], ids=["ema", "loss"]
)
def test_a_vqvae_trains_by_parts_of_the_batch_as_by_the_whole(codebook, levels, replicates):
    """Its stats, restarts and perplexity are functions of the whole batch."""
    config = configs.make(
        model="vqvae",
        channels=(2, 2),
        code_levels=levels,
        num_codes=3,
        code_dim=2,
        codebook=codebook,
        codebook_decay=0.5,
        restart_below=0.8,
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=4,
        epochs=2,
        log_every=1,
        replicates=replicates,
    )
    method = methods.make(config, Spec("image", (8, 8), 2), NUMBER)
    x = np.random.default_rng(0).integers(0, 256, (NUMBER, 64)).astype(np.uint8)

    def records(gradient_batch: int | None) -> list:
        by_parts = method._replace(gradient_batch=gradient_batch)
        return toys.run(config, training.make_loop(config, by_parts, NUMBER), x)

    by_parts, whole = records(2), records(None)
    assert len(whole) == 6
    for part, record in zip(by_parts, whole, strict=True):
        toys.assert_close(part.metrics, record.metrics)
        toys.assert_close(part.state, record.state)
    suffix = "" if levels == 1 else "_2"
    assert sum(np.sum(record.metrics["restarts" + suffix]) for record in whole) > 0
    assert np.any(
        whole[-1].metrics["perplexity" + suffix] != whole[0].metrics["perplexity" + suffix]
    )
    # Units of a relu may be dead, so that not every leaf moves.
    first, last = whole[0].state.params, whole[-1].state.params
    for part in ("encoder", "decoder"):
        pairs = zip(jax.tree.leaves(first[part]), jax.tree.leaves(last[part]), strict=True)
        assert any(np.any(a != b) for a, b in pairs)


def test_parts_are_those_that_fit_the_cache():
    spec = Spec("image", (28, 28), 2)

    def parts(**options) -> int | None:
        return methods.make(configs.make(model="vqvae", **options), spec, 60_000).gradient_batch

    # The second halving of a 14 x 14 image reads 14 x 7 windows, 4 x 32 or 4 x 8 numbers each.
    assert parts() == 2**18 // (14 * 7 * 4 * 32) == 20
    assert parts(code_levels=2) == 20
    assert parts(channels=(8, 16, 16)) == 2**18 // (14 * 7 * 4 * 8)


def test_a_latent_variable_model_has_parts_where_losses_of_examples_are_independent():
    spec = Spec("image", (28, 28), 2)

    def parts(**options) -> int | None:
        return methods.make(configs.make(model="pixelvae", **options), spec, 60_000).gradient_batch

    assert parts() == parts(objective="iwae", k=5) == masked.CACHED // (28 * 28 * 16)
    assert parts(objective="elbo", estimator="score", score_baseline="mean") == parts()
    assert parts(objective="beta_tcvae") is None
