"""Evaluation against closed forms, and against NumPy on the same draws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import evaluation
from elbo_lab.data import Batch
from elbo_lab.distributions import Chain
from elbo_lab.methods import importance
from elbo_lab.models import Model
from tests.training.toys import importance_evaluator

pytestmark = pytest.mark.usefixtures("fast_compilation")

LATENTS, DIMS = 2, 5
RNG = np.random.default_rng(0)
W = RNG.normal(size=(DIMS, LATENTS))
NOISE = 0.8
X = RNG.normal(size=(40, LATENTS)) @ W.T + NOISE * RNG.normal(size=(40, DIMS))
# The exact posterior, N(PRECISION^-1 W' x / NOISE^2, PRECISION^-1).
PRECISION = np.eye(LATENTS) + W.T @ W / NOISE**2
MEAN = X @ W @ np.linalg.inv(PRECISION) / NOISE**2
Q_SCALE = 1.2 / np.sqrt(np.diag(PRECISION))


def log_normal(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    difference = x - mean
    mahalanobis = np.sum(difference @ np.linalg.inv(covariance) * difference, axis=-1)
    return -0.5 * (mahalanobis + np.linalg.slogdet(2 * np.pi * covariance)[1])


LOG_PX = log_normal(X, np.zeros(DIMS), W @ W.T + NOISE**2 * np.eye(DIMS))


def linear_gaussian(shift: float = 0.0) -> Model:
    """p(z) = N(0, I), p(x|z) = N(W z, NOISE^2); q is diagonal, its mean off by `shift`."""
    w = jnp.asarray(W, jnp.float32)
    a = jnp.asarray(W @ np.linalg.inv(PRECISION) / NOISE**2, jnp.float32)
    return Model(
        None,
        lambda params, given: dist.Normal(jnp.zeros(LATENTS), 1.0).to_event(1),
        lambda params, x, given: dist.Normal(
            x @ a + shift, jnp.asarray(Q_SCALE, jnp.float32)
        ).to_event(1),
        lambda params, z, given: dist.Normal(z @ w.T, NOISE).to_event(1),
    )


@functools.cache
def evaluator_of(shift: float, k: int, num_draws: int):
    return importance_evaluator(linear_gaussian(shift), k, num_draws)


def evaluate_by(evaluator, x: np.ndarray, seed: int = 0, **options):
    images = Batch(jnp.asarray(x, jnp.float32))
    return evaluation.evaluate(evaluator, jax.random.key(seed), {}, (), images, **options)


def evaluate(shift: float, x: np.ndarray, k: int, num_draws: int, seed: int = 0):
    return evaluate_by(evaluator_of(shift, k, num_draws), x, seed)


def test_all_terms_agree_with_closed_forms():
    draws = 10_000
    result = evaluate(0.0, X, 1, draws)
    w_variance = NOISE**2 * np.eye(DIMS)
    kl = 0.5 * np.sum(MEAN**2 + Q_SCALE**2 - 1 - np.log(Q_SCALE**2), axis=-1)
    spread = np.sum((W.T @ W).diagonal() * Q_SCALE**2) / (2 * NOISE**2)
    reconstruction = log_normal(X, MEAN @ W.T, w_variance) - spread
    # Standard deviations of single draws are of the order of one nat here.
    error = 5 * 3 / math.sqrt(draws)
    np.testing.assert_allclose(result["kl"], kl, atol=error)
    np.testing.assert_allclose(result["reconstruction"], reconstruction, atol=error)
    np.testing.assert_allclose(result["elbo"], reconstruction - kl, atol=error)
    np.testing.assert_allclose(result["iwae"], result["elbo"], atol=1e-3)  # K = 1
    np.testing.assert_allclose(result["elbo"], result["reconstruction"] - result["kl"], atol=1e-3)
    np.testing.assert_allclose(result["means_1"], MEAN, atol=1e-4)
    assert all(np.asarray(leaf).dtype == np.float32 for leaf in jax.tree.leaves(result))


@pytest.mark.slow
def test_the_log_likelihood_rises_to_log_p():
    results = {k: evaluate(0.6, X, 1, k, seed=k) for k in (1, 5, 10_000)}
    means = [results[k]["log_likelihood"].mean() for k in results]
    assert means == sorted(means)
    last = results[10_000]
    # Delta method: the variance of log mean w is 1 / ESS - 1 / K, its bias minus half of that.
    variance = 1 / last["effective_sample_size"] - 1 / 10_000
    gap = last["log_likelihood"] - LOG_PX
    assert np.all(np.abs(gap) < 5 * np.sqrt(variance) + 1e-4)
    assert abs(gap.mean()) < 4 * math.sqrt(variance.sum()) / len(X) + variance.mean() + 1e-4
    assert results[1]["log_likelihood"].mean() < LOG_PX.mean() - 0.1


def test_the_iwae_bound_is_that_of_k_draws():
    """Between the ELBO and log p, and equal to L_k from as many independent evaluations."""
    result = evaluate(0.6, X, 5, 2000)
    repeats = [evaluate(0.6, X, 1, 5, seed=s)["log_likelihood"] for s in range(1, 41)]
    error = np.std(np.mean(repeats, axis=1), ddof=1) / math.sqrt(len(repeats))
    assert abs(result["iwae"].mean() - np.mean(repeats)) < 5 * error
    assert result["elbo"].mean() < result["iwae"].mean() < LOG_PX.mean()


# Streaming, on recorded draws


class Recording:
    """A posterior over one latent dimension that appends its draws to `chunks`."""

    has_rsample = True

    def __init__(self, mean: jax.Array, chunks: list):
        self.mean, self.chunks = mean[..., None], chunks

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        z = self.mean + jax.random.normal(key, (*sample_shape, *self.mean.shape))
        jax.debug.callback(lambda z: self.chunks.append(np.array(z)), z, ordered=True)
        return z

    def log_prob(self, z: jax.Array) -> jax.Array:
        return -0.5 * jnp.square(z[..., 0] - self.mean[..., 0])


class Known:
    """A likelihood with a given log-probability."""

    def __init__(self, value: jax.Array):
        self.value = value

    def log_prob(self, x) -> jax.Array:
        return self.value


class Prior:
    """A standard normal prior without its constant, which `Recording` lacks too."""

    def log_prob(self, z) -> jax.Array:
        return -0.5 * jnp.square(z[..., 0])


# log p(x|z) of three images.
WEIGHTS = {
    "ordinary": (lambda z: -1.5 * z**2, lambda z: z, lambda z: -0.5 * (z - 2) ** 2),
    "extreme": (lambda z: 1e4 * z, lambda z: -1e4 + 30 * z, lambda z: 1e4 + 0 * z),
    "zeros": (lambda z: jnp.where(z > 0.5, 2 * z, -jnp.inf),) * 3,
}
MEANS = np.array([0.0, 0.5, -1.0])


def recorded(kind: str, k: int, num_draws: int):
    """An evaluation of three images, and the draws [C, 3] that it made."""
    chunks = []

    def likelihood(params, z, given):
        columns = [function(z[..., i, 0]) for i, function in enumerate(WEIGHTS[kind])]
        return Known(jnp.stack(columns, axis=-1))

    model = Model(
        None,
        lambda params, given: Prior(),
        lambda params, x, given: Recording(x[:, 0], chunks),
        likelihood,
    )
    evaluator = importance_evaluator(model, k, num_draws)
    x = jnp.asarray(MEANS[:, None], jnp.float32)
    result = jax.device_get(evaluator.run(jax.random.key(0), {}, (), Batch(x)))
    jax.effects_barrier()
    draws = np.concatenate([c for c in chunks if c.ndim == 3]).astype(np.float64)
    assert len(draws) >= num_draws
    return result, draws[:num_draws, :, 0]


def log_mean_exp(log_w: np.ndarray) -> np.ndarray:
    top = np.max(log_w, axis=0)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return top + np.log(np.mean(np.exp(log_w - top), axis=0))


@pytest.mark.parametrize(
    ("kind", "k", "num_draws"),
    [
        ("ordinary", 5, 53),
        ("ordinary", 7, 100),
        ("ordinary", 60, 61),
        ("ordinary", 3, 4),
        ("extreme", 5, 53),
        ("extreme", 1, 50),
    ],
)
def test_streaming_equals_numpy_on_the_same_draws(kind, k, num_draws):
    result, z = recorded(kind, k, num_draws)
    log_px_z = np.stack([function(z[:, i]) for i, function in enumerate(WEIGHTS[kind])], axis=-1)
    kl = -0.5 * (z - MEANS) ** 2 + 0.5 * z**2
    log_w = log_px_z - kl
    close = {"rtol": 1e-5, "atol": 1e-4}
    np.testing.assert_allclose(result["log_likelihood"], log_mean_exp(log_w), **close)
    np.testing.assert_allclose(result["elbo"], log_w.mean(axis=0), **close)
    np.testing.assert_allclose(result["kl"], kl.mean(axis=0), **close)
    np.testing.assert_allclose(result["reconstruction"], log_px_z.mean(axis=0), **close)
    groups = [log_mean_exp(log_w[i * k : (i + 1) * k]) for i in range(num_draws // k)]
    np.testing.assert_allclose(result["iwae"], np.mean(groups, axis=0), **close)
    weights = np.exp(log_w - log_w.max(axis=0))
    ess = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    # float32 log-weights of 1e4 are exact to 1e-3 only.
    np.testing.assert_allclose(
        result["effective_sample_size"], ess, rtol=1e-2 if kind == "extreme" else 1e-3
    )


def test_draws_of_zero_weight_count_as_draws():
    result, z = recorded("zeros", 5, 53)
    with np.errstate(divide="ignore"):
        log_w = np.where(z > 0.5, 2 * z, -np.inf) + 0.5 * (z - MEANS) ** 2 - 0.5 * z**2
    assert np.any(np.isinf(log_w))
    np.testing.assert_allclose(result["log_likelihood"], log_mean_exp(log_w), rtol=1e-5)
    assert np.all(np.isneginf(result["elbo"]))
    assert np.all(np.isfinite(result["kl"]))
    weights = np.exp(log_w)
    ess = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    np.testing.assert_allclose(result["effective_sample_size"], ess, rtol=1e-4)


@pytest.mark.parametrize("num_draws", [5, 53, 1000])
def test_the_effective_sample_size_of_constant_weights_is_the_number_of_draws(num_draws):
    # q(z|x) = p(z) and p(x|z) = 1: every weight is 1, so that their sum is the number of draws.
    model = Model(
        None,
        lambda params, given: dist.Normal(jnp.zeros(1), 1.0).to_event(1),
        lambda params, x, given: dist.Normal(jnp.zeros((len(x), 1)), 1.0).to_event(1),
        lambda params, z, given: Known(jnp.zeros(z.shape[:-1])),
    )
    result = evaluate_by(importance_evaluator(model, 5, num_draws), np.zeros((3, 1)))
    np.testing.assert_allclose(result["effective_sample_size"], num_draws, rtol=1e-4)
    np.testing.assert_allclose(result["log_likelihood"], 0, atol=1e-4)
    np.testing.assert_allclose(result["iwae"], 0, atol=1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_draws():
    sizes = {}
    for num_draws in (100, 10_000):
        evaluator = importance_evaluator(linear_gaussian(), 5, num_draws)
        batch = Batch(jax.ShapeDtypeStruct((20, DIMS), jnp.float32))
        compiled = evaluator.run.lower(jax.random.key(0), {}, (), batch).compile()
        sizes[num_draws] = compiled.memory_analysis().temp_size_in_bytes
    assert sizes[100] > 0
    assert sizes[10_000] <= 1.1 * sizes[100]


@pytest.mark.parametrize("k", [0, 21])
def test_k_above_the_number_of_draws_is_refused(k):
    with pytest.raises(ValueError, match=f"k must lie in 1..num_draws = 20; got {k}"):
        importance_evaluator(linear_gaussian(), k, 20)


# Batches


def test_a_ragged_last_batch_changes_no_value_and_no_image_is_left_out_or_counted_twice():
    evaluator = evaluator_of(0.6, 5, 2000)
    size, done = evaluator.batch_size, []
    number = 2 * size + 3
    x = np.random.default_rng(1).normal(size=(3 * size, DIMS))
    full = evaluate_by(evaluator, x)
    ragged = evaluate_by(evaluator, x[:number], on_batch=done.append)
    assert ragged.keys() == full.keys()
    for name, values in ragged.items():
        assert len(values) == number
        np.testing.assert_array_equal(values, full[name][:number])
    assert done == [size, 2 * size, number]
    # Images are in order: E_q[z|x] is a function of the image alone.
    mean = x[:number] @ W @ np.linalg.inv(PRECISION) / NOISE**2 + 0.6
    np.testing.assert_allclose(ragged["means_1"], mean, atol=1e-4)


def test_images_and_posteriors_of_other_shapes_are_refused():
    """A posterior that ignores the batch has five draws, which would count for five images."""
    model, images = linear_gaussian(0.6), jnp.asarray(X[:5], jnp.float32)
    blind = model._replace(
        posterior=lambda params, x, given: model.posterior(params, images[0], given)
    )
    for refused, x, message in ((model, images[0], "rank"), (blind, images, "shape")):
        evaluator = importance_evaluator(refused, 5, 5)
        with pytest.raises(AssertionError, match=message):
            jax.eval_shape(evaluator.run, jax.random.key(0), {}, (), Batch(x))


def test_fewer_images_than_a_batch():
    evaluator = evaluator_of(0.6, 5, 2000)
    result = evaluate_by(evaluator, X[:2])
    assert all(len(leaf) == 2 for leaf in jax.tree.leaves(result))


def test_keys_decide_the_draws_and_batches_have_their_own():
    x = np.tile(X[:1], (2 * evaluator_of(0.6, 1, 5).batch_size, 1))
    first, again, other = (evaluate(0.6, x, 1, 5, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first["elbo"], again["elbo"])
    assert np.all(first["elbo"] != other["elbo"])
    assert len(np.unique(first["elbo"])) == len(x)


# Active units


def test_activity_is_the_variance_over_images():
    means = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 0.1], [5.0, 5.0, -0.1]])
    np.testing.assert_allclose(evaluation.activity(means), [8 / 3, 0, 0.02 / 3], rtol=1e-12)


def test_activity_of_float32_means_far_from_zero_keeps_its_digits():
    means = (1000 + np.array([[0.0], [0.5]])).astype(np.float32)
    np.testing.assert_allclose(evaluation.activity(means), [0.0625], rtol=1e-12)


def test_layer_means_of_one_and_of_two_layers():
    x = jnp.asarray([[1.0, -2.0], [3.0, 0.0]])
    first = dist.Normal(x, 1e-6).to_event(1)
    layers = importance.layer_means(jax.random.key(0), first)
    assert list(layers) == ["means_1"]
    np.testing.assert_array_equal(layers["means_1"], x)
    chain = Chain(first, [lambda z: dist.Normal(2 * z[..., :1] + 1, 1.0).to_event(1)])
    layers = importance.layer_means(jax.random.key(0), chain)
    assert list(layers) == ["means_1", "means_2"]
    np.testing.assert_array_equal(layers["means_1"], x)
    np.testing.assert_allclose(layers["means_2"], [[3.0], [7.0]], atol=1e-4)
