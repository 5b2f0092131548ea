"""Monotone rational-quadratic splines (Gregory and Delbourgo 1982; Durkan et al. 2019)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# The least width and height of a bin, as a share of the whole range, and the least slope at a knot.
# Without them a network could make the spline flat.
LEAST_BIN, LEAST_SLOPE = 1e-3, 1e-3
# softplus of it is 1 - LEAST_SLOPE: parameters of zero are the identity.
_SLOPE_SHIFT = float(np.log(np.expm1(1 - LEAST_SLOPE)))


def rational_quadratic(
    values: Array, parameters: Array, num_bins: int, bound: float, is_inverse: bool = False
) -> tuple[Array, Array]:
    """Values mapped by splines on [-bound, bound], by the identity outside, and the log slopes.

    In the bin from (x_k, y_k) to (x_{k+1}, y_{k+1}), of width w and height h, with the slopes d at
    its ends, s = h / w and t = (x - x_k) / w,

        y = y_k + h (s t^2 + d_k t (1 - t)) / (s + (d_{k+1} + d_k - 2 s) t (1 - t))

    (Durkan et al. 2019, equation 4). The slopes at both ends of the range are 1.

    Args:
      values: [*any], x, or y for the inverse.
      parameters: [*any, 3 num_bins - 1], real numbers: the bins' widths and heights before a
        softmax, and the slopes at the inner knots before a softplus. Zeros are the identity.
      num_bins: at least 1, with num_bins LEAST_BIN < 1.
      bound: > 0.
      is_inverse: True for x from y.

    Returns:
      The images [*any], and log |dy / dx| [*any], or log |dx / dy| for the inverse.
    """
    raw_widths, raw_heights, raw_slopes = jnp.split(parameters, (num_bins, 2 * num_bins), axis=-1)
    x, widths = _knots(raw_widths, bound)
    y, heights = _knots(raw_heights, bound)
    inner = jax.nn.softplus(raw_slopes + _SLOPE_SHIFT) + LEAST_SLOPE
    ones = jnp.ones((*inner.shape[:-1], 1), inner.dtype)
    slopes = jnp.concatenate([ones, inner, ones], axis=-1)

    is_inside = jnp.abs(values) < bound
    inside = jnp.clip(values, -bound, bound)
    inner_knots = (y if is_inverse else x)[..., 1:-1]
    index = jnp.sum(inside[..., None] >= inner_knots, axis=-1, keepdims=True)

    def chosen(numbers: Array) -> Array:
        return jnp.take_along_axis(numbers, index, axis=-1)[..., 0]

    x_k, y_k, w, h = chosen(x[..., :-1]), chosen(y[..., :-1]), chosen(widths), chosen(heights)
    d_k, d_next, s = chosen(slopes[..., :-1]), chosen(slopes[..., 1:]), h / w
    excess = d_next + d_k - 2 * s
    if is_inverse:
        rise = inside - y_k
        a = h * (s - d_k) + rise * excess
        b = h * d_k - rise * excess
        c = -s * rise
        t = _root(a, b, c)
    else:
        t = (inside - x_k) / w
    product = t * (1 - t)
    denominator = s + excess * product
    if is_inverse:
        image = x_k + w * t
    else:
        image = y_k + h * (s * t**2 + d_k * product) / denominator
    slope = s**2 * (d_next * t**2 + 2 * s * product + d_k * (1 - t) ** 2) / denominator**2
    log_slope = -jnp.log(slope) if is_inverse else jnp.log(slope)
    return jnp.where(is_inside, image, values), jnp.where(is_inside, log_slope, 0)


def _root(a: Array, b: Array, c: Array) -> Array:
    """The root of a t^2 + b t + c in [0, 1] (Durkan et al. 2019, equation 8), elementwise, for
    c <= 0 < a + b.

    The sign of b decides which of the root's two forms is taken: the one in which nothing cancels.
    Rounding can make a small discriminant negative and move a root beyond the ends.
    """
    discriminant = jnp.maximum(b**2 - 4 * a * c, jnp.finfo(b.dtype).tiny)
    total = jnp.abs(b) + jnp.sqrt(discriminant)
    t = jnp.where(b < 0, total, -2 * c) / jnp.where(b < 0, 2 * a, total)
    # Not clip, whose derivative at the ends themselves is not 1.
    return jnp.where(t < 0, 0, jnp.where(t > 1, 1, t))


def _knots(raw: Array, bound: float) -> tuple[Array, Array]:
    """Knots [*any, N + 1] from -bound to bound, and the distances [*any, N] between them."""
    number = raw.shape[-1]
    shares = LEAST_BIN + (1 - number * LEAST_BIN) * jax.nn.softmax(raw, axis=-1)
    ends = jnp.cumsum(shares, axis=-1)[..., :-1]
    zero, one = (
        jnp.zeros((*raw.shape[:-1], 1), raw.dtype),
        jnp.ones((*raw.shape[:-1], 1), raw.dtype),
    )
    knots = bound * (2 * jnp.concatenate([zero, ends, one], axis=-1) - 1)
    return knots, jnp.diff(knots, axis=-1)
