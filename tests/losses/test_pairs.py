"""The pairs law: every objective, estimator, library and setting, two by two. See `pairs.py`."""

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


def test_the_design_has_every_possible_pair_and_every_other_has_a_reason():
    rows = pairs.design()
    assert all(pairs.reason(row) is None for row in rows)
    covered = set(itertools.chain.from_iterable(map(pairs.pairs_of, rows)))
    reasons = {}
    for row in pairs.all_rows():
        for pair in pairs.pairs_of(row):
            reasons.setdefault(pair, set()).add(pairs.reason(row))
    empty = {pair for pair, found in reasons.items() if None not in found}
    assert covered == set(reasons) - empty
    assert all(all(reasons[pair]) for pair in empty)
    table = {(row.objective, row.estimator) for row in pairs.rows_of("jit", "numpyro")}
    assert table == set(calls.PAIRS)


@pytest.mark.parametrize("name", pairs.NO_FACTORS)
def test_products_of_no_library_are_refused(name):
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
    """NumPyro's results by jit; by TFP's draws where the library is TFP, whose keys differ."""
    rows = pairs.rows_of(setting)
    theirs = [row for row in rows if row.library == "tfp"]
    plain = {row: table().get(row._replace(library="numpyro", setting="jit")) for row in rows}
    return plain | pairs.of_both_keys(theirs, PARAMS, X, pair_checks.given_draws(np.float32))


def test_every_objective_by_every_estimator_and_jit():
    pair_checks.check_rows(table(), table(), None, PARAMS, X)
    others = [row for row in pairs.rows_of("jit") if row.library != "numpyro"]
    results = pairs.of_both_keys(others, PARAMS, X)
    pair_checks.check_rows(others, results, references("jit"), PARAMS, X)


def test_vmap_over_keys():
    def mapped(row, params, x, keys):
        one = functools.partial(pairs.value_and_slopes, row)
        return jax.vmap(one, (None, None, 0))(params, x, keys)

    rows = pairs.rows_of("vmap")
    results = pairs.grouped(rows, mapped, PARAMS, X, pairs.keys())
    results = {row: pairs.sum_slopes(result) for row, result in results.items()}
    pair_checks.check_rows(rows, results, references("vmap"), PARAMS, X)


def test_scan_of_checkpoints():
    rows = pairs.rows_of("remat")
    results = pairs.grouped(rows, pairs.rematerialized, PARAMS, X, pairs.keys())
    pair_checks.check_rows(rows, results, references("remat"), PARAMS, X)
