"""The method of exact densities: loss, measure, pictures, training, sampling in steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.methods import density
from elbo_lab.methods.density import sample_in_steps
from elbo_lab.models import pixelcnn, pixelrnn
from elbo_lab.models.base import Given
from elbo_lab.models.networks.pixelrnn import RNNS

pytestmark = pytest.mark.usefixtures("fast_compilation")

SPEC = Spec("image", (4, 3), 2)
SIZES = {"width": 4, "layers": 2, "output_width": 4}
# All see two rows above without an LSTM's memory, which takes more steps to learn.
MODELS = {
    "pixelcnn": pixelcnn.make(pixelcnn.PixelCNNOptions(first_kernel_size=3, **SIZES), SPEC),
} | {
    rnn: pixelrnn.make(pixelrnn.PixelRNNOptions(rnn=rnn, first_kernel_size=5, **SIZES), SPEC)
    for rnn in RNNS
}
# Two images with labels, which the model ignores.
X = np.random.default_rng(0).integers(2, size=(2, 12)).astype(np.float32)
BATCH = Batch(np.repeat(X, 4, axis=0), label=np.arange(8))


class Case:
    """A model with its method, and the start of its training."""

    def __init__(self, name: str):
        self.model = MODELS[name]
        self.method = density.make(self.model, SPEC)
        self.params, self.stats = jax.jit(self.method.init)(jax.random.key(0), BATCH)


case_of = functools.cache(Case)


@pytest.fixture(
    params=["pixelcnn", *(pytest.param(name, marks=pytest.mark.slow) for name in list(MODELS)[1:])]
)
def case(request) -> Case:
    return case_of(request.param)


def test_loss_and_measure_are_the_exact_log_likelihood(case):
    method, params, stats = case.method, case.params, case.stats

    @jax.jit
    def values(params):
        law = case.model.distribution(params, stats, Given())
        loss = method.loss(jax.random.key(1), params, stats, BATCH, {})
        measured = method.measure(jax.random.key(1), params, stats, BATCH)
        return law.log_prob(BATCH.x), loss, measured

    expected, loss, measured = values(params)
    assert method.terms == tuple(loss.terms)
    assert method.headline in measured and stats == () and method.update is None
    for value in (-loss.loss, -loss.terms["nll"], measured["log_px"]):
        assert value.shape == (8,)
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_training_learns_two_images(case):
    """The best density of two images, each half of the data, has log p(x) = -log 2."""
    method, params, stats = case.method, case.params, case.stats
    optimizer = optax.adam(0.02)

    def step(state, _):
        params, moments = state

        def mean_loss(params):
            return jnp.mean(method.loss(jax.random.key(1), params, stats, BATCH, {}).loss)

        loss, gradient = jax.value_and_grad(mean_loss)(params)
        update, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, update), moments), loss

    run = jax.jit(lambda state: jax.lax.scan(step, state, length=300)[1])
    losses = run((params, optimizer.init(params)))
    assert losses[0] > 3 * np.log(2)
    assert np.log(2) <= losses[-1] + 1e-5 and losses[-1] < np.log(2) + 0.2


def test_pictures_and_sampling_in_steps_make_the_draws_of_the_law(case):
    method, params, stats = case.method, case.params, case.stats
    (picture,) = method.pictures.values()
    assert not picture.beside_inputs

    @jax.jit
    def draws(params):
        law = case.model.distribution(params, stats, Given())
        drawn = picture.draw(jax.random.key(2), params, stats, BATCH)
        return law.sample(jax.random.key(2), (8,)), drawn

    expected, drawn = draws(params)
    np.testing.assert_array_equal(drawn, expected)

    progress = []
    drawn = sample_in_steps(
        case.model,
        jax.random.key(2),
        params,
        stats,
        Given(),
        (8,),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    np.testing.assert_array_equal(drawn, expected)
    # Four rows of three values.
    assert progress == [(number, 12) for number in (3, 6, 9, 12)]
