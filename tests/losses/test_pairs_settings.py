"""Rows of `pairs.py` under other types, promotion checks, and `jax.shard_map`."""

import os
import pathlib
import subprocess
import sys

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorflow_probability.substrates import jax as tfp

from tests.losses import pair_checks, pairs, promotion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.promotes,
    pytest.mark.usefixtures("fast_compilation"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability"),
]
PARAMS = pairs.params_of(np.float32)
X = pairs.X.astype(np.float32)


def test_x64():
    """Compares with float32 arithmetic on float64 draws, cast."""
    rows = pairs.rows_of("x64")
    with jax.enable_x64(True):
        params = pairs.params_of(np.float64)
        results = pairs.of_both_keys(rows, params, pairs.X)
        references = pairs.of_both_keys(rows, PARAMS, X, pair_checks.given_draws(np.float64))
    pair_checks.check_rows(rows, results, references, params, pairs.X)


def test_bfloat16_parameters():
    """Compares with float32 arithmetic on the same parameters and on bfloat16 draws, cast."""
    rows = pairs.rows_of("bfloat16")
    params = pairs.params_of(jnp.bfloat16)
    x = np.float32(jnp.asarray(X, jnp.bfloat16))
    results = pairs.of_both_keys(rows, params, x)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    references = pairs.of_both_keys(rows, wide, x, pair_checks.given_draws(jnp.bfloat16))
    pair_checks.check_rows(rows, results, references, params, x)


def test_strict_promotion():
    promotion.allow_inside(distrax)
    promotion.allow_inside(tfp.distributions, tfp.bijectors)
    rows = pairs.rows_of("strict")
    with promotion.refused():
        results = pairs.of_both_keys(rows, PARAMS, X)
    references = pairs.of_both_keys(rows, PARAMS, X, pair_checks.given_draws(np.float32))
    pair_checks.check_rows(rows, results, references, PARAMS, X)


# The two devices must exist before JAX starts: one subprocess for all rows.

SHARDED = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_debug_key_reuse", True)
from tests.losses import pairs_on_a_mesh
pairs_on_a_mesh.main()
"""


def test_two_devices():
    root = pathlib.Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [*sorted(pairs.VALUES["objective"]), "sumo_log_px", "explicit"]
