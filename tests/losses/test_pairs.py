"""Pairwise tests over objectives, estimators, libraries and settings. See `pairs.py`."""

import functools
import itertools

import jax
import numpy as np
import pytest

from tests.losses import calls, pair_checks, pairs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.promotes,
    pytest.mark.usefixtures("fast_compilation"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability"),
]


def test_the_design_has_every_possible_pair():
    rows = pairs.design()
    assert all(pairs.reason(row) is None for row in rows)
    covered = set(itertools.chain.from_iterable(map(pairs.pairs_of, rows)))
    possible = [row for row in pairs.all_rows() if pairs.reason(row) is None]
    assert covered == set(itertools.chain.from_iterable(map(pairs.pairs_of, possible)))
    table = {(row.objective, row.estimator) for row in pairs.rows_of("jit", "numpyro")}
    assert table == set(calls.PAIRS)


@pytest.mark.parametrize("name", pairs.NEEDS_FACTORS)
def test_a_users_own_product_of_normals_is_refused(name):
    row = pairs.Row(name, "reparam", "own", "jit")
    with pytest.raises(ValueError, match="OwnNormal.* product|No closed-form KL.*OwnNormal"):
        objective = functools.partial(pairs.objective_of, row, PARAMS, X)
        jax.eval_shape(lambda key: objective(key)[0], jax.random.key(0))


PARAMS = pairs.params_of(np.float32)
X = pairs.X.astype(np.float32)


@functools.cache
def table():
    """Every objective by every estimator, by jit for NumPyro."""
    return pairs.of_both_keys(pairs.rows_of("jit", "numpyro"), PARAMS, X)


@functools.cache
def references(setting):
    """NumPyro's results by jit for each row of a setting.

    TFP uses keys differently: its rows are compared with NumPyro's densities of TFP's draws.
    """
    rows = pairs.rows_of(setting)
    results = {row: table().get(row._replace(library="numpyro", setting="jit")) for row in rows}
    tfp_rows = [row for row in rows if row.library == "tfp"]
    given_draws = pair_checks.given_draws(np.float32)
    return results | pairs.of_both_keys(tfp_rows, PARAMS, X, given_draws)


def test_every_objective_by_every_estimator_and_jit():
    pair_checks.check_rows(list(table()), table(), None, PARAMS, X)
    rows = [row for row in pairs.rows_of("jit") if row.library != "numpyro"]
    results = pairs.of_both_keys(rows, PARAMS, X)
    pair_checks.check_rows(rows, results, references("jit"), PARAMS, X)


def test_vmap_over_keys():
    def mapped(row, params, x, keys):
        by_key = jax.vmap(functools.partial(pairs.value_and_slopes, row), (None, None, 0))
        return by_key(params, x, keys)

    rows = pairs.rows_of("vmap")
    results = pairs.grouped(rows, mapped, PARAMS, X, pairs.keys())
    results = {row: pairs.sum_slopes(result) for row, result in results.items()}
    pair_checks.check_rows(rows, results, references("vmap"), PARAMS, X)


def test_scan_of_checkpoints():
    rows = pairs.rows_of("remat")
    results = pairs.grouped(rows, pairs.rematerialized, PARAMS, X, pairs.keys())
    pair_checks.check_rows(rows, results, references("remat"), PARAMS, X)
