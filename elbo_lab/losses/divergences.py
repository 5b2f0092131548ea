"""Kullback-Leibler divergences in closed form, in nats."""

import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

# KL(q || p) of a user's own distributions, looked up before the libraries' registries:
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
      [*batch], nats, >= 0.
    """
    log_ratio = jnp.log(scale_q) - jnp.log(scale_p)
    distance = (mean_q - mean_p) / scale_p
    # expm1 keeps the digits of KLs near zero (posterior collapse), where (s_q/s_p)^2 - 1 cancels.
    return jnp.sum(0.5 * (jnp.expm1(2 * log_ratio) + distance**2) - log_ratio, axis=-1)


def gaussian_kl_full(mean_q: Array, cov_q: Array, mean_p: Array, cov_p: Array) -> Array:
    """KL(N(mean_q, cov_q) || N(mean_p, cov_p)) for full covariances (textbook 13.23).

    1/2 [ tr(S_p^-1 S_q) + (m_p - m_q)^T S_p^-1 (m_p - m_q) - L + log |S_p| / |S_q| ].

    Args:
      mean_q, mean_p: [*batch, L] (either may lack batch dimensions).
      cov_q, cov_p: symmetric positive definite, [*batch, L, L].

    Returns:
      [*batch], nats, >= 0; NaN where a covariance is not positive definite.
    """
    tril_q, tril_p = jnp.linalg.cholesky(cov_q), jnp.linalg.cholesky(cov_p)
    batch = jnp.broadcast_shapes(
        mean_q.shape[:-1], mean_p.shape[:-1], tril_q.shape[:-2], tril_p.shape[:-2]
    )
    size = mean_q.shape[-1]
    tril_q = jnp.broadcast_to(tril_q, (*batch, size, size))
    tril_p = jnp.broadcast_to(tril_p, (*batch, size, size))
    distance = jnp.broadcast_to(mean_p - mean_q, (*batch, size))
    # With S = L L^T: tr(S_p^-1 S_q) = |L_p^-1 L_q|^2, log|S| = 2 sum log diag L.
    trace = jnp.sum(solve_triangular(tril_p, tril_q, lower=True) ** 2, axis=(-2, -1))
    whitened = solve_triangular(tril_p, distance[..., None], lower=True)[..., 0]
    log_det_ratio = _half_log_det(tril_p) - _half_log_det(tril_q)
    return 0.5 * (trace + jnp.sum(whitened**2, axis=-1) - size) + log_det_ratio


def kl_divergence(posterior: Any, prior: Any) -> Array:
    """Closed-form KL(posterior || prior) of two distribution objects.

    Looked up in this order: `KL_REGISTRY` by type; NumPyro's registry where both are NumPyro's;
    the posterior's own method `kl_divergence(prior)` (Distrax, TFP on JAX); the sum over the
    `factors` of two products, each found in the same order.

    Args:
      posterior: q(z|x), batch shape [*batch].
      prior: p(z), batch shape broadcastable to [*batch].

    Returns:
      [*batch], nats.

    Raises:
      ValueError: if no closed form is known, or the event shapes differ. Nothing falls back to
        Monte Carlo unasked: choose kl="mc" for that.
    """
    names = f"{type(posterior).__name__} and {type(prior).__name__}"
    shapes = [getattr(d, "event_shape", None) for d in (posterior, prior)]
    if None not in shapes and tuple(shapes[0]) != tuple(shapes[1]):
        raise ValueError(
            f"The posterior's event shape {tuple(shapes[0])} differs from the prior's "
            f"{tuple(shapes[1])}; both must be the shape of one z."
        )
    if (type(posterior), type(prior)) in KL_REGISTRY:
        return KL_REGISTRY[type(posterior), type(prior)](posterior, prior)
    try:
        if _is_numpyro(posterior) and _is_numpyro(prior):
            from numpyro.distributions import kl_divergence as numpyro_kl

            return numpyro_kl(posterior, prior)
        if hasattr(posterior, "kl_divergence"):
            return posterior.kl_divergence(prior)
    except NotImplementedError:
        pass
    try:  # Libraries know Independent against Independent, and MultivariateNormalDiag likewise.
        return jnp.sum(kl_per_dimension(posterior, prior), axis=-1)
    except ValueError:
        pass
    raise ValueError(
        f'No closed-form KL is known between {names}: use kl="mc", or add one to '
        "losses.KL_REGISTRY."
    )


def factors(distribution: Any) -> Any:
    """The product's factors: a distribution whose `log_prob` is one per dimension, [*batch, L].

    Known are the `Independent` of NumPyro, Distrax and TFP, and the `MultivariateNormalDiag` of the
    last two.

    Raises:
      ValueError: if the distribution is not seen to be a product over one event dimension.
    """
    if type(distribution).__name__ == "Independent":
        for name in ("base_dist", "distribution"):  # NumPyro's; Distrax's and TFP's
            base = getattr(distribution, name, None)
            single = base is not None and tuple(base.event_shape) == ()
            if single and len(distribution.event_shape) == 1:
                return base
    for name in ("distrax", "tensorflow_probability.substrates.jax.distributions"):
        library = sys.modules.get(name)  # Its user has imported it.
        if library is not None and isinstance(distribution, library.MultivariateNormalDiag):
            return library.Normal(distribution.mean(), distribution.stddev())
    raise ValueError(
        f"{type(distribution).__name__} is not seen to be a product over latent dimensions; use "
        "one of independent dimensions, e.g. NumPyro's Normal(mean, scale).to_event(1)."
    )


def kl_per_dimension(posterior: Any, prior: Any) -> Array:
    """Closed-form KL of each latent dimension, [*batch, L], nats; their sum is `kl_divergence`.

    Raises:
      ValueError: unless both are products over their dimensions whose factors' KL is known.
    """
    return kl_divergence(factors(posterior), factors(prior))


def moments(distribution: Any) -> tuple[Array, Array]:
    """Mean and variance of each dimension, [*batch, L], where the distribution gives them.

    Raises:
      ValueError: if it does not.
    """
    try:
        values = distribution.mean, distribution.variance
        mean, variance = (value() if callable(value) else value for value in values)
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"{type(distribution).__name__} does not give its mean and variance in closed form."
        ) from error
    return tuple(jnp.broadcast_arrays(mean, variance))


def _is_numpyro(distribution: Any) -> bool:
    # Whoever holds a NumPyro distribution has imported NumPyro: importing it is left to them.
    module = sys.modules.get("numpyro.distributions")
    return module is not None and isinstance(distribution, module.Distribution)


def _half_log_det(tril: Array) -> Array:
    return jnp.sum(jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)), axis=-1)
