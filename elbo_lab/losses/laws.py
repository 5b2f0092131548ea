"""Laws of probability of the distributions of NumPyro, Distrax and TFP.

A `Law` is a name and parameters that do not depend on the library. No library is imported: a class
is recognized by its name and by the package that defines it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from elbo_lab.losses.arrays import to_common_float, to_common_rank


class Law(NamedTuple):
    """Independent factors that follow one law."""

    name: str
    parameters: tuple[Array, ...]  # each [*batch, *factors, ...]
    shape: tuple[int, ...]  # (*batch, *factors)
    factor_ndims: int  # number of trailing dimensions of `shape` that are event dimensions


# Dimensions of each parameter of one factor; laws that are not listed have scalar parameters.
PARAMETER_NDIMS = {
    "multivariate_normal": (1, 2),
    "dirichlet": (1,),
    "categorical": (1,),
    "one_hot": (1,),
}
# Event dimensions of one factor; laws that are not listed are of scalars.
EVENT_NDIMS = {"multivariate_normal": 1, "dirichlet": 1, "one_hot": 1}


def is_a(distribution: Any, package: str, name: str) -> bool:
    """True if the distribution's class is the package's class `name`, or derived from it."""
    return any(
        cls.__name__ == name and cls.__module__.partition(".")[0] == package
        for cls in type(distribution).__mro__
    )


NUMPYRO, DISTRAX, TFP, OURS = "numpyro", "distrax", "tensorflow_probability", "elbo_lab"


def unwrap(distribution: Any) -> Any:
    """The distribution inside an `Independent` or NumPyro's `ExpandedDistribution`; any other one
    as it is.
    """
    if any(is_a(distribution, NUMPYRO, name) for name in ("Independent", "ExpandedDistribution")):
        return distribution.base_dist
    if is_a(distribution, DISTRAX, "Independent") or is_a(distribution, TFP, "_Independent"):
        return distribution.distribution
    return distribution


def innermost(distribution: Any) -> Any:
    """The distribution without any of the wrappers that `unwrap` removes."""
    while (inner := unwrap(distribution)) is not distribution:
        distribution = inner
    return distribution


def law_of(distribution: Any) -> Law | None:
    """The distribution's law; None if its class is not in `READERS`."""
    base = innermost(distribution)
    classes = [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(base).__mro__]
    known = [READERS[cls] for cls in classes if cls in READERS]
    if not known:
        return None
    name, read = known[0]
    parameters = [jnp.asarray(parameter) for parameter in read(base)]
    ndims = PARAMETER_NDIMS.get(name, (0,) * len(parameters))
    event_shape = tuple(distribution.event_shape)
    factor_ndims = len(event_shape) - EVENT_NDIMS.get(name, 0)
    # A distribution returned out of jax.vmap declares fewer dimensions than its parameters have.
    shape = jnp.broadcast_shapes(
        (*distribution.batch_shape, *event_shape[:factor_ndims]),
        *(x.shape[: x.ndim - n] for x, n in zip(parameters, ndims, strict=True)),
    )
    parameters = tuple(
        broadcast_parameter(x, shape, n) for x, n in zip(parameters, ndims, strict=True)
    )
    return Law(name, parameters, shape, factor_ndims)


def bernoulli_logits(distribution: Any) -> Array | None:
    """Logits of independent Bernoulli variables, [*batch, *factors]; None for any other law."""
    base = innermost(distribution)
    classes = [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(base).__mro__]
    if not any(READERS[cls][1] is _two_log_masses for cls in classes if cls in READERS):
        return None
    (log_masses,) = law_of(distribution).parameters
    return log_masses[..., 1] - log_masses[..., 0]


def broadcast_parameter(parameter: Array, shape: tuple[int, ...], ndims: int) -> Array:
    """The parameter with leading dimensions `shape`; its last `ndims` ones are a factor's own."""
    return jnp.broadcast_to(parameter, (*shape, *parameter.shape[parameter.ndim - ndims :]))


def diagonal_matrix(diagonal: Array) -> Array:
    """Matrices [..., L, L] of these diagonals [..., L]."""
    return jnp.vectorize(jnp.diag, signature="(l)->(l,l)")(diagonal)


def _attributes(*names: str) -> Callable[[Any], list[Array]]:
    """A function that reads properties or methods with these names."""

    def read(distribution: Any) -> list[Array]:
        values = (getattr(distribution, name) for name in names)
        return [value() if callable(value) else value for value in values]

    return read


def _rate(distribution: Any) -> Array:
    """The rate; TFP's distributions have it or its logarithm."""
    rate = distribution.rate
    return rate if rate is not None else jnp.exp(*to_common_float(distribution.log_rate))


def _safe_log(probability: Array) -> Array:
    """log p; -inf with derivative 0 for p = 0."""
    positive = probability > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, probability, 1)), -jnp.inf)


