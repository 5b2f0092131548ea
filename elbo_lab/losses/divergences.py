"""Kullback-Leibler divergences in closed form, in nats.

Half-precision parameters are cast to float32 before anything is computed; derivatives have the
parameters' own type.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import closed_forms
from elbo_lab.losses.arrays import to_common_float, to_common_rank
from elbo_lab.losses.closed_forms import FactorKL
from elbo_lab.losses.laws import DISTRAX, NUMPYRO, OURS, TFP, innermost, is_a, law_of, unwrap
from elbo_lab.losses.posteriors import sum_trailing

# KL(q || p) of a user's own distributions, looked up before every other closed form:
# KL_REGISTRY[type(q), type(p)] = function of (q, p) -> [*batch].
KL_REGISTRY: dict[tuple[type, type], Callable[[Any, Any], Array]] = {}


def gaussian_kl(
    mean_q: Array, scale_q: Array, mean_p: Array | float = 0.0, scale_p: Array | float = 1.0
) -> Array:
    """KL(N(mean_q, diag scale_q^2) || N(mean_p, diag scale_p^2)), covariances diagonal.

    1/2 sum_l [ (s_q/s_p)^2 + ((m_q - m_p)/s_p)^2 - 1 - log (s_q/s_p)^2 ]: the textbook's 13.23
    for diagonal covariances, and with the defaults its 13.24, against the prior N(0, I).

    Args:
      mean_q, scale_q: mean and standard deviation of q, [*batch, L].
      mean_p, scale_p: those of p, broadcastable to [*batch, L].

    Returns:
      [*batch], nats, >= 0. Value and gradient keep their relative digits near zero (posterior
      collapse).
    """
    parameters = to_common_float(mean_q, scale_q, mean_p, scale_p)
    return jnp.sum(closed_forms.normal(*to_common_rank(*parameters)), axis=-1)


def gaussian_kl_full(mean_q: Array, cov_q: Array, mean_p: Array, cov_p: Array) -> Array:
    """KL(N(mean_q, cov_q) || N(mean_p, cov_p)) for full covariances (textbook 13.23).

    1/2 [ tr(S_p^-1 S_q) + (m_p - m_q)^T S_p^-1 (m_p - m_q) - L + log |S_p| / |S_q| ].

    Args:
      mean_q, mean_p: [*batch, L] (either may lack batch dimensions).
      cov_q, cov_p: symmetric positive definite, [*batch, L, L].

    Returns:
      [*batch], nats, >= 0; NaN where a covariance is not positive definite.
    """
    mean_q, cov_q, mean_p, cov_p = to_common_float(mean_q, cov_q, mean_p, cov_p)
    tril_q, tril_p = jnp.linalg.cholesky(cov_q), jnp.linalg.cholesky(cov_p)
    batch = jnp.broadcast_shapes(
        mean_q.shape[:-1], mean_p.shape[:-1], tril_q.shape[:-2], tril_p.shape[:-2]
    )
    size = mean_q.shape[-1]
    mean_q, mean_p = (jnp.broadcast_to(mean, (*batch, size)) for mean in (mean_q, mean_p))
    tril_q, tril_p = (jnp.broadcast_to(tril, (*batch, size, size)) for tril in (tril_q, tril_p))
    return closed_forms.multivariate_normal(mean_q, tril_q, mean_p, tril_p)


def kl_divergence(posterior: Any, prior: Any) -> Array:
    """Closed-form KL(posterior || prior) of two distribution objects.

    Looked up in this order: `KL_REGISTRY` by type; if both are `Independent` or expanded, the sum
    over their factors, looked up in the same order; `closed_forms` by law, where the two may be of
    different libraries (NumPyro, Distrax, TFP); the library's own formula, if it is exact
    (NumPyro's registry, or the posterior's method `kl_divergence(prior)`).

    Args:
      posterior: q(z|x), batch shape [*batch].
      prior: p(z), batch shape broadcastable to [*batch].

    Returns:
      [*batch], nats; +inf where q has mass outside of p's support.

    Raises:
      ValueError: if no closed form is known, or the event shapes differ. There is no silent
        fallback to Monte Carlo: choose kl="mc" for that.
    """
    _check_event_shapes(posterior, prior)
    kl = _kl_by_factor(posterior, prior)
    if kl is None:
        raise _unknown(posterior, prior)
    return sum_trailing(kl.values, kl.ndims)


def kl_per_dimension(posterior: Any, prior: Any) -> Array:
    """Closed-form KL of each latent dimension, [*batch, L], nats; their sum is `kl_divergence`.

    Raises:
      ValueError: unless both are products over their dimensions whose factors' KL is known.
    """
    _check_event_shapes(posterior, prior)
    kl = _kl_by_factor(posterior, prior)
    if kl is None or kl.ndims != 1:
        for distribution in (posterior, prior):
            factors(distribution)  # Raises if it is not a product, which is then the reason.
        raise _unknown(posterior, prior)
    return kl.values


def factors(distribution: Any) -> Any:
    """The product's factors: a distribution whose `log_prob` is one per dimension, [*batch, L].

    Handles `Independent` of NumPyro, Distrax and TFP, `MultivariateNormalDiag` of Distrax and TFP,
    and our `BernoulliVector`.

    Raises:
      ValueError: if the distribution is not known to be a product over one event dimension.
    """
    base = innermost(distribution)
    event_shape = getattr(distribution, "event_shape", ())
    if base is not distribution and len(event_shape) == 1 and tuple(base.event_shape) == ():
        shape = (*distribution.batch_shape, *event_shape)
        return base if tuple(base.batch_shape) == shape else base.expand(shape)
    for package, module in (
        (DISTRAX, "distrax"),
        (TFP, "tensorflow_probability.substrates.jax.distributions"),
    ):
        if is_a(distribution, package, "MultivariateNormalDiag"):
            return sys.modules[module].Normal(distribution.mean(), distribution.stddev())
    if is_a(distribution, OURS, "BernoulliVector"):
        return sys.modules["numpyro.distributions"].BernoulliLogits(distribution.logits)
    raise ValueError(
        f"{type(distribution).__name__} is not seen to be a product over latent dimensions; use "
        "one of independent dimensions, e.g. NumPyro's Normal(mean, scale).to_event(1)."
    )


def moments(distribution: Any) -> tuple[Array, Array]:
    """Mean and variance of each dimension, [*batch, L].

    Raises:
      ValueError: if the distribution does not have them in closed form.
    """
    law = law_of(distribution)
    if law is not None and law.name == "normal":
        mean, scale = to_common_float(*law.parameters)
        return mean, scale**2
    try:
        values = distribution.mean, distribution.variance
        mean, variance = (value() if callable(value) else value for value in values)
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"{type(distribution).__name__} does not give its mean and variance in closed form."
        ) from error
    return tuple(jnp.broadcast_arrays(*to_common_float(mean, variance)))


def _check_event_shapes(posterior: Any, prior: Any) -> None:
    shapes = [getattr(d, "event_shape", None) for d in (posterior, prior)]
    if None not in shapes and tuple(shapes[0]) != tuple(shapes[1]):
        raise ValueError(
            f"The posterior's event shape {tuple(shapes[0])} differs from the prior's "
            f"{tuple(shapes[1])}; both must be the shape of one z."
        )


def _unknown(posterior: Any, prior: Any) -> ValueError:
    return ValueError(
        f"No closed-form KL is known between {_name(posterior)} and {_name(prior)}: use "
        'kl="mc", or add one to losses.KL_REGISTRY.'
    )


def _name(distribution: Any) -> str:
    """The type's name, with that of the distribution inside, e.g. Independent(Kumaraswamy)."""
    inner = unwrap(distribution)
    name = type(distribution).__name__
    return name if inner is distribution else f"{name}({_name(inner)})"


