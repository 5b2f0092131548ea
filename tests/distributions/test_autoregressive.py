"""Autoregressive laws of small vectors against all their masses, by NumPy float64."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from elbo_lab.data.dataset import Spec
from elbo_lab.distributions import Autoregressive, Steps
from elbo_lab.distributions.means import closed_form_mean

pytestmark = pytest.mark.usefixtures("fast_compilation")

SPECS = {
    "binary": Spec("image", (5,), 2),
    "grey": Spec("image", (3,), 4),
    "token": Spec("token", (3,), 3),
}
every_kind = pytest.mark.parametrize("kind", SPECS)
NUM_DRAWS = 20_000
DTYPES = {"image": jnp.float32, "token": jnp.int32}


def linear_law(kind: str) -> SimpleNamespace:
    """Logits b_d + sum_{e<d} W_de x_e of each level, as a law and by NumPy for all vectors."""
    spec = SPECS[kind]
    dim, levels = spec.dim, spec.levels
    outputs = () if levels == 2 else (levels,)
    rng = np.random.default_rng(0)
    bias = rng.normal(size=(dim, *outputs)).astype(np.float32)
    weight = rng.normal(size=(dim, dim, *outputs)).astype(np.float32)
    weight *= np.tri(dim, k=-1, dtype=np.float32).reshape(dim, dim, *(1 for _ in outputs))

    def logits(x):
        return bias + jnp.einsum("de...,ae->ad...", weight, x.reshape(-1, dim).astype(jnp.float32))

    def shaped(x):
        return logits(x).reshape(*x.shape, *outputs)

    level = np.array(list(itertools.product(range(levels), repeat=dim)))
    values = level / (levels - 1) if spec.kind == "image" else level
    exact = bias + np.einsum("de...,ae->ad...", weight.astype(np.float64), values)
    if levels == 2:
        exact = np.stack([np.zeros_like(exact), exact], axis=-1)
    log_mass = np.take_along_axis(log_softmax(exact, -1), level[..., None], -1).sum((1, 2))
    x = np.asarray(values, DTYPES[spec.kind])
    return SimpleNamespace(
        law=Autoregressive(shaped, spec), spec=spec, x=x, level=level, log_mass=log_mass
    )


def index_of(spec: Spec, x) -> np.ndarray:
    """The index of each draw in the list of all vectors."""
    level = np.asarray(x) * (spec.levels - 1) if spec.kind == "image" else np.asarray(x)
    return np.round(level).astype(int) @ spec.levels ** np.arange(spec.dim)[::-1]


@every_kind
def test_log_prob_of_all_vectors(kind):
    case = linear_law(kind)
    assert abs(logsumexp(case.log_mass)) < 1e-12
    np.testing.assert_allclose(jax.jit(case.law.log_prob)(case.x), case.log_mass, rtol=1e-5)


@every_kind
def test_draws_have_the_masses(kind):
    case = linear_law(kind)
    draws = jax.jit(lambda key: case.law.sample(key, (NUM_DRAWS,)))(jax.random.key(0))
    assert draws.dtype == DTYPES[case.spec.kind]
    assert np.all(case.law.support(np.asarray(draws)))
    frequency = np.bincount(index_of(case.spec, draws), minlength=len(case.x)) / NUM_DRAWS
    mass = np.exp(case.log_mass)
    standard_error = np.sqrt(mass * (1 - mass) / NUM_DRAWS)
    # Where the mass is below 1 / NUM_DRAWS, a count of one is not rare.
    assert np.all(np.abs(frequency - mass) < 4.5 * standard_error + 2 / NUM_DRAWS)


def running_sums(law: Autoregressive) -> Steps:
    """The steps of `linear_law("grey")` by rows of one value, whose state is the sum of what the
    values drawn so far add to the logits of all values.
    """
    dim, base = law.spec.dim, law.logits(jnp.zeros(law.spec.dim))

    def add(x, row):
        # The logits are linear, so that a value adds what it adds to zeros.
        return law.logits(jnp.where(jnp.arange(dim) == row, x, 0)) - base

    def new_row(state, x, row):
        return jnp.where(row > 0, state + add(x, row - 1), state)

    def pixel(state, x, row, column):
        return jax.lax.dynamic_slice_in_dim(base + state, row, 1, axis=-2), state

    return Steps((dim, 1, 1), lambda x: jnp.zeros((*x.shape, law.spec.levels)), new_row, pixel)


def test_a_vector_drawn_in_parts_and_with_a_state_is_the_vector_drawn_at_once():
    plain = linear_law("grey").law
    law = Autoregressive(plain.logits, SPECS["grey"], steps=running_sums(plain))
    sample = jax.jit(lambda key: plain.sample(key, (4,)))
    whole = sample(jax.random.key(3))
    assert np.any(whole != sample(jax.random.key(4)))
    draw, draws = jax.jit(law.sample_rows), law.blank((4,))
    for row in range(law.num_rows):
        draws = draw(jax.random.key(3), draws, row, row + 1)
    np.testing.assert_array_equal(whole, draws.x)


@pytest.mark.parametrize("has_state", [False, True])
def test_a_draw_is_completed_from_its_beginning_by_the_key_that_drew_it(has_state):
    plain = linear_law("grey").law
    steps = running_sums(plain) if has_state else None
    law = Autoregressive(plain.logits, SPECS["grey"], steps=steps)
    whole, is_known = plain.sample(jax.random.key(5), (40,)), jnp.arange(3) < 2
    complete = jax.jit(lambda key, x: law.complete(key, x, 2))
    beginning = jnp.where(is_known, whole, 1 - whole)
    assert np.all(beginning[:, 2] != whole[:, 2])
    np.testing.assert_array_equal(complete(jax.random.key(5), beginning), whole)
    other = complete(jax.random.key(6), beginning)
    np.testing.assert_array_equal(other[:, :2], whole[:, :2])
    assert np.any(other != whole)


def test_batch_dimensions_of_the_condition():
    # Given c, x_1 has the logit c and x_2 the logit c (2 x_1 - 1).
    condition = jnp.array([-1.0, 0.5, 2.0])

    def logits(x):
        c = jnp.broadcast_to(condition, x.shape[:-1])
        return jnp.stack([c, c * (2 * x[..., 0] - 1)], axis=-1)

    law = Autoregressive(logits, Spec("image", (2,), 2), batch_shape=(3,))
    c = np.asarray(condition, np.float64)
    # x = (1, 0), for each condition.
    expected = -np.logaddexp(0, -c) - np.logaddexp(0, c)
    np.testing.assert_allclose(jax.jit(law.log_prob)(np.float32([1, 0])), expected, rtol=1e-5)
    draws = np.asarray(jax.jit(lambda key: law.sample(key, (NUM_DRAWS,)))(jax.random.key(0)))
    assert draws.shape == (NUM_DRAWS, 3, 2)
    assert jax.eval_shape(law.log_prob, draws).shape == (NUM_DRAWS, 3)
    mass = np.exp(expected)
    frequency = np.mean((draws[..., 0] == 1) & (draws[..., 1] == 0), axis=0)
    assert np.all(np.abs(frequency - mass) < 4.5 * np.sqrt(mass * (1 - mass) / NUM_DRAWS))


def test_there_is_no_mean_in_closed_form():
    assert closed_form_mean(linear_law("token").law) is None
