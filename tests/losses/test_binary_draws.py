"""Estimators of binary draws: their draws, posteriors of other libraries, and what is refused."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.distributions import BernoulliVector, Chain
from tests.losses.test_binary_estimators import BINARY, slow_unless

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, L, K = 3, 4, 5
LOGITS = np.random.default_rng(1).normal(size=(B, L)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).normal(size=L).astype(np.float32)
POSTERIORS = {
    "ours": BernoulliVector,
    "logits": lambda logits: dist.BernoulliLogits(logits).to_event(1),
    "probs": lambda logits: dist.BernoulliProbs(jax.nn.sigmoid(logits)).to_event(1),
    "chain": lambda logits: Chain(BernoulliVector(logits), (lambda z: BernoulliVector(-z),)),
}


def loss_and_aux(logits, name, library="ours", vectorized=True):
    """The IWAE bound of every example, [B], and `Aux`."""

    def bits(z):
        return sum(z) if isinstance(z, tuple) else z.astype(jnp.float32)

    def log_likelihood(z):
        return jnp.tanh(jnp.sum(bits(z) * jnp.broadcast_to(WEIGHTS, bits(z).shape), axis=-1))

    class Standard:
        def log_prob(self, z):
            return jnp.sum(-0.3 * bits(z), axis=-1)

    return losses.iwae(
        jax.random.key(0),
        POSTERIORS[library](logits),
        Standard(),
        log_likelihood,
        num_samples=K,
        estimator=name,
        vectorized=vectorized,
    )


@pytest.mark.promotes
@pytest.mark.parametrize("library", slow_unless(["ours"], POSTERIORS))
def test_draws_and_values_are_those_of_the_score_function(library):
    names = [name for name in BINARY if (name, library) != ("rebar", "chain")]

    @jax.jit
    def compute(logits):
        return [
            loss_and_aux(logits, name, library, vectorized=name != "disarm")
            for name in ("score", *names)
        ]

    expected, *by_estimator = compute(LOGITS)
    assert expected[0].shape == (B,)
    for result in by_estimator:
        chex.assert_trees_all_close(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.promotes
@pytest.mark.slow
@pytest.mark.parametrize("name", BINARY)
def test_libraries_and_vectorization_do_not_change_the_gradient(name):
    @functools.partial(jax.jit, static_argnums=(1, 2))
    def slope(logits, library, vectorized):
        return jax.grad(lambda x: jnp.sum(loss_and_aux(x, name, library, vectorized)[0]))(logits)

    expected = slope(LOGITS, "ours", True)
    assert np.all(np.isfinite(expected)) and np.any(expected != 0)
    for library, vectorized in (("ours", False), ("logits", True), ("probs", True)):
        np.testing.assert_allclose(
            slope(LOGITS, library, vectorized), expected, rtol=1e-4, atol=1e-6
        )


# What is refused.


@pytest.mark.parametrize(
    ("posterior", "reason"),
    [
        (dist.Normal(np.zeros((B, L)), 1.0).to_event(1), "got Normal"),
        (dist.CategoricalLogits(np.zeros((B, 2))), "got CategoricalLogits"),
        (
            Chain(BernoulliVector(LOGITS), (lambda z: dist.Normal(z, 1.0).to_event(1),)),
            "got Normal",
        ),
        (
            Chain(BernoulliVector(LOGITS), (BernoulliVector,), downwards=True),
            "in layers drawn from the data up; got layers drawn downwards",
        ),
    ],
)
def test_other_posteriors_are_refused(posterior, reason):
    for name in BINARY:
        if name == "rebar" and isinstance(posterior, Chain):
            continue
        message = f'"{name}" needs a posterior of independent Bernoulli variables.* ?{reason}'
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(
                lambda key: losses.elbo(
                    key,
                    posterior,
                    posterior,
                    lambda z: jnp.zeros(B),
                    estimator=name,  # noqa: B023
                ),
                jax.random.key(0),
            )


def test_rebar_is_for_one_layer():
    with pytest.raises(ValueError, match='"rebar" needs .* in one layer; got a hierarchy'):
        loss_and_aux(LOGITS, "rebar", "chain")


@pytest.mark.parametrize("temperature", [0, -1.0, [0.5, 0.5]])
def test_the_temperature_is_positive(temperature):
    for name in ("gumbel_softmax", "straight_through", "rebar"):
        estimator = functools.partial(losses.ESTIMATORS[name], temperature=temperature)
        with pytest.raises(ValueError, match="temperature must be one number above 0; got"):
            loss_and_aux(LOGITS, estimator)


@pytest.mark.parametrize("name", slow_unless(["disarm"], BINARY))
def test_second_derivatives_are_refused(name):
    def total(logits):
        return jnp.sum(loss_and_aux(logits, name)[0])

    with pytest.raises(ValueError, match="Only first derivatives of this loss are right"):
        jax.eval_shape(jax.hessian(total), LOGITS)
