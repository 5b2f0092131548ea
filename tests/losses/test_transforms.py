"""Every objective under JAX's transformations, and under stacks of them."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import losses
from elbo_lab.losses import catalogue
from elbo_lab.losses.estimators import PATH_ESTIMATORS
from tests.losses import calls, linear_gaussian

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, D, L, STEPS = 4, 3, 2, 3
EXACT = linear_gaussian.make_params(D, L)
PARAMS = linear_gaussian.cast(EXACT, np.float32)
X = np.random.default_rng(7).normal(size=(B, D)).astype(np.float32)


def estimators_of(name):
    """One estimator through the draws and one through the score, as the objective takes them."""
    valid = losses.CATALOGUE[name].estimators
    if not valid:
        return [None]
    path = next((e for e in ("dreg", "reparam") if e in valid), None)
    score = next((e for e in ("vimco", "score") if e in valid), None)
    return [e for e in (path, score) if e is not None]


CASES = [(name, estimator) for name in losses.OBJECTIVES for estimator in estimators_of(name)]
# The fast suite traces one estimator of a few objectives, the slow suite all. `test_pairs.py` also
# compiles every objective.
FIRST = [(name, estimators_of(name)[0]) for name in losses.OBJECTIVES]
KINDS = ("iwae", "elbo", "free_bits", "dip_vae_ii", "piwae", "rws")


def slow_unless(fast, cases):
    return [pytest.param(*case, marks=[] if case in fast else pytest.mark.slow) for case in cases]


def loss(params, key, name, estimator, x=X):
    return jnp.mean(calls.call(name, key, params, x, estimator=estimator)[0])


def loss_by_example(params, key, name, estimator):
    """The same by vmap over examples and their keys, unless the objective needs a batch."""
    if name in calls.NEEDS_BATCH:
        return loss(params, key, name, estimator)
    losses_of = jax.vmap(lambda key, x: loss(params, key, name, estimator, x))
    return jnp.mean(losses_of(jax.random.split(key, B), X))


def mapped(params, keys, name, estimator):
    """Values and gradients of each key, by vmap."""
    slope = jax.value_and_grad(functools.partial(loss, name=name, estimator=estimator))
    return jax.vmap(slope, (None, 0))(params, keys)


def scanned(params, keys, name, estimator, loss=loss):
    """The value and gradient of a sum over keys, by a scan of checkpointed steps."""
    loss_of = functools.partial(loss, name=name, estimator=estimator)

    def total(params):
        step = jax.checkpoint(lambda key: loss_of(params, key))
        return jax.lax.scan(lambda sum_, key: (sum_ + step(key), None), 0.0, keys)[0]

    return jax.value_and_grad(total)(params)


def keys():
    return jax.random.split(jax.random.key(0), STEPS)


assert_trees_close = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "estimator"), [("iwae", "dreg"), ("elbo", "vimco")])
def test_vmap_equals_scan_of_checkpoints(name, estimator):
    by_key = jax.jit(mapped, static_argnums=(2, 3))(PARAMS, keys(), name, estimator)
    total = jax.jit(scanned, static_argnums=(2, 3))(PARAMS, keys(), name, estimator)
    assert_trees_close(jax.tree.map(lambda leaf: np.sum(leaf, axis=0), by_key), total)


@pytest.mark.parametrize(
    ("name", "estimator"), slow_unless([case for case in FIRST if case[0] in KINDS], CASES)
)
def test_stacked_transformations_are_traced(name, estimator):
    """vmap over keys of grad of scan of checkpoint of vmap over examples, unless a batch is needed.

    Tracing is where a transformation would raise. JAX's check of keys is off: it takes the backward
    recomputation of a scan's steps under vmap for a second use, whatever the function.
    """
    options = {"name": name, "estimator": estimator, "loss": loss_by_example}
    stacked = jax.vmap(functools.partial(scanned, **options), (None, 0))
    outer = jax.random.split(jax.random.key(0), (2, STEPS))
    with jax.debug_key_reuse(False):
        values, slopes = jax.eval_shape(stacked, PARAMS, outer)
    assert values.shape == (2,)
    assert all(s.shape == (2, *p.shape) for s, p in zip(slopes, PARAMS, strict=True))


# Forward mode, and second derivatives.

DIRECTION = linear_gaussian.Params(
    *(np.random.default_rng(3).normal(size=leaf.shape).astype(np.float32) for leaf in PARAMS)
)
PATHS = [(name, e) for name, e in calls.PAIRS if e in PATH_ESTIMATORS]
# One pair of each other estimator: the same lines refuse their second derivatives.
PATHS += [("iwae", e) for e in calls.GAUSSIAN if e not in PATH_ESTIMATORS] + [("rws", None)]
FORWARD = [("iwae", "dreg"), ("iwae", "stl"), ("elbo", "reparam"), ("cubo", "dreg"), ("rws", None)]


@pytest.mark.parametrize(("name", "estimator"), slow_unless(FORWARD[:1], FORWARD))
def test_forward_mode_equals_reverse_mode(name, estimator):
    def forward(params, key):
        function = functools.partial(loss, key=key, name=name, estimator=estimator)
        return jax.jvp(function, (params,), (DIRECTION,))

    def reverse(params, key):
        function = functools.partial(loss, key=key, name=name, estimator=estimator)
        value, slopes = jax.value_and_grad(function)(params)
        return value, sum(jnp.vdot(s, d) for s, d in zip(slopes, DIRECTION, strict=True))

    results = [jax.jit(function)(PARAMS, jax.random.key(0)) for function in (forward, reverse)]
    assert_trees_close(*results)


def hessian_vector(params, key, name, estimator="reparam"):
    function = functools.partial(loss, key=key, name=name, estimator=estimator, x=X)
    return jax.jvp(jax.grad(function), (params,), (DIRECTION,))[1]


@pytest.mark.parametrize(
    ("name", "estimator"),
    slow_unless(
        [("iwae", "reparam"), ("piwae", "reparam"), ("iwae", "vimco"), ("rws", None)], PATHS
    ),
)
def test_forward_mode_and_hessians_are_traced(name, estimator):
    function = functools.partial(loss, key=jax.random.key(0), name=name, estimator=estimator)
    forward = functools.partial(jax.jvp, function)
    assert [leaf.shape for leaf in jax.eval_shape(forward, (PARAMS,), (DIRECTION,))] == [(), ()]
    product = functools.partial(hessian_vector, name=name, estimator=estimator)
    if estimator == "reparam" and losses.CATALOGUE[name].kind != catalogue.TWO_TARGETS:
        shapes = jax.eval_shape(product, PARAMS, jax.random.key(0))
        assert [s.shape for s in shapes] == [p.shape for p in PARAMS]
    else:
        with pytest.raises(ValueError, match="Only first derivatives of this loss are right"):
            jax.eval_shape(product, PARAMS, jax.random.key(0))


def test_hessian_vector_products_of_the_elbo_are_unbiased():
    draws, step = 2_000, 1e-4
    compiled = jax.jit(jax.vmap(functools.partial(hessian_vector, name="elbo"), (None, 0)))
    products = compiled(PARAMS, jax.random.split(jax.random.key(0), draws))

    def moved(sign):
        leaves = zip(EXACT, DIRECTION, strict=True)
        params = linear_gaussian.Params(*(leaf + sign * step * np.float64(d) for leaf, d in leaves))
        slopes = [linear_gaussian.elbo_gradient(params, x) for x in np.float64(X)]
        return [-np.mean(leaf, axis=0) for leaf in zip(*slopes, strict=True)]

    for samples, up, down in zip(products, moved(1), moved(-1), strict=True):
        samples, exact = np.asarray(samples, np.float64), (up - down) / (2 * step)
        error = np.std(samples, axis=0, ddof=1) / np.sqrt(draws)
        assert np.all(np.abs(np.mean(samples, axis=0) - exact) <= 4 * error + 1e-4)


# The two devices must exist before JAX starts: one subprocess for all cases.

SHARDED = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)
import jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tests.losses import calls
from tests.losses.test_transforms import PARAMS, X, assert_trees_close

def loss(params, x, name, estimator):
    losses = calls.call(name, jax.random.key(0), params, x, estimator=estimator)[0]
    return jnp.mean(losses), losses

compute = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=(2, 3))
for name, estimator in json.loads(sys.argv[1]):
    expected = compute(PARAMS, X, name, estimator)
    # Objectives that pair examples leave the sharding of the pairs to the compiler.
    kind = AxisType.Auto if name in calls.NEEDS_BATCH else AxisType.Explicit
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    params = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec()))
    x = jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))
    with jax.set_mesh(mesh):
        sharded = compute(params, x, name, estimator)
    assert_trees_close(sharded, expected)
    assert sharded[0][1].sharding.spec == PartitionSpec("data"), name
    print(name, estimator)
"""


def check_on_a_mesh(cases):
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", SHARDED, json.dumps(cases)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(cases)


@pytest.mark.slow
def test_sharded_batches_of_every_objective():
    check_on_a_mesh(FIRST)
