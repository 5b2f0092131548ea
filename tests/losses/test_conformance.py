"""Bounds, their derivatives and their path weights against tests/conformance, made by mpmath."""

import functools
import importlib.util
import itertools
import json
import math

import jax
import jax.numpy as jnp
import mpmath
import pytest

from elbo_lab.losses import bounds, estimators
from tests.losses.conformance_vectors import FOLDER, NAMES, check, read

pytestmark = pytest.mark.usefixtures("fast_compilation")

SPEC = importlib.util.spec_from_file_location("make_vectors", FOLDER / "make_vectors.py")
make_vectors = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_vectors)

# Parameters that may be traced where they are finite: one program for all their values.
TRACED = {"alpha", "beta", "power", "num_terms"}


def programs(name):
    """Pairs (static parameters, vectors), grouped by K so that one program computes each group."""

    def static(vector):
        parameters = vector["parameters"]
        traced = all(key in TRACED and math.isfinite(x) for key, x in parameters.items())
        return json.dumps({} if traced else parameters), len(vector["log_weights"])

    vectors = sorted(read(name), key=static)
    for (parameters, _), group in itertools.groupby(vectors, static):
        yield json.loads(parameters), list(group)


def compute(name, static, group, dtype):
    """Values [N], derivatives and path weights [N, K] of vectors."""
    names = () if static else tuple(group[0]["parameters"])
    traced = [jnp.asarray([v["parameters"][n] for v in group], dtype) for n in names]

    def value_and_weights(log_w, *traced):
        parameters = static | dict(zip(names, traced, strict=True))
        bound = functools.partial(getattr(bounds, name), **parameters)
        v = estimators.derivative(bound, log_w)
        # The greatest and least log-weights have no second derivative: h is 0 in the vectors.
        jumps = math.isinf(static.get("alpha", 0))
        return bound(log_w), v, v if jumps else estimators.path_weight(bound, log_w)

    log_w = jnp.asarray([v["log_weights"] for v in group], dtype)
    results = jax.jit(jax.vmap(value_and_weights))(log_w, *traced)
    assert all(result.dtype == dtype for result in results)
    return results


def check_all(name, dtype, numbers=None):
    """Checks the vectors of a bound; `numbers` are the K to check, None all."""
    for static, group in programs(name):
        if numbers is not None and len(group[0]["log_weights"]) not in numbers:
            continue
        results = compute(name, static, group, getattr(jnp, dtype))
        for vector, *result in zip(group, *results, strict=True):
            check(name, vector, result, dtype)


# The jackknife and SUMO take long to compile: the slow suite has them. test_bound_laws.py checks
# these vectors in float32.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("jackknife", "sumo")])
def test_vectors_of_six_draws_in_float64(name):
    with jax.enable_x64(True):
        check_all(name, "float64", numbers=[6])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_all_vectors(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        check_all(name, dtype)


def test_every_bound_has_vectors():
    assert set(NAMES) == set(make_vectors.BOUNDS)
    for name, (_, settings) in make_vectors.BOUNDS.items():
        cases = {
            case
            for case, log_w in make_vectors.LOG_WEIGHTS.items()
            if any(make_vectors.applies(parameters, len(log_w)) for parameters in settings)
        }
        assert {vector["case"] for vector in read(name)} == cases


@pytest.mark.parametrize("name", NAMES)
def test_files_are_what_the_script_makes(name):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    assert stored == {"bound": name, "vectors": make_vectors.vectors(name)}


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_derivatives_are_those_of_its_values(name):
    function, settings = make_vectors.BOUNDS[name]
    log_w = [mpmath.mpf(x) for x in make_vectors.LOG_WEIGHTS["ordinary"]]
    for parameters in settings:
        _, v, h = function(log_w, **parameters)
        for k in (0, 3):  # Two draws are enough, since all have the same formula.
            by_differences = make_vectors.numerical_derivatives(name, parameters, log_w, k)
            for analytic, numerical in zip((v[k], h[k]), by_differences, strict=True):
                assert abs(analytic - numerical) < mpmath.mpf(10) ** -25, parameters


@pytest.mark.parametrize("name", NAMES)
def test_zero_weights_are_the_limit_of_small_ones(name):
    """Log-weights of -inf give the limit of log-weights -t, checked at t = 10^10 and 2 10^10."""
    function, settings = make_vectors.BOUNDS[name]
    cases = [case for case, log_w in make_vectors.LOG_WEIGHTS.items() if -math.inf in log_w]
    for parameters, case in itertools.product(settings, cases):
        log_w = make_vectors.LOG_WEIGHTS[case]
        if not make_vectors.applies(parameters, len(log_w)):
            continue
        limit = function([mpmath.mpf(x) for x in log_w], **parameters)
        for t in (10**10, 2 * 10**10):
            small = function([mpmath.mpf(max(x, -t)) for x in log_w], **parameters)
            if mpmath.isinf(limit[0]):
                assert mpmath.sign(limit[0]) * small[0] > t / 1000, (parameters, case)
            else:
                assert abs(small[0] - limit[0]) < 1e-15, (parameters, case)
            for slope, near in zip(limit[1] + limit[2], small[1] + small[2], strict=True):
                assert abs(slope - near) < 1e-15, (parameters, case)
