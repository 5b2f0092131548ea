"""Posteriors that squash their draws: z = T(y), T free of parameters, e.g. tanh of a Gaussian.

log q(z) of a rounded z is wrong: tanh(10) is 1 in float32, and its inverse infinite. So such a
posterior is replaced by the law of y, with log q(z) = log q_0(y) - log |det dT / dy| as a function
of y, while prior and likelihood see T(y). T has no parameters, so no estimator's gradient changes.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array

from elbo_lab.losses.laws import DISTRAX, NUMPYRO, TFP, is_a, unwrap
from elbo_lab.losses.posteriors import (
    inner_distribution,
    is_reparameterizable,
    sample_from,
    sampler_with_density,
    sum_trailing,
)

# y -> (z, log |det dz / dy|); the latter is summed over the trailing axes that the map couples.
Map = Callable[[Array], tuple[Array, Array]]


class Unsquashed:
    """The law of y, z = T(y) being the posterior's draw; its log densities are those of z.

    Args:
      posterior: q(z|x).
      base: distribution of y.
      maps: the maps that T is composed of, in the order of application.
    """

    def __init__(self, posterior: Any, base: Any, maps: list[Map]):
        self.reparameterized = getattr(posterior, "reparameterized", None)
        self.base_dist = base
        self.maps = maps
        self.event_ndim = len(posterior.event_shape)

    @property
    def has_rsample(self) -> bool:
        """True if the type of the base distribution lets draws carry derivatives."""
        return is_reparameterizable(self.base_dist, jax.eval_shape(self.sample, jax.random.key(0)))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws y [*sample_shape, *batch, ...]."""
        return sample_from(self.base_dist, key, sample_shape)

    def log_prob(self, y: Array) -> Array:
        """log q(z) at z = T(y), nats, [*any, *batch]."""
        return self._log_prob_of_z(y, self.base_dist.log_prob(y))

    def forward(self, y: Array) -> Array:
        """z = T(y)."""
        z = y
        for apply in self.maps:
            z, _ = apply(z)
        return z

    def sample_and_log_prob(self, key: Array, sample_shape: tuple[int, ...]) -> tuple[Array, Array]:
        """y and log q(z), by the base distribution's `sample_and_log_prob` if it has one."""
        sampler = sampler_with_density(self.base_dist)
        if sampler is not None:
            y, log_prob = sampler(key, sample_shape)
            return y, self._log_prob_of_z(y, log_prob)
        y = self.sample(key, sample_shape)
        return y, self.log_prob(y)

    def _log_prob_of_z(self, y: Array, log_prob: Array) -> Array:
        """log q(z) at z = T(y), from the base distribution's log_prob of y."""
        batch_ndim = y.ndim - self.event_ndim
        log_prob = sum_trailing(log_prob, log_prob.ndim - batch_ndim)
        for apply in self.maps:
            y, log_det = apply(y)
            log_prob = log_prob - sum_trailing(log_det, log_det.ndim - batch_ndim)
        return log_prob


def unsquashed(posterior: Any) -> Unsquashed | None:
    """The posterior as the law of its unsquashed draw; None if it squashes nothing.

    Handles transformed distributions of NumPyro, Distrax and TFP, also inside Independent or
    expanded ones. The outermost maps that keep the shape and have no parameters are removed.
    Parameters are arrays under a JAX transformation: an affine map by constants has none.
    """
    parts = _take_apart(posterior)
    return None if parts is None else Unsquashed(posterior, *parts)


class _Library(NamedTuple):
    """Functions that take a library's transformed distributions apart and put them together."""

    maps: Callable[[Any], list[Any]]  # distribution -> maps, in the order of application
    apply: Callable[[Any, Array], tuple[Array, Array]]  # (map, y) -> z, log |det dz / dy|
    transformed: Callable[[Any, list[Any]], Any]  # (base, maps) -> distribution


