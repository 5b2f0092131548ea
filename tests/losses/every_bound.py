"""Every bound as a function of six log-weights, compiled once for all tests of a process."""

import functools

import jax
import numpy as np

from elbo_lab.losses import bounds, estimators
from tests.losses import numpy_bounds

M, K = 2, 6
# Columns of log-weights that a compiled program takes; fewer are padded with zeros.
COLUMNS = 24
PARTITION = [0.0, 0.03125, 0.5, 1.0]

# Name: (function of `bounds`, its parameters).
PARAMETERS = {
    "elbo": ("elbo", {}),
    "iwae": ("iwae", {}),
    "miwae": ("miwae", {"num_outer": M}),
    "ciwae": ("ciwae", {"beta": 0.25}),
    "renyi(.5)": ("renyi", {"alpha": 0.5}),
    "renyi(-1)": ("renyi", {"alpha": -1.0}),
    "renyi(2)": ("renyi", {"alpha": 2.0}),
    "vr_max": ("vr_max", {}),
    "cubo(2)": ("cubo", {"power": 2.0}),
    "jackknife(1)": ("jackknife", {"order": 1}),
    "jackknife(2)": ("jackknife", {"order": 2}),
    "tvo": ("tvo", {"partition": PARTITION}),
    "sumo": ("sumo", {"num_terms": 2}),
}
BOUNDS = {
    name: functools.partial(getattr(bounds, function), **parameters)
    for name, (function, parameters) in PARAMETERS.items()
}
# One name for each implementation, for tests in which the parameters do not matter.
DISTINCT = ["elbo", "iwae", "miwae", "ciwae", "renyi(.5)", "vr_max", "jackknife(1)", "tvo", "sumo"]
# Bounds between the least and the greatest log-weight, and monotone in each.
MEANS = [name for name in BOUNDS if name not in ("jackknife(1)", "jackknife(2)", "tvo", "sumo")]
# Factor on rounding errors: the sum of the coefficients' magnitudes at K = 6.
AMPLIFICATION = {"jackknife(1)": 11, "jackknife(2)": 51, "sumo": 4}


# The same bounds in NumPy, for float64 or complex log-weights that do not overflow.
VALUES = {
    "elbo": numpy_bounds.mean,
    "iwae": numpy_bounds.log_mean_exp,
    "miwae": functools.partial(numpy_bounds.grouped, num_outer=M),
    "ciwae": functools.partial(numpy_bounds.mixed, beta=0.25),
    "renyi(.5)": functools.partial(numpy_bounds.power_mean, power=0.5),
    "renyi(-1)": functools.partial(numpy_bounds.power_mean, power=2.0),
    "renyi(2)": functools.partial(numpy_bounds.power_mean, power=-1.0),
    "vr_max": numpy_bounds.greatest,
    "cubo(2)": functools.partial(numpy_bounds.power_mean, power=2.0),
    "jackknife(1)": numpy_bounds.jackknife_1,
    "jackknife(2)": numpy_bounds.jackknife_2,
    "tvo": functools.partial(numpy_bounds.thermodynamic, partition=PARTITION),
    "sumo": numpy_bounds.roulette_2,
}


def value_and_weights(bound, log_w):
    """Value, derivative v and path weight v - h.

    vr_max refuses second derivatives: v stands in for its path weight.
    """
    v = estimators.derivative(bound, log_w)
    path = v if bound is BOUNDS["vr_max"] else estimators.path_weight(bound, log_w)
    return bound(log_w), v, path


@functools.cache
def compiled(name):
    """The compiled program of a bound: log-weights [K, COLUMNS] and, for SUMO, terms [COLUMNS]."""

    def program(log_w, terms):
        sumo = functools.partial(bounds.sumo, num_terms=terms)
        return value_and_weights(sumo if name == "sumo" else BOUNDS[name], log_w)

    return jax.jit(program)


def evaluate(name, log_w, num_terms=2):
    """Value [*batch], v and path weight [K, *batch] in float32.

    Args:
      name: a key of BOUNDS.
      log_w: log-weights [K, *batch].
      num_terms: SUMO's number of terms, a scalar or [*batch].
    """
    log_w = np.asarray(log_w, np.float32)
    terms = np.full(COLUMNS, 2, np.float32)
    terms[: np.size(num_terms)] = np.ravel(num_terms)
    columns = log_w.reshape(K, -1)
    number = columns.shape[1]
    padded = np.zeros((K, COLUMNS), np.float32)
    padded[:, :number] = columns
    value, v, path = (np.asarray(part) for part in compiled(name)(padded, terms))
    shape = log_w.shape
    return (
        value[:number].reshape(shape[1:]),
        v[:, :number].reshape(shape),
        path[:, :number].reshape(shape),
    )


def random_log_w(seed: int = 0, scale: float = 3.0, shape=(K, COLUMNS)) -> np.ndarray:
    """Log-weights around -90 nats, as images have; exactly representable in float32."""
    draws = -90 + scale * np.random.default_rng(seed).normal(size=shape)
    return draws.astype(np.float32).astype(np.float64)


# Values near 90 nats carry rounding errors of a few units in the last place, 7.6e-6 each.
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=4e-5)
