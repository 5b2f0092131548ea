"""The law of independent tokens, and completions of both laws of tokens, by NumPy float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from elbo_lab.data.dataset import Spec
from elbo_lab.distributions import Autoregressive, TokenCategorical
from elbo_lab.distributions.means import closed_form_mean

pytestmark = pytest.mark.usefixtures("fast_compilation")
LOGITS = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)  # [batch, T, V]


def test_log_masses_are_those_of_numpy_for_draws_before_the_batch():
    law = TokenCategorical(jnp.asarray(LOGITS))
    value = np.random.default_rng(1).integers(0, 4, (5, 2, 3)).astype(np.int32)
    log_p = log_softmax(LOGITS.astype(np.float64), axis=-1)
    expected = np.take_along_axis(log_p[None].repeat(5, 0), value[..., None], -1)[..., 0]
    np.testing.assert_allclose(law.log_conditionals(value), expected, rtol=1e-5)
    np.testing.assert_allclose(law.log_prob(value), expected.sum(-1), rtol=1e-5)
    # Several draws of z, and one text for each of the batch.
    many = TokenCategorical(jnp.asarray(np.stack([LOGITS, 2 * LOGITS])))
    np.testing.assert_allclose(many.log_prob(value[0])[0], expected[0].sum(-1), rtol=1e-5)
    assert law.event_shape == (3,) and law.batch_shape == (2,)
    assert closed_form_mean(law) is None  # a mean of tokens has no meaning


def test_draws_are_tokens_with_the_law_s_frequencies():
    law = TokenCategorical(jnp.asarray(LOGITS[0]))
    x = np.asarray(law.sample(jax.random.key(0), (20_000,)))
    assert x.dtype == np.int32 and x.shape == (20_000, 3)
    expected = np.exp(log_softmax(LOGITS[0].astype(np.float64), axis=-1))
    share = np.stack([np.bincount(column, minlength=4) for column in x.T]) / len(x)
    np.testing.assert_array_less(abs(share - expected), 4.5 * np.sqrt(expected / len(x)))
    known = jnp.full((2, 3), 3, jnp.int32)
    done = np.asarray(TokenCategorical(jnp.asarray(LOGITS)).complete(jax.random.key(1), known, 2))
    np.testing.assert_array_equal(done[:, :2], 3)


@pytest.mark.parametrize("levels", [2, 3])
def test_completions_follow_the_conditional_law(levels):
    """Logits of x_t are a table by x_{t-1}: p(x_2, x_3 | x_1) is a product of two rows."""
    rng = np.random.default_rng(2)
    outputs = () if levels == 2 else (levels,)
    table = rng.normal(size=(levels, *outputs)).astype(np.float32)

    def logits(x):
        before = jnp.pad(x[..., :-1], [*[(0, 0)] * (x.ndim - 1), (1, 0)])
        return jnp.asarray(table)[before]

    law = Autoregressive(logits, Spec("token", (3,), levels))
    full = table.astype(np.float64)
    full = np.stack([np.zeros(2), full], axis=-1) if levels == 2 else full
    log_p = log_softmax(full, axis=-1)
    every = np.array(list(itertools.product(range(levels), repeat=3)), np.int32)
    before = np.pad(every[:, :-1], ((0, 0), (1, 0)))
    np.testing.assert_allclose(law.log_conditionals(every), log_p[before, every], rtol=1e-5)
    x = jnp.full((20_000, 3), 1, jnp.int32)
    done = np.asarray(jax.jit(law.complete, static_argnums=2)(jax.random.key(0), x, 1))
    assert done.dtype == np.int32 and np.all(done[:, 0] == 1)
    expected = np.exp(log_p[1][:, None] + log_p).ravel()
    share = np.bincount(done[:, 1:] @ [levels, 1], minlength=levels**2) / len(done)
    np.testing.assert_array_less(abs(share - expected), 4.5 * np.sqrt(expected / len(done)))