def _kl_by_factor(posterior: Any, prior: Any) -> FactorKL | None:
    """KL of each factor; None if no closed form is known."""
    registered = KL_REGISTRY.get((type(posterior), type(prior)))
    if registered is not None:
        return FactorKL(registered(posterior, prior), 0)
    base_q, base_p = innermost(posterior), innermost(prior)
    if base_q is not posterior and base_p is not prior:
        ndims_q = len(posterior.event_shape) - len(base_q.event_shape)
        ndims_p = len(prior.event_shape) - len(base_p.event_shape)
        if ndims_q == ndims_p:
            return _broadcast(_kl_by_factor(base_q, base_p), posterior, prior, ndims_q)
    law_q, law_p = law_of(posterior), law_of(prior)
    if law_q is not None and law_p is not None:
        kl = closed_forms.divergence(law_q, law_p)
        if kl is not None:
            return kl
    value = _kl_of_parts(posterior, prior)
    return None if value is None else FactorKL(value, 0)


def _broadcast(kl: FactorKL | None, posterior: Any, prior: Any, wrapped: int) -> FactorKL | None:
    """The KL of two wrapped distributions, from that of their bases: `wrapped` more dimensions are
    factors, and the values are expanded to the batch shapes.
    """
    if kl is None:
        return None
    ndims = wrapped + kl.ndims
    shapes = [(*d.batch_shape, *d.event_shape[:ndims]) for d in (posterior, prior)]
    return FactorKL(
        jnp.broadcast_to(kl.values, jnp.broadcast_shapes(*shapes, kl.values.shape)), ndims
    )


