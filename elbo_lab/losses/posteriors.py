"""Draws of a posterior, the density of a draw, and checks that they can be differentiated.

This file, `laws.py` and `squashed.py` know the conventions of NumPyro, Distrax and TFP. Any other
object with `sample(key, sample_shape)` and `log_prob(z)` is a user's own.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.losses.derivatives import inspect_tangents
from elbo_lab.losses.laws import NUMPYRO, is_a
from elbo_lab.losses.log_means import is_known


class Layered:
    """A hierarchy of stochastic layers, whose draws are tuples."""

    def layers(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Each layer's distribution given the layer before it in `value`."""
        raise NotImplementedError(f"{type(self).__name__} must define layers.")


# Distrax's distributions do not declare whether they are reparameterizable. Draws of these may be
# floating point and still jump, or have no derivative by some of the parameters.
NOT_SMOOTH = frozenset(
    {
        "Bernoulli",
        "Categorical",
        "Clipped",
        "ClippedLogistic",
        "ClippedNormal",
        "EpsilonGreedy",
        "Greedy",
        "MixtureOfTwo",
        "MixtureSameFamily",
        "Multinomial",
        "OneHotCategorical",
        "Quantized",
        "Softmax",
    }
)
# Parameters that bound the support. (Most of NumPyro's distributions have a `support`.)
SUPPORT_BOUNDS = {
    "Uniform": ("low", "high"),
    "TruncatedNormal": ("low", "high"),
    "TruncatedCauchy": ("low", "high"),
    "Pareto": ("scale",),
    "Triangular": ("low", "high"),
    "PERT": ("low", "high"),
    "Bates": ("low", "high"),
    "HalfCauchy": ("loc",),
    "HalfStudentT": ("loc",),
    "GeneralizedPareto": ("loc",),
    # The support of a point mass is the point itself.
    "Delta": ("v",),
    "Deterministic": ("loc",),
    "VectorDeterministic": ("loc",),
}


def sample_from(distribution: Any, key: Array, sample_shape: tuple[int, ...]) -> Any:
    """Draws by NumPyro's, Distrax's or TFP's convention."""
    # Distrax and TFP on JAX name the key `seed`; NumPyro takes it first.
    if "seed" in inspect.signature(distribution.sample).parameters:
        return distribution.sample(seed=key, sample_shape=sample_shape)
    return distribution.sample(key, sample_shape)


def one_per_example(distribution: Any, key: Array, batch_shape: tuple[int, ...]) -> Any:
    """One draw for each example, [*batch, ...], from a prior of batch shape () or [*batch]."""

    def density(key: Array) -> Array:
        return distribution.log_prob(sample_from(distribution, key, ()))

    prior_shape = jax.eval_shape(density, jax.random.key(0)).shape
    missing = len(batch_shape) - len(prior_shape)
    if prior_shape == batch_shape[missing:]:
        return sample_from(distribution, key, batch_shape[:missing])
    if math.prod(prior_shape) == 1:
        draws = sample_from(distribution, key, batch_shape)
        event_start = len(batch_shape) + len(prior_shape)
        return jax.tree.map(lambda z: z.reshape(*batch_shape, *z.shape[event_start:]), draws)
    raise ValueError(
        f"prior has batch shape {prior_shape}, which must be () or that of the posterior, "
        f"{batch_shape}."
    )


def sampler_with_density(distribution: Any) -> Callable[[Array, tuple[int, ...]], Any] | None:
    """(key, sample_shape) -> draws and their log density, [*sample_shape, *batch], if the
    distribution knows the density of its own draw; else None.

    The density has the total derivative by the distribution's parameters: through the draw, and
    directly. No inverse is taken, and no digits are lost where a draw is rounded to the edge of the
    support. Looked up in this order: `sample_and_log_prob` (Distrax, a user's own),
    `experimental_sample_and_log_prob` (TFP), `sample_with_intermediates` of a transformed
    distribution (NumPyro).
    """
    if hasattr(distribution, "sample_and_log_prob"):
        function = distribution.sample_and_log_prob
        if "seed" in inspect.signature(function).parameters:
            return lambda key, shape: function(seed=key, sample_shape=shape)
        return function
    if hasattr(distribution, "experimental_sample_and_log_prob"):
        function = distribution.experimental_sample_and_log_prob
        return lambda key, shape: function(sample_shape=shape, seed=key)
    if hasattr(distribution, "transforms") and hasattr(distribution, "sample_with_intermediates"):

        def sample(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
            z, intermediates = distribution.sample_with_intermediates(key, shape)
            return z, distribution.log_prob(z, intermediates)

        return sample
    if type(distribution).__name__ == "Independent" and hasattr(distribution, "base_dist"):
        return _summed(sampler_with_density(distribution.base_dist), distribution)
    return None


def is_reparameterizable(posterior: Any, z: Any) -> bool:
    """True if a posterior's type lets draws carry derivatives.

    Looked up in this order: its attribute `reparameterized`; all layers of a `Layered` posterior;
    `has_rsample` (NumPyro); `reparameterization_type` (TFP). Otherwise every leaf of the draw z
    must be floating point and the type not in `NOT_SMOOTH` (Distrax). The type does not always
    tell, e.g. a user's class with floating-point Bernoulli draws: `check_draws` finds those.
    """
    if getattr(posterior, "reparameterized", None) is not None:
        return bool(posterior.reparameterized)
    if isinstance(posterior, Layered):
        return all(map(is_reparameterizable, posterior.layers(z), z))
    if hasattr(posterior, "has_rsample"):
        return bool(posterior.has_rsample)
    if hasattr(posterior, "reparameterization_type"):
        return "NOT" not in repr(posterior.reparameterization_type)
    is_floating = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(z))
    return is_floating and not _has_jumps(posterior)


