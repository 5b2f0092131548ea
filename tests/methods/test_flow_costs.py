"""Training of an inverse autoregressive q(z|x) by reparam: no pass per dimension in turn, and the
operations of one forward and one backward pass of its masked networks.

The operations need all of the compiler's optimizations: no `fast_compilation`.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from elbo_lab import configs, methods
from elbo_lab.data import Batch, Spec
from elbo_lab.training import hyper
from tests.losses.jaxprs import primitives

SPEC = Spec("image", (4, 4), 2)
# The flow's default sizes, and a small mlp around it: B, D, the mlp's width, L, H, steps.
BATCH, DATA_DIM, WIDTH, LATENTS, HIDDEN, DEPTH = 16, 16, 16, 50, 200, 2
LOOPS = {"while", "scan"}


def gradient(**values):
    """The gradient of the mean loss by all parameters as a function, and shapes of its arguments:
    parameters, key and images.
    """
    config = configs.make(batch_size=BATCH, hidden_dims=(WIDTH,), latent_dims=(LATENTS,), **values)
    method, hparams = methods.make(config, SPEC, BATCH), hyper.hyperparameters([config])
    x = jax.ShapeDtypeStruct((BATCH, DATA_DIM), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, stats = jax.eval_shape(method.init, key, Batch(x))

    def loss(params, key, x):
        return jnp.mean(method.loss(key, params, stats, Batch(x), hparams).loss)

    return jax.grad(loss), (params, key, x)


def loops(**values):
    function, arguments = gradient(**values)
    return LOOPS & set(primitives(jax.make_jaxpr(function)(*arguments).jaxpr))


@functools.cache
def operations(posterior, k):
    function, arguments = gradient(objective="elbo", k=k, posterior=posterior)
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("prior", ["standard", "flow"])
@pytest.mark.parametrize("objective", ["elbo", "beta_vae", "free_bits_batch", "iwae"])
def test_reparam_has_no_loop(objective, prior):
    for k in (1, 5):
        assert not loops(objective=objective, k=k, posterior="iaf", prior=prior)


def test_a_loop_would_be_found():
    # The z of dreams were not drawn from q(z|x): log q is a search.
    assert loops(objective="wake_sleep", k=1, posterior="iaf")


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 5])
def test_reparam_adds_three_forward_passes_of_the_masked_networks(k):
    """One forward, and two products of its size backward: by the values and by the weights."""
    masked_networks = DEPTH * k * BATCH * (LATENTS * HIDDEN + 2 * HIDDEN * LATENTS)
    contexts = BATCH * WIDTH * DEPTH * HIDDEN
    forward = 2 * (masked_networks + contexts)  # A product of numbers and its sum.
    added = operations("iaf", k) - operations("diagonal", k)
    # A fifth for what is no matrix product: activations, masks and the steps themselves.
    assert 3 * forward <= added <= 1.2 * 3 * forward