def _log_masses(distribution: Any) -> list[Array]:
    """Log masses of a categorical distribution, [..., C], up to a constant."""
    logits, probs = _logits_and_probs(distribution)
    return [logits if probs is None else _safe_log(*to_common_float(probs))]


def _two_log_masses(distribution: Any) -> list[Array]:
    """Log masses of a Bernoulli distribution at 0 and at 1, [..., 2]."""
    logits, probs = _logits_and_probs(distribution)
    if probs is None:
        (logits,) = to_common_float(logits)
        masses = -jnp.maximum(logits, 0), jnp.minimum(logits, 0)
    else:
        (probs,) = to_common_float(probs)
        masses = _safe_log(1 - probs), _safe_log(probs)
    return [jnp.stack(masses, axis=-1)]


def _logits_and_probs(distribution: Any) -> tuple[Array | None, Array | None]:
    """The logits and probabilities; None for the one that the distribution was not made from.

    Computing that one would clip (NumPyro), or lose precision.
    """
    if hasattr(distribution, "_logits"):  # Distrax and TFP
        return distribution._logits, distribution._probs
    if any(is_a(distribution, NUMPYRO, name) for name in ("BernoulliProbs", "CategoricalProbs")):
        return None, distribution.probs
    return distribution.logits, None


def _low_rank(distribution: Any) -> list[Array]:
    factor, diagonal = to_common_float(distribution.cov_factor, distribution.cov_diag)
    parts = to_common_rank(factor @ jnp.swapaxes(factor, -1, -2), diagonal_matrix(diagonal))
    return [distribution.loc, jnp.linalg.cholesky(sum(parts))]


def _by_covariance(distribution: Any) -> list[Array]:
    (covariance,) = to_common_float(distribution.covariance())
    return [distribution.mean(), jnp.linalg.cholesky(covariance)]


def _lower_triangular(distribution: Any) -> list[Array]:
    if is_a(distribution, TFP, "MultivariateNormalTriL"):
        return [distribution.mean(), distribution.scale.to_dense()]
    if distribution.is_lower:
        return [distribution.loc, distribution.scale_tri]
    return _by_covariance(distribution)


ALL = (NUMPYRO, DISTRAX, TFP)
_LOCATION_SCALE, _LOW_HIGH = _attributes("loc", "scale"), _attributes("low", "high")
_CLASSES = [
    # law, packages, class, function that reads the parameters
    ("normal", ALL, "Normal", _LOCATION_SCALE),
    ("normal", (DISTRAX, TFP), "MultivariateNormalDiag", _attributes("mean", "stddev")),
    ("multivariate_normal", (NUMPYRO,), "MultivariateNormal", _attributes("loc", "scale_tril")),
    ("multivariate_normal", (NUMPYRO,), "LowRankMultivariateNormal", _low_rank),
    ("multivariate_normal", (DISTRAX,), "MultivariateNormalTri", _lower_triangular),
    ("multivariate_normal", (TFP,), "MultivariateNormalTriL", _lower_triangular),
    ("multivariate_normal", (DISTRAX,), "MultivariateNormalFromBijector", _by_covariance),
    ("multivariate_normal", (TFP,), "MultivariateNormalLinearOperator", _by_covariance),
    (
        "multivariate_normal",
        (TFP,),
        "MultivariateNormalLowRankUpdateLinearOperatorCovariance",
        _by_covariance,
    ),
    ("log_normal", (NUMPYRO, TFP), "LogNormal", _LOCATION_SCALE),
    ("laplace", ALL, "Laplace", _LOCATION_SCALE),
    ("uniform", ALL, "Uniform", _LOW_HIGH),
    ("gamma", ALL, "Gamma", lambda d: [d.concentration, _rate(d)]),
    ("gamma", (NUMPYRO, TFP), "Exponential", lambda d: [1.0, _rate(d)]),
    ("beta", (NUMPYRO, TFP), "Beta", _attributes("concentration1", "concentration0")),
    ("beta", (DISTRAX,), "Beta", _attributes("alpha", "beta")),
    ("dirichlet", ALL, "Dirichlet", _attributes("concentration")),
    ("poisson", (NUMPYRO, TFP), "Poisson", lambda d: [_rate(d)]),
    ("categorical", (NUMPYRO,), "BernoulliLogits", _two_log_masses),
    ("categorical", (NUMPYRO,), "BernoulliProbs", _two_log_masses),
    ("categorical", (DISTRAX, TFP), "Bernoulli", _two_log_masses),
    ("categorical", (OURS,), "BernoulliVector", _two_log_masses),
    ("categorical", (NUMPYRO,), "CategoricalLogits", _log_masses),
    ("categorical", (NUMPYRO,), "CategoricalProbs", _log_masses),
    ("categorical", (DISTRAX, TFP), "Categorical", _log_masses),
    ("one_hot", (DISTRAX, TFP), "OneHotCategorical", _log_masses),
]
READERS = {
    (package, name): (law, read) for law, packages, name, read in _CLASSES for package in packages
}