def _library(distribution: Any) -> _Library | None:
    # The library of an existing distribution is imported already, so sys.modules has it.
    if is_a(distribution, NUMPYRO, "Distribution"):
        return _numpyro()
    if is_a(distribution, DISTRAX, "Distribution"):
        distrax = sys.modules["distrax"]

        def transformed(base: Any, maps: list[Any]) -> Any:
            return distrax.Transformed(base, distrax.Chain(maps[::-1]))

        return _Library(_chained, lambda bijector, y: bijector.forward_and_log_det(y), transformed)
    if is_a(distribution, TFP, "Distribution"):
        return _tfp()
    return None


def _numpyro() -> _Library:
    dist = sys.modules["numpyro.distributions"]

    def flat(transforms: list[Any]) -> list[Any]:
        parts = []
        for transform in transforms:
            parts += flat(transform.parts) if hasattr(transform, "parts") else [transform]
        return parts

    def maps(distribution: Any) -> list[Any]:
        # A folded distribution has a log_prob of its own, since its transform has no inverse.
        is_bijective = type(distribution).log_prob is dist.TransformedDistribution.log_prob
        return flat(distribution.transforms) if is_bijective else []

    def apply(transform: Any, y: Array) -> tuple[Array, Array]:
        z, intermediates = transform.call_with_intermediates(y)
        return z, transform.log_abs_det_jacobian(y, z, intermediates)

    return _Library(maps, apply, dist.TransformedDistribution)


def _tfp() -> _Library:
    tfp = sys.modules["tensorflow_probability.substrates.jax"]

    def maps(distribution: Any) -> list[Any]:
        is_bijective = distribution.bijector._is_injective  # It has no public name.
        return _chained(distribution) if is_bijective else []

    def apply(bijector: Any, y: Array) -> tuple[Array, Array]:
        event_ndims = bijector.forward_min_event_ndims
        return bijector.forward(y), bijector.forward_log_det_jacobian(y, event_ndims=event_ndims)

    def transformed(base: Any, maps: list[Any]) -> Any:
        return tfp.distributions.TransformedDistribution(base, tfp.bijectors.Chain(maps[::-1]))

    return _Library(maps, apply, transformed)


def _chained(distribution: Any) -> list[Any]:
    """Bijectors of a transformed distribution of Distrax or TFP, in the order of application."""

    def flat(bijector: Any) -> list[Any]:
        kind = type(bijector)
        if kind.__name__ == "Block":  # Distrax: a block of a chain is a chain of blocks.
            return [kind(part, bijector.ndims) for part in flat(bijector.bijector)]
        if kind.__name__ != "Chain":
            return [bijector]
        return [part for inner in reversed(bijector.bijectors) for part in flat(inner)]

    return flat(distribution.bijector)


def _take_apart(distribution: Any) -> tuple[Any, list[Map]] | None:
    """The law of y and the maps from y to z; None if there are no maps to remove."""
    inner = unwrap(distribution)
    if inner is not distribution:
        parts = _take_apart(inner)
        if parts is None or not is_a(distribution, NUMPYRO, "ExpandedDistribution"):
            return parts
        base, maps = parts
        # Event dimensions of `inner` may be batch dimensions of the base.
        factors = base.batch_shape[len(inner.batch_shape) :]
        return base.expand((*distribution.batch_shape, *factors)), maps
    inner, library = inner_distribution(distribution), _library(distribution)
    is_transformed = hasattr(distribution, "transforms") or hasattr(distribution, "bijector")
    if inner is None or library is None or not is_transformed:
        return None
    maps = library.maps(distribution)
    kept = _count_kept(library, inner, maps)
    if kept == len(maps):
        return None
    base = library.transformed(inner, maps[:kept]) if kept else inner
    return base, [functools.partial(library.apply, outer) for outer in maps[kept:]]


def _count_kept(library: _Library, base: Any, maps: list[Any]) -> int:
    """The number of maps that stay with the base: all up to the last that has parameters or changes
    the shape.
    """
    kept = 0
    shape = jax.eval_shape(lambda key: sample_from(base, key, ()), jax.random.key(0))
    for number, bijector in enumerate(maps, start=1):
        apply = functools.partial(library.apply, bijector)
        _, parameters = jax.closure_convert(apply, shape)
        image, _ = jax.eval_shape(apply, shape)
        if parameters or image.shape != shape.shape:
            kept = number
        shape = image
    return kept