def _kl_of_parts(posterior: Any, prior: Any) -> Array | None:
    """KL, [*batch], of distributions composed of others, or else by the library's own formula."""
    kinds = [
        (NUMPYRO, "MaskedDistribution", _masked_kl),
        (DISTRAX, "Transformed", _transformed_kl),
        (DISTRAX, "Joint", _joint_kl),
    ]
    pair = posterior, prior
    for package, name, function in kinds:
        if any(is_a(innermost(d), package, name) for d in pair):
            both = all(is_a(d, package, name) for d in pair)
            return function(posterior, prior) if both else None
    return _library_kl(posterior, prior)


def _masked_kl(posterior: Any, prior: Any) -> Array | None:
    # With different masks the difference of the two log-densities has no mean in closed form.
    if posterior._mask is not prior._mask:
        return None
    kl = _kl_by_factor(posterior.base_dist, prior.base_dist)
    return None if kl is None else jnp.where(posterior._mask, sum_trailing(kl.values, kl.ndims), 0)


def _transformed_kl(posterior: Any, prior: Any) -> Array | None:
    # Distrax takes bijectors for the same if their programs are, whatever their parameters.
    bijector_q, bijector_p = posterior.bijector, prior.bijector
    if bijector_q is not bijector_p and not bijector_q.same_as(bijector_p):
        return None
    kl = _kl_by_factor(posterior.distribution, prior.distribution)
    if kl is None:
        return None
    total = FactorKL(sum_trailing(kl.values, kl.ndims), 0)
    return _broadcast(total, posterior, prior, 0).values


def _joint_kl(posterior: Any, prior: Any) -> Array | None:
    is_leaf = functools.partial(is_a, package=DISTRAX, name="Distribution")
    parts_q, structure_q = jax.tree.flatten(posterior.distributions, is_leaf)
    parts_p, structure_p = jax.tree.flatten(prior.distributions, is_leaf)
    if structure_q != structure_p:
        return None
    kls = [_kl_by_factor(q, p) for q, p in zip(parts_q, parts_p, strict=True)]
    if any(kl is None for kl in kls):
        return None
    return sum(sum_trailing(kl.values, kl.ndims) for kl in kls)


def _library_kl(posterior: Any, prior: Any) -> Array | None:
    """KL by the library's own formula; None if it has none, or if the formula is not exact."""
    if _is_inexact(posterior, prior):
        return None
    if all(is_a(d, NUMPYRO, "Distribution") for d in (posterior, prior)):
        # Imported here, since the losses need JAX only.
        from numpyro.distributions import kl_divergence as numpyro_kl

        with contextlib.suppress(NotImplementedError):
            return numpyro_kl(posterior, prior)
    if hasattr(posterior, "kl_divergence"):
        with contextlib.suppress(NotImplementedError):
            return posterior.kl_divergence(prior)
    return None


def _is_inexact(posterior: Any, prior: Any) -> bool:
    """True if the library's formula for this pair is not the KL."""
    posterior, prior = innermost(posterior), innermost(prior)
    if is_a(posterior, NUMPYRO, "Kumaraswamy"):
        return is_a(prior, NUMPYRO, "Beta")  # the first terms of a series
    # The KL from a point mass to a density is infinite; the libraries give -log p(point).
    if is_a(posterior, NUMPYRO, "Delta"):
        return not (getattr(prior, "is_discrete", False) or is_a(prior, NUMPYRO, "Delta"))
    if is_a(posterior, TFP, "_BaseDeterministic"):
        masses = "DiscreteDistributionMixin", "_BaseDeterministic"
        return not any(is_a(prior, TFP, name) for name in masses)
    return False
