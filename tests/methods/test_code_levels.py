"""VQ-VAE of two levels of codes: quantization, gradients and bound, against NumPy in float64."""

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
from elbo_lab.models.base import Given
from elbo_lab.models.vqvae import Quantized, VQVAEOptions
from tests.methods.parts import assert_step_by_parts_is_that_of_the_batch

pytestmark = pytest.mark.usefixtures("fast_compilation")

# Bernoulli pixels, codes of the top and of the bottom level, dimensions of a code, codes, examples.
D, TOP, BOTTOM, E, K, B = 4, 1, 2, 2, 3, 8
SPEC = Spec("image", (2, 2), 2)
COMMITMENT = 0.25
BATCH = Batch(np.random.default_rng(0).integers(0, 2, (B, D)).astype(np.float32))
both_kinds = pytest.mark.parametrize("kind", ["ema", pytest.param("loss", marks=pytest.mark.slow)])


def linear() -> Quantized:
    """z_top = x A, z_bottom = x B + e_top C; p(x|e) = Bernoulli(sigmoid(e_top F + e_bottom G))."""
    shapes = {"A": (D, TOP * E), "B": (D, BOTTOM * E), "C": (TOP * E, BOTTOM * E)}
    outputs = {"F": (TOP * E, D), "G": (BOTTOM * E, D)}

    def init(key, batch, mean=None):
        rng = np.random.default_rng(3)

        def drawn(shapes):
            return {name: jnp.float32(rng.normal(size=shape)) for name, shape in shapes.items()}

        return {"encoder": drawn(shapes), "decoder": drawn(outputs)}

    def features(params, x, given):
        return x @ params["encoder"]["A"], x @ params["encoder"]["B"]

    def vectors(params, features, above):
        if not above:
            return features[0].reshape(-1, TOP, E)
        return (features[1] + flat(above[0]) @ params["encoder"]["C"]).reshape(-1, BOTTOM, E)

    def likelihood(params, vectors, given):
        top, bottom = vectors
        own = params["decoder"]
        return BernoulliVector(flat(top) @ own["F"] + flat(bottom) @ own["G"])

    return Quantized(init, features, vectors, likelihood, ((1, TOP), (1, BOTTOM)), K, E)


def flat(vectors):
    return vectors.reshape(*vectors.shape[:-2], -1)


class Step(NamedTuple):
    loss: np.ndarray  # [B]
    terms: dict
    stats: tuple  # of both levels, after the batch


def step(method, key, params, stats) -> Step:
    hparams = {"commitment": jnp.float32(COMMITMENT)}
    out = method.loss(None, params, stats, BATCH, hparams)
    new_stats, terms = method.update(key, params, stats, out.observed)
    return Step(out.loss, out.terms | terms, new_stats)


@functools.cache
def tiny(kind: str):
    """A method, params and stats, and its compiled loss with gradient and update."""
    options = VQVAEOptions(codebook=kind, code_levels=2, restart_below=0.0)
    method = vqvae.make(linear(), options, SPEC)
    params, stats = jax.jit(method.init)(jax.random.key(0), BATCH)

    def loss(params, key, stats):
        out = step(method, key, params, stats)
        return jnp.sum(out.loss), out

    return method, params, stats, jax.jit(jax.value_and_grad(loss, has_aux=True))


def codes_of(kind: str, params, stats) -> list[np.ndarray]:
    """The codes of both levels, float64."""
    book = codebook.make(kind, K, 0.99, 0.0)
    pairs = zip(params["codebook"], stats, strict=True)
    return [np.asarray(book.codes(*pair), np.float64) for pair in pairs]


