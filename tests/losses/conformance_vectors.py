"""The vectors of tests/conformance, and how near to them a bound must come."""

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "conformance"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name):
    """Vectors with infinite numbers as floats."""

    def numbers(x):
        if isinstance(x, dict):
            return {key: numbers(item) for key, item in x.items()}
        if isinstance(x, list):
            return [numbers(item) for item in x]
        return float(x) if x in ("inf", "-inf") else x

    return numbers(json.loads((FOLDER / f"{name}.json").read_text())["vectors"])


def check(name, vector, result, dtype):
    """Values to four units in the last place of the log-weights; derivatives to 64 roundings.

    The vectors' exponents are exact in either precision, so that each normalized weight has a
    relative error of a few roundings and each derivative one of a few tens.
    """
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    value, v, path = (np.asarray(part, np.float64) for part in result)
    what = f"{name} {vector['parameters']} {vector['case']}"
    log_w, exact = np.array(vector["log_weights"]), vector["value"]
    exact_v, exact_path = np.array(vector["derivative"]), np.array(vector["path_weight"])
    if np.isfinite(exact):
        largest = np.max(np.abs(log_w), where=np.isfinite(log_w), initial=1)
        assert abs(value - exact) <= 4 * eps * max(largest, abs(exact)), what
    else:
        assert value == exact, what
    # v - h is a difference: its error is that of its terms. The v of a sum with coefficients of
    # either sign is one too.
    terms = np.abs(exact_v) + np.abs(exact_v - exact_path)
    terms = max(1, np.max(terms)) if name in ("jackknife", "sumo") else terms
    tolerance = 64 * (eps * terms + tiny)  # `tiny`, as smaller numbers are flushed to zero.
    assert np.all(np.abs(v - exact_v) <= tolerance), what
    assert np.all(np.abs(path - exact_path) <= tolerance), what
