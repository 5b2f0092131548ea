"""PixelCNN of codes given those of the levels above: dependence, masses, code by code, refusals."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, models
from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.models import MODELS, Given, pixelcnn

pytestmark = pytest.mark.usefixtures("fast_compilation")

# Two levels above a grid of 3 x 4 codes.
ABOVE = (Spec("token", (1, 1), 3), Spec("token", (2, 2), 3))
SPEC = Spec("token", (3, 4), 5, context=ABOVE)
# All values of this one are enumerated.
TINY = Spec("token", (2, 3), 3, context=(Spec("token", (1, 2), 3),))
TINY_ABOVE = np.int32([[0, 1], [2, 2]])
OPTIONS = pixelcnn.PixelCNNOptions(
    width=8, layers=2, first_kernel_size=5, output_width=24, embedding_dim=3
)
NUM_DRAWS = 10_000


@functools.cache
def random_model(spec: Spec):
    """A model with parameters that are drawn at random, biases included."""
    model, rng = pixelcnn.make(OPTIONS, spec), np.random.default_rng(1)
    size = sum(own.dim for own in spec.context)
    batch = Batch(np.zeros((4, spec.dim), np.int32), context=np.zeros((4, size), np.int32))
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return model, jax.tree.map(lambda p: rng.normal(0, 0.5, p.shape).astype(np.float32), shapes)


def law_given(spec: Spec, context):
    model, params = random_model(spec)
    return model.distribution(params, (), Given(context=jnp.asarray(context)))


def tokens(shape: tuple[int, ...], levels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(levels, size=shape).astype(np.int32)


def test_a_code_sees_those_before_it_and_all_levels_above():
    """Row d of the changed copies differs in value d, of x or of the context."""
    x, context = tokens((6, 1, SPEC.dim), 5), tokens((6, 1, 5), 3)
    other_x = (x + np.eye(SPEC.dim, dtype=np.int32)) % 5
    other_context = (context + np.eye(5, dtype=np.int32)) % 3

    @jax.jit
    def logits(x, context):
        return law_given(SPEC, context).logits(x)

    before = np.asarray(logits(x, context))
    by_x = np.abs(logits(other_x, context) - before).max(axis=(0, -1))
    earlier = np.triu(np.ones((SPEC.dim, SPEC.dim), bool), k=1)
    np.testing.assert_allclose(by_x[~earlier], 0, atol=1e-6)
    # The kernels of two layers reach three columns to either side and all rows above.
    assert np.min(by_x[earlier]) > 1e-5
    by_context = np.abs(logits(np.broadcast_to(x, (6, 5, SPEC.dim)), other_context) - before).max(
        axis=(0, -1)
    )
    # The top code, and those of the 2 x 2 level at all values at which theirs is upsampled.
    assert np.min(by_context[0]) > 1e-5
    assert np.all(by_context.max(axis=1) > 1e-5)


def test_codes_one_by_one_have_the_logits_of_the_whole():
    x, context = tokens((2, SPEC.dim), 5, seed=2), tokens((2, 5), 3, seed=3)

    @jax.jit
    def both(x, context):
        law = law_given(SPEC, context)
        steps = law.steps
        state, logits = steps.start(x), []
        for row in range(3):
            state = steps.new_row(state, x, row)
            for column in range(4):
                own, state = steps.pixel(state, x, row, column)
                logits.append(own[..., 0, :])
        return jnp.stack(logits, axis=-2), law.logits(x)

    np.testing.assert_allclose(*both(x, context), atol=2e-5)


def test_masses_sum_to_one_for_each_context_and_are_those_of_draws():
    level = np.array(list(itertools.product(range(3), repeat=TINY.dim)), np.int32)
    law = law_given(TINY, TINY_ABOVE)
    assert law.batch_shape == (2,)
    log_mass = jax.jit(lambda x: law_given(TINY, TINY_ABOVE).log_prob(x))(level[:, None])
    mass = np.exp(np.asarray(log_mass, np.float64))
    np.testing.assert_allclose(mass.sum(axis=0), 1, atol=1e-5)
    assert np.abs(mass[:, 0] - mass[:, 1]).sum() > 0.1  # total variation, twice
    draws = jax.jit(lambda key: law.sample(key, (NUM_DRAWS,)))(jax.random.key(0))
    index = np.asarray(draws) @ 3 ** np.arange(TINY.dim)[::-1]
    for i in range(2):
        frequency = np.bincount(index[:, i], minlength=len(level)) / NUM_DRAWS
        # A count of one is not rare where the mass is below 1 / NUM_DRAWS.
        error = 4.5 * np.sqrt(mass[:, i] * (1 - mass[:, i]) / NUM_DRAWS) + 2 / NUM_DRAWS
        assert np.all(np.abs(frequency - mass[:, i]) < error)


def test_labels_beside_a_context_and_no_context_are_refused():
    with pytest.raises(ValueError, match="condition=label does not go with codes that are given"):
        options = pixelcnn.PixelCNNOptions(condition="label")
        pixelcnn.make(options, TINY._replace(classes=2))
    model, params = random_model(TINY)
    with pytest.raises(ValueError, match="needs the context of each example"):
        model.distribution(params, (), Given())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "pixelcnn"])
def test_other_families_refuse_a_context(name):
    with pytest.raises(ValueError) as refused:
        models.make(configs.make(model=name), TINY)
    assert str(refused.value) == (
        f"The model {name} takes no codes that are given those of the levels above; use pixelcnn."
    )
