"""The vectors of tests/conformance, and the tolerances that bounds must meet."""

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "conformance"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name):
    """Vectors of a bound; the strings "inf" and "-inf" become floats."""

    def with_floats(x):
        if isinstance(x, dict):
            return {key: with_floats(item) for key, item in x.items()}
        if isinstance(x, list):
            return [with_floats(item) for item in x]
        return float(x) if x in ("inf", "-inf") else x

    return with_floats(json.loads((FOLDER / f"{name}.json").read_text())["vectors"])


def check(name, vector, result, dtype):
    """Checks one result: value within 4 units in the last place, derivatives within 64 roundings.

    Units are those of the largest log-weight. The vectors' exponents are exact in either precision.
    Each normalized weight therefore has a relative error of a few roundings, and each derivative
    one of a few tens.

    Args:
      name: the bound's function.
      vector: log-weights and the exact answers.
      result: (value, derivative [K], path weight [K]).
      dtype: floating-point type of the result.
    """
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    value, v, path = (np.asarray(part, np.float64) for part in result)
    message = f"{name} {vector['parameters']} {vector['case']}"
    log_w, exact = np.array(vector["log_weights"]), vector["value"]
    exact_v, exact_path = np.array(vector["derivative"]), np.array(vector["path_weight"])
    if np.isfinite(exact):
        largest = np.max(np.abs(log_w), where=np.isfinite(log_w), initial=1)
        assert abs(value - exact) <= 4 * eps * max(largest, abs(exact)), message
    else:
        assert value == exact, message
    # v - h is a difference, so its error scales with its terms. So does the error of v where the
    # bound is a sum with coefficients of both signs.
    terms = np.abs(exact_v) + np.abs(exact_v - exact_path)
    if name in ("jackknife", "sumo"):
        terms = max(1, np.max(terms))
    tolerance = 64 * (eps * terms + tiny)  # Numbers below `tiny` are flushed to zero.
    assert np.all(np.abs(v - exact_v) <= tolerance), message
    assert np.all(np.abs(path - exact_path) <= tolerance), message
