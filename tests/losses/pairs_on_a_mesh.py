"""Rows of `pairs.py` on two devices: by `jax.shard_map` with its checks, and on an Explicit mesh.

Each device has half of the batch, and objectives that need the batch see that half. All results
therefore equal those of each half alone, without a mesh.
"""

import functools

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from elbo_lab import losses
from tests.losses import calls, pair_checks, pairs

WHOLE, SHARDED = PartitionSpec(), PartitionSpec("data")
DRAWS = PartitionSpec(None, "data")
HALVES = np.split(pairs.X.astype(np.float32), 2)


def on_mesh(function, out_specs):
    """function(params, x, key), run on half a batch on each device."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    in_specs = WHOLE, SHARDED, WHOLE
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=True
    )


def assert_close(values, expected, label):
    for a, b in zip(jax.tree.leaves(values), jax.tree.leaves(expected), strict=True):
        limit = pair_checks.SLOPE["float32"] * np.max(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=str(label))


def losses_and_slopes(row, params, x, key):
    result = pairs.value_and_slopes(row, params, x, key)
    # The parameters are the same on all devices: their gradient is the sum over devices.
    return result.loss, result.aux.log_w, result.slopes


def check_rows(rows, params):
    def sharded(row, params, x, key):
        of_row = functools.partial(losses_and_slopes, row)
        return on_mesh(of_row, (SHARDED, DRAWS, WHOLE))(params, x, key)

    key = functools.partial(jax.random.key, 0)
    results = pairs.grouped(rows, sharded, params, np.concatenate(HALVES), key())
    halves = [pairs.grouped(rows, pairs.value_and_slopes, params, x, key()) for x in HALVES]
    for row in rows:
        first, second = (half[row] for half in halves)
        for result, x in zip((first, second), HALVES, strict=True):
            stacked = jax.tree.map(lambda leaf: leaf[None], result._replace(slopes=None))
            stacked = stacked._replace(slopes=result.slopes)
            pair_checks.check_row(row, stacked, None, params, x)
        loss = np.concatenate([first.loss, second.loss])
        log_w = np.concatenate([first.aux.log_w, second.aux.log_w], axis=1)
        slopes = jax.tree.map(lambda a, b: a + b, first.slopes, second.slopes)
        assert_close(results[row], (loss, log_w, slopes), row)


def check_sumo_log_px(params):
    """Checks sumo_log_px, whose loop's carry must vary over devices as the draws do."""

    def estimate(params, x, key):
        row = pairs.Row("iwae", "reparam", "own", "shard_map")
        problem = pairs.problem_of(row, params, x)
        return losses.sumo_log_px(key, *problem, chunk=2)

    key = functools.partial(jax.random.key, 0)
    program = jax.jit(on_mesh(estimate, SHARDED))
    plain = jax.jit(estimate)
    expected = np.concatenate([plain(params, x, key()) for x in HALVES])
    assert_close(program(params, np.concatenate(HALVES), key()), expected, "sumo_log_px")


def check_explicit_mesh(params):
    """Traces every objective by every estimator on a mesh with an Explicit axis.

    Tracing raises where an operation's arrays disagree on their sharding.
    """
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    params = jax.device_put(params, NamedSharding(mesh, WHOLE))
    x = jax.device_put(np.concatenate(HALVES), NamedSharding(mesh, SHARDED))
    for row in pairs.rows_of("jit", "numpyro"):
        # These pair examples across shards: see `losses.aggregate`.
        if row.objective in calls.NEEDS_BATCH:
            continue
        with jax.set_mesh(mesh):
            function = functools.partial(pairs.value_and_slopes, row)
            result = jax.eval_shape(function, params, x, jax.random.key(0))
        assert result.loss.sharding.spec == SHARDED, row
        assert all(not any(leaf.sharding.spec) for leaf in result.slopes), row


def main():
    params = pairs.params_of(np.float32)
    rows = pairs.rows_of("shard_map")
    check_rows(rows, params)
    print(*sorted({row.objective for row in rows}))
    check_sumo_log_px(params)
    print("sumo_log_px")
    check_explicit_mesh(params)
    print("explicit")
