"""Parameters that bounds refuse, and values for traced parameters out of range."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab.losses import bounds
from tests.losses import numpy_bounds
from tests.losses.every_bound import BOUNDS, K, close, random_log_w

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.mark.parametrize("num_outer", [0, -1, -2, 4, 7])
def test_num_outer_must_divide_the_number_of_log_weights(num_outer):
    with pytest.raises(ValueError, match=rf"num_outer.* 6; got {num_outer}\."):
        bounds.miwae(jnp.zeros((6, 5)), num_outer=num_outer)


@pytest.mark.parametrize(
    "name", ["elbo", "iwae", "miwae", "ciwae", "renyi(.5)", "cubo(2)", "vr_max"]
)
@pytest.mark.parametrize("shape", [(0, 5), ()])
def test_a_bound_needs_a_draw(name, shape):
    with pytest.raises(ValueError, match=rf"K of at least 1; got \({shape and '0, 5'}\)"):
        BOUNDS[name](jnp.zeros(shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: bounds.cubo(x, 0.5), r"power must be at least 1; got 0\.5"),
        (lambda x: bounds.cubo(x, np.float32(np.nan)), "power must be at least 1; got nan"),
        (lambda x: bounds.ciwae(x, 2), r"beta must lie in \[0, 1\]; got 2"),
        (lambda x: bounds.ciwae(x, np.float32(-0.5)), r"beta must lie in \[0, 1\]; got -0\.5"),
        (lambda x: bounds.sumo(x, -1), "num_terms must be integers of at least 0; got -1"),
        (lambda x: bounds.sumo(x, np.array([1, 2.5])), "num_terms must be integers of at least 0"),
        (lambda x: bounds.tvo(x, 10**9), "at most 1,000 steps; got 1,000,000,000"),
        (lambda x: bounds.tvo(x, np.linspace(0, 1, 1002)), "at most 1,000 steps; got 1,001"),
    ],
)
def test_concrete_parameters_are_checked(call, message):
    log_w = jnp.zeros((6, 2))
    for function in (call, jax.jit(call)):  # Constants are checked while tracing, too.
        with pytest.raises(ValueError, match=message):
            function(log_w)


def test_traced_parameters_out_of_range_follow_the_formulas():
    """A negative number of SUMO's terms counts as zero."""
    log_w = random_log_w(shape=(K, 2))
    run = jax.jit(lambda x, p: (bounds.cubo(x, p), bounds.ciwae(x, 4 * p), bounds.sumo(x, -p)))
    elbo, iwae = np.mean(log_w, axis=0), numpy_bounds.log_mean_exp(log_w)
    expected = numpy_bounds.power_mean(log_w, 0.5), 2 * elbo - iwae, log_w[0]
    for value, exact in zip(run(jnp.float32(log_w), 0.5), expected, strict=True):
        close(value, exact, atol=1e-4)


@pytest.mark.parametrize(
    ("number", "order", "ways"), [(60, 30, "about 10^49"), (5000, 2, "24,995,000")]
)
def test_the_jackknife_refuses_too_many_subsets(number, order, ways):
    sentence = f"order={order} of {number} log-weights makes {ways} ways"
    with pytest.raises(ValueError, match=re.escape(sentence) + ".* at most 10,000,000 are"):
        bounds.jackknife(jnp.zeros(number), order)


@pytest.mark.parametrize("order", [-1, 1.0, True, "1", None])
def test_the_jackknifes_order_is_an_integer(order):
    with pytest.raises(ValueError, match=f"order must be an integer of at least 0; got {order!r}"):
        bounds.jackknife(jnp.zeros((6, 5)), order=order)


@pytest.mark.parametrize("number", [1, 2])
def test_the_jackknife_needs_more_draws_than_its_order(number):
    with pytest.raises(ValueError, match=rf"below the number of log-weights, {number},.*got 2\."):
        bounds.jackknife(jnp.zeros((number, 5)), order=2)


@pytest.mark.parametrize(
    "partition",
    [0, -1, 2.5, True, [], [0.0], [0.0, 0.5], [0.5, 1.0], [0, 0.5, 0.5, 1], [0, 0.7, 0.2, 1]],
)
def test_a_partition_rises_from_0_to_1(partition):
    with pytest.raises(ValueError, match="partition must be a number of steps .* rise from 0 to 1"):
        bounds.tvo(jnp.zeros((6, 5)), partition=partition)


@pytest.mark.parametrize(
    "bound, name, value",
    [
        (bounds.renyi, "alpha", jnp.full((5, 1), 0.5)),
        (bounds.ciwae, "beta", jnp.full(2, 0.5)),
        (bounds.cubo, "power", jnp.full((6, 5), 2.0)),
        (bounds.sumo, "num_terms", jnp.ones((6, 1))),
    ],
)
def test_a_parameter_is_one_number_or_one_for_each_example(bound, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be one number.*\(5,\); got shape"):
        bound(jnp.zeros((6, 5)), value)
