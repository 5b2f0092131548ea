"""VQ-VAE: quantization, gradients, codebooks, method and bound, against NumPy in float64."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import BernoulliVector
from elbo_lab.methods import codebook, vqvae
from elbo_lab.methods.vqvae import pair_bound
from elbo_lab.models.base import Given
from elbo_lab.models.vqvae import CODEBOOKS, Quantized, VQVAEOptions
from tests.methods.parts import assert_step_by_parts_is_that_of_the_batch

pytestmark = pytest.mark.usefixtures("fast_compilation")

# Bernoulli pixels, codes of an example, dimensions of a code, codes, examples.
D, M, E, K, B = 4, 2, 3, 3, 8
SPEC = Spec("image", (2, 2), 2)

HPARAMS = {"commitment": jnp.float32(0.25)}
DECAY = 0.9


def linear() -> Quantized:
    """z = x A, reshaped; p(x|e) = Bernoulli(sigmoid(e C))."""

    def init(key, batch, mean=None):
        keys = jax.random.split(key)
        return {
            "encoder": jax.random.normal(keys[0], (D, M * E)),
            "decoder": jax.random.normal(keys[1], (M * E, D)),
        }

    def features(params, x, given):
        return (x @ params["encoder"],)

    def vectors(params, features, above):
        return features[0].reshape(*features[0].shape[:-1], M, E)

    def likelihood(params, vectors, given):
        (e,) = vectors
        return BernoulliVector(e.reshape(*e.shape[:-2], M * E) @ params["decoder"])

    return Quantized(init, features, vectors, likelihood, ((1, M),), K, E)


def settings(kind: str, **changes) -> VQVAEOptions:
    return VQVAEOptions(codebook=kind, **{"codebook_decay": DECAY, "restart_below": 0.0, **changes})


class Step(NamedTuple):
    loss: np.ndarray  # [B]
    terms: dict
    stats: NamedTuple  # after the batch


@functools.cache
def tiny(kind: str):
    """A method, params and stats, and its compiled loss with gradient and update."""
    method = vqvae.make(linear(), settings(kind), SPEC)
    params, stats = jax.jit(method.init)(jax.random.key(0), BATCH)

    def mean_loss(params, key, stats):
        out = method.loss(None, params, stats, BATCH, HPARAMS)
        new_stats, terms = method.update(key, params, stats, out.observed)
        return jnp.sum(out.loss), Step(out.loss, out.terms | terms, new_stats)

    return method, params, stats, jax.jit(jax.value_and_grad(mean_loss, has_aux=True))


BATCH = Batch(np.random.default_rng(0).integers(0, 2, (B, D)).astype(np.float32))
both_kinds = pytest.mark.parametrize("kind", CODEBOOKS)


class Reference(NamedTuple):
    vectors: np.ndarray  # [B, M, E]
    indices: np.ndarray  # [B, M]
    nearest: np.ndarray  # [B, M, E]
    log_px_z: np.ndarray  # [B]
    residuals: np.ndarray  # [B, D], d log p / d logits


def reference(params, codes) -> Reference:
    """The forward pass in float64, nearest codes by brute force."""
    x, codes = BATCH.x.astype(np.float64), np.asarray(codes, np.float64)
    vectors = (x @ np.asarray(params["encoder"], np.float64)).reshape(B, M, E)
    indices = brute_force(vectors, codes)
    nearest = codes[indices]
    probabilities = expit(nearest.reshape(B, -1) @ np.asarray(params["decoder"], np.float64))
    log_px_z = np.log(np.where(x == 1, probabilities, 1 - probabilities)).sum(-1)
    return Reference(vectors, indices, nearest, log_px_z, x - probabilities)


def brute_force(vectors, codes):
    vectors, codes = np.asarray(vectors, np.float64), np.asarray(codes, np.float64)
    return np.argmin(((vectors[..., None, :] - codes) ** 2).sum(-1), axis=-1)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_nearest_codes_are_those_of_brute_force(offset):
    rng = np.random.default_rng(1)
    vectors = (offset + rng.normal(size=(50, 4, 8))).astype(np.float32)
    codes = (offset + rng.normal(size=(33, 8))).astype(np.float32)
    indices = jax.jit(codebook.nearest)(vectors, codes)
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(indices, brute_force(vectors, codes))


def test_ties_go_to_the_lowest_index():
    codes = np.float32([[3, 0], [1, 1], [-1, 1], [1, 1]])
    vectors = np.float32([[0, 1], [1, 1], [2, 5], [3, 0]])
    np.testing.assert_array_equal(codebook.nearest(vectors, codes), [1, 1, 1, 0])


@both_kinds
def test_loss_and_gradients_by_hand(kind):
    method, params, stats, value_and_grad = tiny(kind)
    (_, out), grads = value_and_grad(params, jax.random.key(1), stats)
    codes = codes_of(kind, params, stats)
    ref = reference(params, codes)
    distance = ((ref.vectors - ref.nearest) ** 2).sum((-2, -1))
    codebook_term = distance if kind == "loss" else 0
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(out.terms["reconstruction"], ref.log_px_z)
    close(out.terms["commitment"], 0.25 * distance)
    close(out.loss, -ref.log_px_z + 0.25 * distance + codebook_term)
    assert set(out.terms) == set(method.terms)

    # Straight through: d(-log p)/d z = d(-log p)/d e = -residuals C^T.
    decoder = np.asarray(params["decoder"], np.float64)
    through = -(ref.residuals @ decoder.T).reshape(B, M, E)
    to_vectors = through + 2 * 0.25 * (ref.vectors - ref.nearest)
    close(grads["encoder"], BATCH.x.T @ to_vectors.reshape(B, -1))
    close(grads["decoder"], -ref.nearest.reshape(B, -1).T @ ref.residuals)
    if kind == "loss":
        expected = np.zeros((K, E))
        np.add.at(expected, ref.indices, 2 * (ref.nearest - ref.vectors))
        close(grads["codebook"], expected)
    else:
        assert jax.tree.leaves(grads["codebook"]) == []


def codes_of(kind, params, stats):
    book = codebook.make(kind, K, DECAY, 0.0)
    return np.asarray(book.codes(params["codebook"], stats))


def test_moving_averages_are_steps_of_hard_em():
    """Counts and sums of van den Oord et al. (2017), A.1, with batches of one size."""
    _, params, stats, value_and_grad = tiny("ema")
    counts, sums = np.full(K, B * M / K), codes_of("ema", params, stats) * B * M / K
    codes = codes_of("ema", params, stats)
    for step in range(3):
        (_, out), _ = value_and_grad(params, jax.random.key(step), stats)
        ref, stats = reference(params, codes), out.stats
        rows = np.eye(K)[ref.indices.ravel()]
        counts = DECAY * counts + (1 - DECAY) * rows.sum(0)
        sums = DECAY * sums + (1 - DECAY) * rows.T @ ref.vectors.reshape(-1, E)
        codes = sums / counts[:, None]
        np.testing.assert_allclose(codes_of("ema", params, stats), codes, rtol=1e-4)
        np.testing.assert_allclose(stats.shares * B * M, counts, rtol=1e-5)


def test_smoothing_keeps_unused_codes_finite():
    stats = codebook.MovingStats(jnp.float32([0, 1]), jnp.float32([[0, 0], [3, -4]]))
    codes = codebook.make("ema", 2, DECAY, 0.0).codes((), stats)
    np.testing.assert_allclose(codes, [[0, 0], [3, -4]], rtol=2 * codebook.SMOOTHING)


@both_kinds
def test_unused_codes_become_encoder_outputs(kind):
    """Vectors in two groups, codes at one of them and two far away: these are restarted."""
    book = codebook.make(kind, 3, DECAY, 0.5)
    rng = np.random.default_rng(2)
    vectors = np.concatenate([rng.normal(size=(6, 2)), 20 + rng.normal(size=(6, 2))])
    vectors = vectors.astype(np.float32)
    start = np.float32([[0.0, 0.0], [900.0, 900.0], [-900.0, 900.0]])
    shares = jnp.float32([0.9, 0.18, 0.05])
    if kind == "loss":
        params, stats = jnp.asarray(start), codebook.LearnedStats(shares, jnp.zeros((3, 2)))
    else:
        params, stats = (), codebook.MovingStats(shares, start * shares[:, None])
    rows = jnp.asarray(np.eye(3, dtype=np.float32)[np.zeros(12, int)])
    update = jax.jit(book.update)
    new, restarts = update(jax.random.key(0), params, stats, vectors, rows)
    codes = np.asarray(book.codes(params, new))
    # The shares decay to .162 and .045, below half of a third.
    assert restarts == 2
    np.testing.assert_allclose(new.shares, [0.91, 1 / 3, 1 / 3], rtol=1e-6)
    sources = [np.flatnonzero(np.isclose(vectors, code, rtol=1e-4).all(1)) for code in codes[1:]]
    # The new codes are two different vectors of the batch, from the group that is far from code 0.
    assert [len(source) for source in sources] == [1, 1]
    assert sources[0] != sources[1]
    assert all(source >= 6 for source in sources)
    # The same key gives the same restarts. With restart_below = 0 the far codes stay.
    again, _ = update(jax.random.key(0), params, stats, vectors, rows)
    jax.tree.map(np.testing.assert_array_equal, again, new)
    kept, restarts = codebook.make(kind, 3, DECAY, 0.0).update(
        jax.random.key(0), params, stats, vectors, rows
    )
    assert restarts == 0
    np.testing.assert_allclose(book.codes(params, kept)[1:], start[1:], rtol=1e-3)


def test_first_codes_are_distinct_vectors_and_repeat_only_where_there_are_too_few():
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)

    def first_codes(book):
        start = jax.jit(lambda key, rows: book.codes(*book.init(key, rows)))
        return np.asarray(start(jax.random.key(0), vectors))

    for kind in CODEBOOKS:
        book = codebook.make(kind, 4, DECAY, 0.0)
        codes = first_codes(book)
        rows = {tuple(np.round(code, 3)) for code in codes}
        assert len(rows) == 4 and rows <= {tuple(row) for row in vectors}
    book = codebook.make("loss", 7, DECAY, 0.0)
    assert {tuple(code) for code in first_codes(book)} == {tuple(row) for row in vectors}


def test_perplexity_and_usage_by_hand():
    use = codebook.codebook_use(jnp.int32([[0, 0], [1, 4]]), 5)
    np.testing.assert_allclose(use.perplexity, 2**1.5, rtol=1e-6)  # H = 1/2 log 2 + 1/2 log 4
    np.testing.assert_allclose(use.usage, 3 / 5)
    np.testing.assert_allclose(codebook.codebook_use(jnp.arange(5), 5), [5, 1], rtol=1e-6)
    np.testing.assert_allclose(codebook.codebook_use(jnp.zeros(3, int), 5), [1, 1 / 5])


@both_kinds
def test_measure_encode_decode_and_terms_agree(kind):
    method, params, stats, value_and_grad = tiny(kind)
    draw = method.pictures["reconstructions"].draw

    @jax.jit
    def compute(key, *state):
        parts = jax.random.split(key)
        measured = method.measure(parts[0], *state, BATCH)
        return measured, method.encode(*state, BATCH), draw(parts[1], *state, BATCH)

    measured, codes, shown = compute(jax.random.key(0), params, stats)
    ref = reference(params, codes_of(kind, params, stats))
    np.testing.assert_array_equal(measured["codes"], ref.indices)
    assert measured["codes"].dtype == jnp.int32
    np.testing.assert_allclose(measured["log_px_code"], ref.log_px_z, rtol=1e-5)
    np.testing.assert_array_equal(codes, ref.indices)
    assert method.code_specs == (Spec("token", (1, M), K),)
    (_, out), _ = value_and_grad(params, jax.random.key(0), stats)
    use = codebook.codebook_use(measured["codes"], K)
    np.testing.assert_allclose(out.terms["perplexity"], use.perplexity, rtol=1e-5)
    np.testing.assert_allclose(shown, BATCH.x - ref.residuals, rtol=1e-5)


@pytest.mark.slow
@both_kinds
def test_init_is_deterministic_and_jit_changes_nothing(kind):
    method, params, stats, value_and_grad = tiny(kind)
    again = method.init(jax.random.key(0), BATCH)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), again, (params, stats))
    (_, compiled), _ = value_and_grad(params, jax.random.key(3), stats)
    with jax.disable_jit():
        (_, eager), _ = value_and_grad(params, jax.random.key(3), stats)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, eager, compiled)


@both_kinds
def test_steps_lower_the_loss(kind):
    _, params, stats, value_and_grad = tiny(kind)
    losses = []
    for step in range(30):
        (value, out), grads = value_and_grad(params, jax.random.key(step), stats)
        losses.append(value)
        stats = out.stats
        params = jax.tree.map(lambda p, g: p - 0.02 * g, params, grads)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.6 * losses[0]


@both_kinds
def test_a_step_by_parts_is_that_of_the_batch(kind):
    """Restarts, moving averages and perplexity need the whole batch."""
    method = vqvae.make(linear(), settings(kind, restart_below=1.0, codebook_decay=0.0), SPEC)
    _, params, stats, _ = tiny(kind)
    terms = assert_step_by_parts_is_that_of_the_batch(method, params, stats, BATCH, HPARAMS)
    assert terms["restarts"] > 0 and terms["perplexity"] > 1


class Table(NamedTuple):
    """A law of M codes by its table of log-probabilities, with M axes of length K."""

    log_probabilities: np.ndarray

    def log_prob(self, codes):
        return jnp.asarray(self.log_probabilities)[tuple(jnp.moveaxis(codes, -1, 0))]


def test_pair_bound_lies_below_log_px_and_reaches_it_with_a_point_mass():
    """log p(x) = log sum_z p(z) p(x|z) over all K^M arrays of codes."""
    method, params, stats, _ = tiny("ema")
    images = np.float32(list(itertools.product((0, 1), repeat=D)))
    log_prior = np.log(np.random.default_rng(3).dirichlet(np.ones(K**M))).reshape((K,) * M)
    all_codes = np.int32(list(itertools.product(range(K), repeat=M)))

    @jax.jit
    def log_likelihoods(params, stats):  # [K^M, 2^D]
        return method.decode(params, stats, all_codes[:, None], Given()).log_prob(images)

    @jax.jit
    def bound_and_codes(params, stats, log_prior):
        batch = Batch(images)
        bound = pair_bound(method, params, stats, batch, Table(log_prior))
        return bound, method.encode(params, stats, batch)

    log_px_z = np.asarray(log_likelihoods(params, stats), np.float64)
    log_joint = log_px_z + log_prior.ravel()[:, None]
    log_px = logsumexp(log_joint, axis=0)
    np.testing.assert_allclose(np.exp(log_px).sum(), 1, rtol=1e-5)

    bound, codes = map(np.asarray, bound_and_codes(params, stats, log_prior))
    one = np.ravel_multi_index(tuple(codes.T), (K,) * M)
    np.testing.assert_allclose(bound, log_joint[one, np.arange(2**D)], rtol=1e-5)
    assert np.all(bound < log_px)
    point = np.full((K,) * M, -np.inf)
    point[tuple(codes[0])] = 0
    exact, _ = bound_and_codes(params, stats, point)
    np.testing.assert_allclose(exact[0], log_px_z[one[0], 0], rtol=1e-6)


def test_an_unknown_kind_of_codebook_is_refused():
    with pytest.raises(ValueError, match="codebook must be one of ema, loss; got 'vq'"):
        codebook.make("vq", K, DECAY, 0.0)
