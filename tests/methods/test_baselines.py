"""Learned baselines of the score estimator, on a sigmoid belief network that NumPy enumerates."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, methods, training
from elbo_lab.data import Batch, Spec
from elbo_lab.methods import baselines
from elbo_lab.methods.baselines import DECAY, RunningMean
from tests.losses import numpy_bounds
from tests.models import test_sbn as sbn
from tests.training import toys

pytestmark = pytest.mark.usefixtures("fast_compilation")

SIZES = (3,)
X = sbn.IMAGES[[7, 0]]
BATCH = Batch(np.float32(X))
CONFIG = configs.make(
    **{"model": "sbn", "objective": "elbo", "k": 1, "estimator": "score", "latent_dims": SIZES},
    **{"binarization": "none", "batch_size": 2, "log_every": 2, "epochs": 4},
)
KINDS = ("none", "mean", "network")
# C(x) in NumPy draws; the running mean is total / weight = -2.
NETWORK = {
    "trunk": {"hidden_0": {"kernel": (sbn.D, 100), "bias": (100,)}},
    "signal": {"kernel": (100, 1), "bias": (1,)},
}
STATS = RunningMean(np.float32(-1), np.float32(0.5))


@functools.cache
def method_of(kind, **changes):
    config = configs.replace(CONFIG, score_baseline=kind, **changes)
    return methods.make(config, Spec("image", (sbn.D,), 2), 2)


def start(kind):
    """Parameters that are all different from zero, and stats, of a method."""
    _, params = sbn.model_and_params(SIZES)
    rng = np.random.default_rng(1)
    network = jax.tree.map(
        lambda shape: np.float32(0.1 * rng.normal(size=shape)),
        NETWORK,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    own = {"none": {}, "mean": {"baseline": {}}, "network": {"baseline": network}}
    return params | own[kind], () if kind == "none" else STATS


def summed(kind, key, params, stats):
    loss = method_of(kind).loss(key, params, stats, BATCH, {})
    return jnp.sum(loss.loss), loss


def model_gradients(kind, params, stats, number=4000):
    """Gradients by encoder, decoder and prior for fixed keys, a list of leaves [number, ...]."""

    def gradient(key):
        grads, _ = jax.grad(summed, argnums=2, has_aux=True)(kind, key, params, stats)
        return {name: grads[name] for name in ("encoder", "decoder", "prior")}

    keys = jax.random.split(jax.random.key(4), number)
    drawn = jax.jit(jax.vmap(gradient))(keys)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), drawn)


def test_a_method_starts_like_that_without_a_baseline():
    key = jax.random.key(3)
    plain, no_stats = jax.jit(method_of("none").init)(key, BATCH)
    for kind in ("mean", "network"):
        params, stats = jax.jit(method_of(kind).init)(jax.random.clone(key), BATCH)
        own = params.pop("baseline")
        chex.assert_trees_all_equal(params, plain)
        assert jax.tree.map(jnp.shape, own) == (NETWORK if kind == "network" else {})
        assert no_stats == () and stats == RunningMean(0, 0)


@pytest.mark.parametrize("kind", ["mean", "network"])
def test_the_mean_gradient_is_that_of_enumeration(kind):
    params, stats = start(kind)
    drawn = model_gradients(kind, params, stats)
    _, model_params = sbn.model_and_params(SIZES)
    per_image = [sbn.exact_gradient(model_params, SIZES, x, numpy_bounds.mean) for x in X]
    for leaf, *exact in zip(jax.tree.leaves(drawn), *per_image, strict=True):
        error = np.std(leaf, axis=0, ddof=1) / np.sqrt(len(leaf))
        assert np.all(np.abs(np.mean(leaf, axis=0) + sum(exact)) < 4.5 * error + 1e-6)


def test_the_loss_of_the_network_reaches_the_network_alone():
    key, (params, stats) = jax.random.key(0), start("network")
    gradient = jax.jit(jax.value_and_grad(summed, argnums=2, has_aux=True), static_argnums=0)
    (_, loss), grads = gradient("network", key, params, stats)
    # C(x) and the derivatives of sum_i 1/2 (f_i - b_i)^2, by NumPy.
    weights = sbn.float64(params["baseline"])
    first, last = weights["trunk"]["hidden_0"], weights["signal"]
    hidden = np.tanh(X @ first["kernel"] + first["bias"])
    value = -2 + hidden @ last["kernel"][:, 0] + last["bias"]
    miss = np.float64(loss.terms["bound"]) - value
    np.testing.assert_allclose(loss.terms["baseline_loss"], miss**2 / 2, rtol=1e-5)
    by_hidden = -miss[:, None] * last["kernel"][:, 0] * (1 - hidden**2)
    expected = {
        "trunk": {"hidden_0": {"kernel": X.T @ by_hidden, "bias": by_hidden.sum(0)}},
        "signal": {"kernel": -(hidden.T @ miss)[:, None], "bias": -miss.sum(keepdims=True)},
    }
    chex.assert_trees_all_close(grads["baseline"], sbn.float64(expected), rtol=1e-4, atol=1e-5)
    # The model's gradient is that of the score estimator with the same numbers as a baseline, and
    # differs from the one without by sum_i b_i d log q(z_i|x_i).
    _, plain = gradient("none", jax.random.clone(key), start("none")[0], ())
    for name in ("decoder", "prior"):
        chex.assert_trees_all_close(grads[name], plain[name], rtol=1e-5, atol=1e-6)
    logits = sbn.logits(sbn.float64(params["encoder"]["layer_1"]), X)
    scale = np.float64(plain["encoder"]["layer_1"]["logits"]["bias"])
    by_bias = np.float64(grads["encoder"]["layer_1"]["logits"]["bias"]) - scale
    # d log q(z|x) / d logits = z - sigmoid(logits) for one of the eight z of each image.
    z = sbn.states(SIZES)[0]
    scores = value[:, None, None] * (z - 1 / (1 + np.exp(-logits[:, None])))  # [B, 8, L]
    pairs = scores[0][:, None] + scores[1][None]
    assert np.min(np.max(np.abs(pairs - by_bias), axis=-1)) < 1e-4


def test_the_running_mean_is_corrected_for_its_start():
    rng = np.random.default_rng(0)
    signals, values = rng.normal(size=(2, 6, 5)).astype(np.float32) - 90
    stats, means = RunningMean(jnp.zeros(()), jnp.zeros(())), []
    assert baselines.current(stats) == 0
    for t, (signal, value) in enumerate(zip(signals, values, strict=True), 1):
        before = float(baselines.current(stats))
        residual = baselines.residual(stats, jnp.asarray(signal), jnp.asarray(value))
        stats = baselines.updated(stats, residual)
        means.append(np.mean(np.float64(signal) - value + before))
        weights = DECAY ** np.arange(t - 1, -1, -1)
        expected = np.sum(weights * means) / np.sum(weights)
        np.testing.assert_allclose(baselines.current(stats), expected, rtol=1e-5)


@pytest.mark.slow
def test_a_learned_baseline_lowers_the_variance_and_a_network_more():
    params, stats = start("network")
    # White pixels are likely, so that the bounds of the white and the black image lie far apart.
    logits = params["decoder"]["logits"]
    bright = {"decoder": {"logits": logits | {"bias": logits["bias"] + 4}}}
    params |= bright

    @jax.jit
    def learn(params, stats):
        def step(carry, key):
            own, stats = carry

            def own_loss(own):
                return summed("network", key, params | {"baseline": own}, stats)

            grads, loss = jax.grad(own_loss, has_aux=True)(own)
            stats, _ = method_of("network").update(None, params, stats, loss.observed)
            return (jax.tree.map(lambda p, g: p - 0.01 * g, own, grads), stats), None

        keys = jax.random.split(jax.random.key(7), 200)
        return jax.lax.scan(step, (params["baseline"], stats), keys)[0]

    own, stats = learn(params, stats)

    def variance(kind, params, stats):
        drawn = model_gradients(kind, params, stats, 1000)["encoder"]
        return sum(np.sum(np.var(leaf, axis=0)) for leaf in jax.tree.leaves(drawn))

    plain = variance("none", start("none")[0] | bright, ())
    # The mean alone: of f, which the network's stats and outputs together predict.
    value = baselines.make("network").value(own, stats, BATCH.x)
    mean = RunningMean(jnp.mean(value), jnp.float32(1))
    by_mean = variance("mean", start("mean")[0] | bright, mean)
    by_network = variance("network", params | {"baseline": own}, stats)
    assert 2 * by_network < by_mean < plain


@pytest.mark.slow
def test_a_failed_step_is_undone_for_the_baseline_too_and_replicates_have_their_own():
    method = method_of("network", replicates=2)
    config = configs.replace(CONFIG, score_baseline="network", replicates=2)

    def fit(config):
        loop = training.make_loop(config, method, 2, "image")
        return toys.run(config, loop, np.uint8(255 * X))

    *_, last = fit(config)
    assert last.failed_at.tolist() == [-1, -1]
    np.testing.assert_allclose(last.state.stats.weight, [1 - DECAY**4] * 2, rtol=1e-6)
    for leaf in jax.tree.leaves((last.state.stats.total, last.state.params["baseline"])):
        assert not np.array_equal(leaf[0], leaf[1])
    *_, failed = fit(configs.replace(config, learning_rate=1e38))
    assert np.all(failed.failed_at >= 0)
    np.testing.assert_allclose(failed.state.stats.weight, 1 - DECAY**failed.failed_at, rtol=1e-6)
    chex.assert_tree_all_finite(failed.state.params)
