"""What must hold of every row of `pairs.py`."""

import jax
import numpy as np

from tests.losses import pair_values, pairs

# Limits of losses, against NumPy's float64 by the log densities in aux, which have tens of nats.
# They are added in float32 whatever the parameters; closed-form KLs may be of the parameters' type.
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
# Limits of gradients, against float32's, relative to the greatest entry of each leaf: some hundred
# roundings, whose unit is 2^-24 (2^-9 in bfloat16).
SLOPE = {"float32": 2e-4, "float64": 2e-4, "bfloat16": 0.1}


def check_row(row, result, reference, params, x):
    """Losses against NumPy's formula; slopes: of the parameters' type, finite, of every parameter,
    and equal to the reference's, if there is one.

    Args:
      result: of both keys, [2, ...], with the sum of their slopes.
      reference: slopes, or None.
    """
    kind = str(params.w.dtype)
    dtype = np.float64 if kind == "float64" else np.float32
    for leaf in jax.tree.leaves(result._replace(slopes=None, z=None)):
        assert leaf.dtype == dtype, row
    limit = (CLOSED_FORM if row.objective in HAS_CLOSED_FORM else VALUE)[kind]
    exact = pair_values.float64_params(params)
    for i in range(len(result.loss)):
        loss, aux, z = jax.tree.map(lambda leaf: np.float64(leaf[i]), result[:3])  # noqa: B023
        parts = aux.log_px_z + aux.log_pz - aux.log_qz_x
        assert np.max(np.abs(aux.log_w - parts)) <= VALUE[kind], row
        distance = pair_values.distance(row.objective, loss, aux, exact, np.float64(x), z)
        assert distance <= limit, (row, distance)
    for name, slope, expected in zip(
        exact._fields, result.slopes, reference or result.slopes, strict=True
    ):
        assert slope.dtype == params.w.dtype, (row, name)
        slope, expected = np.float64(slope), np.float64(expected)
        assert np.all(np.isfinite(slope)) and np.any(slope != 0), (row, name)
        distance = np.max(np.abs(slope - expected)) / np.max(np.abs(expected))
        assert distance <= SLOPE[kind], (row, name, distance)


def check_rows(rows, results, references, params, x):
    for row in rows:
        reference = references[row].slopes if references else None
        check_row(row, results[row], reference, params, x)


def given_draws(dtype):
    """Distributions for `pairs.of_both_keys` that have the draws of the row's library."""

    def normal(row):
        def distribution(mean, scale):
            return pairs.GivenDraws(mean, scale, row.library, dtype).to_event(1)

        return distribution

    return normal