def check_draws(posterior: Any, loss: Array, z: Any, parameters: Any, message: str) -> Array:
    """The loss, which raises ValueError when it is differentiated by parameters of log q that some
    draw has no derivative by. So draws that jump are refused, whatever their type declares.

    Args:
      posterior: not checked if it declares `reparameterized = True`, for example because some of
        its draws are noise without parameters, or its draws hold parameters fixed on purpose.
      loss: [*batch], computed from these draws.
      z: pytree of draws, of the whole posterior or of one layer.
      parameters: pytree of arrays that their log density depends on beside z.
      message: the message of the ValueError.
    """
    if getattr(posterior, "reparameterized", None):
        return loss

    def check(is_moving: tuple[Any, Any]) -> None:
        draws, parameters = map(jax.tree.leaves, is_moving)
        if any(parameters) and not all(draws):
            raise ValueError(message)

    return inspect_tangents(loss, (z, parameters), check)


def check_fixed_support(posterior: Any, z: Any, loss: Array, message: str) -> Array:
    """The loss, which raises ValueError when it is differentiated by parameters that bound the
    posterior's support: e.g. Uniform(0, s) by s. Data may bound it, as in Uniform(x, x + 1).

    Args:
      posterior: its support is checked, and those of its layers if it has any.
      z: one draw, pytree of [*batch, ...].
      loss: [*batch], computed from such draws.
      message: the message of the ValueError.
    """

    def check(is_moving: list[bool]) -> None:
        if any(is_moving):
            raise ValueError(message)

    layers = posterior.layers(z) if isinstance(posterior, Layered) else (posterior,)
    ends = [end for layer in layers for end in _support_bounds(layer)]
    return inspect_tangents(loss, ends, check)


def check_batch_shape(distribution: Any) -> None:
    """Raises ValueError if a distribution declares another batch shape than its parameters have.

    A NumPyro distribution that was returned out of `jax.vmap` keeps the batch shape that it had
    inside; the other libraries compute the batch shape from the parameters.
    """
    if not is_a(distribution, NUMPYRO, "Distribution"):
        return
    base = distribution
    while inner_distribution(base) is not None:
        base = inner_distribution(base)
    batch = base.batch_shape
    try:
        z = jax.ShapeDtypeStruct((*batch, *base.event_shape), jnp.float32)
        shape = jax.eval_shape(base.log_prob, z).shape
    except (TypeError, ValueError, NotImplementedError):
        return  # Not checked, e.g. because log_prob takes integers only.
    if shape != batch:
        raise ValueError(
            f"posterior, a {type(distribution).__name__}, declares the batch shape "
            f"{distribution.batch_shape}, but its parameters have the shape {shape}: a "
            "distribution that is returned out of jax.vmap keeps the batch shape that it had "
            "inside. Return the parameters out of jax.vmap and make the distribution outside."
        )


def sum_trailing(values: Array, number: int) -> Array:
    """The sum over the last `number` axes."""
    return jnp.sum(values, axis=tuple(range(-number, 0))) if number else values


def inner_distribution(distribution: Any) -> Any | None:
    """The distribution inside an Independent, expanded or transformed one; None for others."""
    for name in ("base_dist", "distribution"):  # NumPyro's; Distrax's and TFP's
        inner = getattr(distribution, name, None)
        if hasattr(inner, "log_prob"):
            return inner
    return None


def _has_jumps(distribution: Any) -> bool:
    inner = inner_distribution(distribution)
    return type(distribution).__name__ in NOT_SMOOTH or (inner is not None and _has_jumps(inner))


def _support_bounds(distribution: Any) -> list[Array]:
    """Arrays that bound the distribution's support, or the support of a distribution inside it."""
    names = SUPPORT_BOUNDS.get(type(distribution).__name__, ())
    inner = inner_distribution(distribution)
    bounds = [getattr(distribution, name, None) for name in ("support", *names)]
    bounds.append(_moved_ends(distribution))
    arrays = [leaf for leaf in jax.tree.leaves(bounds) if isinstance(leaf, Array)]
    return arrays + ([] if inner is None else _support_bounds(inner))


def _moved_ends(distribution: Any) -> list[Any]:
    """Parameters of NumPyro's affine transforms that move the ends of a bounded base's support."""
    if not is_a(distribution, NUMPYRO, "TransformedDistribution"):
        return []
    support = distribution.base_dist.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    ends = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    ends = [end for end in ends if end is not None]
    if not ends:
        return []
    # An end at zero stays there, whatever the scale.
    is_at_zero = all(is_known(end) and np.all(np.asarray(end) == 0) for end in ends)
    names = ("loc",) if is_at_zero else ("loc", "scale")
    affine = [t for t in distribution.transforms if type(t).__name__ == "AffineTransform"]
    return [getattr(transform, name) for transform in affine for name in names]


def _summed(
    sampler: Callable[[Array, tuple[int, ...]], Any] | None, independent: Any
) -> Callable[[Array, tuple[int, ...]], Any] | None:
    """The sampler of an Independent, from that of its base distribution."""
    if sampler is None:
        return None

    def sample(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        z, log_prob = sampler(key, shape)
        return z, sum_trailing(log_prob, independent.reinterpreted_batch_ndims)

    return sample
