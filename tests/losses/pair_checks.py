"""Checks of the results of every row of `pairs.py`."""

import jax
import numpy as np

from tests.losses import linear_gaussian, pair_values, pairs

# Tolerances of losses by parameter type, nats, against NumPy float64 on the log densities in aux.
# Densities are of tens of nats, and are added in float32 whatever the parameters' type. Closed-form
# KLs may be of the parameters' type.
VALUE = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 1e-5}
CLOSED_FORM = VALUE | {"bfloat16": 0.03}
HAS_CLOSED_FORM = {
    "capacity_vae",
    "free_bits",
    "free_bits_batch",
    "beta_tcvae",
    "dip_vae_i",
    "dip_vae_ii",
    "info_vae",
}
# Tolerances of gradients against float32 gradients, relative to each leaf's greatest entry: some
# hundred roundings, whose unit is 2^-24 (2^-9 in bfloat16).
SLOPE = {"float32": 2e-4, "float64": 2e-4, "bfloat16": 0.1}


def check_row(row, result, reference, params, x):
    """Checks a row's losses against NumPy's formula, and its slopes.

    Every parameter has a slope of its own type, finite and not zero, equal to the reference's.

    Args:
      row: a `pairs.Row`.
      result: a `pairs.Result` of several keys, [keys, ...], with the sum of their slopes.
      reference: slopes, or None if there are none to compare with.
      params: the model's parameters.
      x: [B, D].
    """
    kind = str(params.w.dtype)
    dtype = np.float64 if kind == "float64" else np.float32
    for leaf in jax.tree.leaves(result._replace(slopes=None, z=None)):
        assert leaf.dtype == dtype, row
    limit = (CLOSED_FORM if row.objective in HAS_CLOSED_FORM else VALUE)[kind]
    exact = linear_gaussian.cast(params, np.float64)
    for i in range(len(result.loss)):
        loss, aux, z = jax.tree.map(lambda leaf: np.float64(leaf[i]), result[:3])  # noqa: B023
        parts = aux.log_px_z + aux.log_pz - aux.log_qz_x
        assert np.max(np.abs(aux.log_w - parts)) <= VALUE[kind], row
        distance = pair_values.distance(row.objective, loss, aux, exact, np.float64(x), z)
        assert distance <= limit, (row, distance)
    for name, slope in result.slopes._asdict().items():
        assert slope.dtype == params.w.dtype, (row, name)
        slope = np.float64(slope)
        assert np.all(np.isfinite(slope)) and np.any(slope != 0), (row, name)
        if reference is not None:
            expected = np.float64(getattr(reference, name))
            distance = np.max(np.abs(slope - expected)) / np.max(np.abs(expected))
            assert distance <= SLOPE[kind], (row, name, distance)


def check_rows(rows, results, references, params, x):
    """Checks rows; `results` and `references` are results by row, `references` may be None."""
    for row in rows:
        reference = references[row].slopes if references else None
        check_row(row, results[row], reference, params, x)


def given_draws(dtype):
    """For `pairs.of_both_keys`: a row's NumPyro normals that use the draws of the row's library."""

    def normal(row):
        def distribution(mean, scale):
            return pairs.GivenDraws(mean, scale, row.library, dtype).to_event(1)

        return distribution

    return normal