def nearest(z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.argmin(((z[..., None, :] - codes) ** 2).sum(-1), axis=-1)


@both_kinds
def test_both_levels_are_quantized_from_the_top_and_pass_gradients_on(kind):
    method, params, stats, value_and_grad = tiny(kind)
    (_, out), grads = value_and_grad(params, jax.random.key(1), stats)
    x = BATCH.x.astype(np.float64)
    codes = codes_of(kind, params, stats)
    encoder, decoder = jax.tree.map(np.float64, (params["encoder"], params["decoder"]))
    z_top = (x @ encoder["A"]).reshape(B, TOP, E)
    i_top = nearest(z_top, codes[0])
    e_top = codes[0][i_top]
    z_bottom = (x @ encoder["B"] + flat(e_top) @ encoder["C"]).reshape(B, BOTTOM, E)
    i_bottom = nearest(z_bottom, codes[1])
    e_bottom = codes[1][i_bottom]
    p = expit(flat(e_top) @ decoder["F"] + flat(e_bottom) @ decoder["G"])
    log_px = np.log(np.where(x == 1, p, 1 - p)).sum(-1)
    distance = sum(((z - e) ** 2).sum((-2, -1)) for z, e in [(z_top, e_top), (z_bottom, e_bottom)])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(out.terms["reconstruction"], log_px)
    close(out.terms["commitment"], COMMITMENT * distance)
    weight = COMMITMENT + (kind == "loss")
    close(out.loss, weight * distance - log_px)
    assert set(out.terms) == set(method.terms) and out.terms.keys() >= {
        "perplexity_1",
        "restarts_2",
    }
    for name, indices in [("perplexity_1", i_top), ("perplexity_2", i_bottom)]:
        share = np.bincount(indices.ravel(), minlength=K) / indices.size
        entropy = -sum(s * np.log(s) for s in share if s > 0)
        close(out.terms[name], np.exp(entropy))

    # Straight through at both levels: the bottom's gradient reaches the top by C.
    residuals = x - p
    to_bottom = -residuals @ decoder["G"].T + 2 * COMMITMENT * flat(z_bottom - e_bottom)
    to_top = -residuals @ decoder["F"].T + to_bottom @ encoder["C"].T
    to_top = to_top + 2 * COMMITMENT * flat(z_top - e_top)
    close(grads["encoder"]["A"], x.T @ to_top)
    close(grads["encoder"]["B"], x.T @ to_bottom)
    close(grads["encoder"]["C"], flat(e_top).T @ to_bottom)
    close(grads["decoder"]["F"], -flat(e_top).T @ residuals)
    close(grads["decoder"]["G"], -flat(e_bottom).T @ residuals)
    if kind == "ema":
        assert jax.tree.leaves(grads["codebook"]) == []
        return
    for own, indices, z, e in zip(
        grads["codebook"], (i_top, i_bottom), (z_top, z_bottom), (e_top, e_bottom), strict=True
    ):
        expected = np.zeros((K, E))
        np.add.at(expected, indices, 2 * (e - z))
        close(own, expected)


def test_measure_encode_and_decode_have_all_levels_side_by_side():
    method, params, stats, _ = tiny("ema")

    @jax.jit
    def compute(params, stats):
        codes = method.encode(params, stats, BATCH)
        law = method.decode(params, stats, codes, Given())
        return codes, law.log_prob(BATCH.x), method.measure(None, params, stats, BATCH)

    codes, log_px, measured = compute(params, stats)
    assert method.code_specs == (Spec("token", (1, TOP), K), Spec("token", (1, BOTTOM), K))
    assert codes.shape == (B, TOP + BOTTOM) and codes.dtype == jnp.int32
    np.testing.assert_array_equal(measured["codes_1"], codes[:, :TOP])
    np.testing.assert_array_equal(measured["codes_2"], codes[:, TOP:])
    np.testing.assert_allclose(measured["log_px_code"], log_px, rtol=1e-6)


@both_kinds
def test_a_step_by_parts_is_that_of_the_batch(kind):
    options = VQVAEOptions(codebook=kind, code_levels=2, restart_below=1.0, codebook_decay=0.0)
    method = vqvae.make(linear(), options, SPEC)
    _, params, stats, _ = tiny(kind)
    hparams = {"commitment": jnp.float32(COMMITMENT)}
    terms = assert_step_by_parts_is_that_of_the_batch(method, params, stats, BATCH, hparams)
    assert terms["restarts_1"] + terms["restarts_2"] > 0 and terms["perplexity_2"] > 1


@pytest.mark.slow
def test_each_level_has_its_own_moving_averages_and_restarts():
    """One step of hard EM for each level, with codes that are far from all vectors restarted."""
    method, params, stats, value_and_grad = tiny("ema")
    (_, out), _ = value_and_grad(params, jax.random.key(1), stats)
    codes = codes_of("ema", params, stats)
    indices = np.split(np.asarray(method.encode(params, stats, BATCH)), [TOP], axis=1)
    for own, new, used in zip(stats, out.stats, indices, strict=True):
        share = np.bincount(used.ravel(), minlength=K) / used.size
        np.testing.assert_allclose(new.shares, 0.99 * own.shares + 0.01 * share, rtol=1e-5)
    assert not np.allclose(codes[0], codes[1])
    options = VQVAEOptions(codebook="ema", code_levels=2, restart_below=1.0, codebook_decay=0.0)
    restarting = vqvae.make(linear(), options, SPEC)
    out = jax.jit(functools.partial(step, restarting))(jax.random.key(2), params, stats)
    for i, used in enumerate(indices):
        below = np.bincount(used.ravel(), minlength=K) / used.size < 1 / K
        assert out.terms[f"restarts_{i + 1}"] == below.sum()


def test_the_bound_with_a_prior_of_each_level_lies_below_log_px():
    """log p(x) = log sum p(top) p(bottom|top) p(x|top, bottom) over all K^3 arrays of codes."""
    method, params, stats, _ = tiny("ema")
    images = np.float32(list(itertools.product((0, 1), repeat=D)))
    all_codes = np.int32(list(itertools.product(range(K), repeat=TOP + BOTTOM)))
    rng = np.random.default_rng(4)
    top = np.log(rng.dirichlet(np.ones(K)))  # [K]
    bottom = np.log(rng.dirichlet(np.ones(K**BOTTOM), size=K))  # [K, K^BOTTOM]
    log_prior = (top[:, None] + bottom).ravel()

    class Prior:
        def log_prob(self, codes):
            place = codes @ (K ** np.arange(TOP + BOTTOM)[::-1])
            return jnp.asarray(log_prior)[place]

    @jax.jit
    def compute(params, stats):
        law = method.decode(params, stats, all_codes[:, None], Given())
        bound = vqvae.pair_bound(method, params, stats, Batch(images), Prior())
        return law.log_prob(images), bound, method.encode(params, stats, Batch(images))

    log_px_z, bound, codes = map(np.asarray, compute(params, stats))
    log_joint = log_px_z.astype(np.float64) + log_prior[:, None]
    log_px = logsumexp(log_joint, axis=0)
    np.testing.assert_allclose(np.exp(log_px).sum(), 1, rtol=1e-5)
    one = codes @ (K ** np.arange(TOP + BOTTOM)[::-1])
    np.testing.assert_allclose(bound, log_joint[one, np.arange(2**D)], rtol=1e-5)
    assert np.all(bound < log_px)
