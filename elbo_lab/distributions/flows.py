"""Flows: z = T(y), T invertible with a known Jacobian, y from a simple base distribution.

    log p(z) = log p_0(y) - log |det dz / dy|,   z = T_n(... T_1(y))

Every T_i is a `Bijection`, whose network is a function with its parameters and context inside it.
Rezende and Mohamed 2015; for the maps see `autoregressive`, `affine_coupling`, `spline_coupling`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from elbo_lab.distributions.splines import rational_quadratic
from elbo_lab.losses.posteriors import sampler_with_density

# A map and the logarithm of its Jacobian's determinant: [*any, L] -> [*any, L] and [*any].
Map = Callable[[Array], tuple[Array, Array]]
# Values -> the shift and log scale of others: [*any, L] -> two of [*any, L'].
Conditioner = Callable[[Array], tuple[Array, Array]]


class Bijection(NamedTuple):
    """An invertible map of vectors, valid for any leading dimensions."""

    forward: Map
    """y -> z and log |det dz / dy|."""

    inverse: Map
    """z -> y and log |det dy / dz|."""

    inverse_at: Callable[[Array, Array], tuple[Array, Array]] | None = None
    """(the value of y, z) -> `inverse` of z with its derivatives, where the value is known from
    drawing z and `inverse` would have to search for it; None: `inverse` is as cheap."""


def inverted(bijection: Bijection) -> Bijection:
    """The bijection from z to y. That of an `autoregressive` one is a masked autoregressive flow
    (Papamakarios et al. 2017): its density takes one pass of the network, its draws L in turn.
    """
    return Bijection(bijection.inverse, bijection.forward)


def reverse() -> Bijection:
    """The values in reverse order, which couples those that the map before it did not."""

    def flip(y: Array) -> tuple[Array, Array]:
        return y[..., ::-1], jnp.zeros(y.shape[:-1], y.dtype)

    return Bijection(flip, flip)


def autoregressive(conditioner: Conditioner) -> Bijection:
    """An inverse autoregressive map, z_i = exp(a_i) y_i + m_i with (m, a) = conditioner(y), a_i and
    m_i functions of y_1, ..., y_{i-1} (Kingma et al. 2016, equations 9 and 10).

    `forward` is one call of the conditioner. `inverse` is L of them in turn. `inverse_at` spares
    these. Where y(z) is differentiated, by z or by the conditioner's parameters, both take
    dy = J^-1 (dz - dT), with J = dz / dy lower triangular: L more passes, side by side.
    """

    def forward(y: Array) -> tuple[Array, Array]:
        shift, log_scale = conditioner(y)
        return jnp.exp(log_scale) * y + shift, jnp.sum(log_scale, axis=-1)

    def solved(z: Array, start: Array, solve: Callable) -> tuple[Array, Array]:
        y = jax.lax.custom_root(lambda y: forward(y)[0] - z, start, solve, _triangular_solve)
        return y, -forward(y)[1]

    def inverse(z: Array) -> tuple[Array, Array]:
        def search(function: Callable, start: Array) -> Array:
            def with_one_more(i: Array, y: Array) -> Array:
                # Pass i makes y_i right, as y_1, ..., y_{i-1} are already.
                shift, log_scale = conditioner(y)
                return (z - shift) * jnp.exp(-log_scale)

            return jax.lax.fori_loop(0, z.shape[-1], with_one_more, start)

        return solved(z, jnp.zeros_like(z), search)

    def inverse_at(value: Array, z: Array) -> tuple[Array, Array]:
        return solved(z, jax.lax.stop_gradient(value), lambda function, start: start)

    return Bijection(forward, inverse, inverse_at)


def affine_coupling(conditioner: Conditioner, size: int) -> Bijection:
    """The first L // 2 values as they are, the others scaled and shifted by functions of the first:
    z_b = exp(a) y_b + m, (m, a) = conditioner(y_a) (real NVP, Dinh et al. 2017, equation 7).

    Args:
      conditioner: [*any, L // 2] -> m and a, [*any, L - L // 2] each.
      size: L.
    """

    def forward(y: Array) -> tuple[Array, Array]:
        first, second = y[..., : size // 2], y[..., size // 2 :]
        shift, log_scale = conditioner(first)
        z = jnp.concatenate([first, jnp.exp(log_scale) * second + shift], axis=-1)
        return z, jnp.sum(log_scale, axis=-1)

    def inverse(z: Array) -> tuple[Array, Array]:
        first, second = z[..., : size // 2], z[..., size // 2 :]
        shift, log_scale = conditioner(first)
        y = jnp.concatenate([first, (second - shift) * jnp.exp(-log_scale)], axis=-1)
        return y, -jnp.sum(log_scale, axis=-1)

    return Bijection(forward, inverse)


def spline_coupling(
    conditioner: Callable[[Array], Array], size: int, num_bins: int, bound: float
) -> Bijection:
    """As `affine_coupling`, the others by monotone rational-quadratic splines on [-bound, bound]
    and unchanged outside (Durkan et al. 2019, section 3.1 and appendix A.1).

    Args:
      conditioner: [*any, L // 2] -> the splines' parameters, [*any, L - L // 2, 3 num_bins - 1].
      size: L.
      num_bins: of each spline.
      bound: > 0.
    """

    def mapped(values: Array, is_inverse: bool) -> tuple[Array, Array]:
        first, second = values[..., : size // 2], values[..., size // 2 :]
        parameters = conditioner(first)
        image, log_slope = rational_quadratic(second, parameters, num_bins, bound, is_inverse)
        return jnp.concatenate([first, image], axis=-1), jnp.sum(log_slope, axis=-1)

    return Bijection(lambda y: mapped(y, False), lambda z: mapped(z, True))


class Flow(dist.Distribution):
    """The law of z = T_n(... T_1(y)), y from a base distribution.

    There is no mean in closed form: asking for it raises NotImplementedError.

    Args:
      base_dist: of y, batch shape [*batch] and event [L].
      bijections: T_1, ..., T_n in the order of application to y; batch dimensions of what their
        networks depend on are the trailing ones of [*batch].
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(
        self,
        base_dist: dist.Distribution,
        bijections: Sequence[Bijection],
        *,
        validate_args: bool | None = None,
    ):
        self.base_dist, self.bijections = base_dist, tuple(bijections)
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        return self.base_dist.has_rsample

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws [*sample_shape, *batch, L]."""
        return self.sample_and_log_prob(key, sample_shape)[0]

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Draws [*sample_shape, *batch, L] and their log densities, nats, [*sample_shape, *batch],
        without an inverse. The densities have the total derivative: through the draws too.
        """
        path, log_prob = self._draw(key, sample_shape)
        return path[-1], log_prob

    def log_prob(self, value: Array) -> Array:
        """Log density of values [*any, *batch, L], nats, [*any, *batch]."""
        shape = jnp.broadcast_shapes(value.shape, (*self.batch_shape, *self.event_shape))
        y, log_det = jnp.broadcast_to(value, shape), 0.0
        for bijection in reversed(self.bijections):
            y, log_det_i = bijection.inverse(y)
            log_det = log_det + log_det_i
        return self.base_dist.log_prob(y) + log_det

    def base_form(self) -> "FlowDraws | None":
        """The flow as the law of draws that carry what they were made of, by which log_prob needs
        no search; None if `log_prob` needs none anyway. The losses ask for it.
        """
        searches = any(bijection.inverse_at is not None for bijection in self.bijections)
        return FlowDraws(self) if searches else None

    def _draw(self, key: Array, sample_shape: tuple[int, ...]) -> tuple[tuple[Array, ...], Array]:
        """(y, T_1(y), ..., z) and log p(z)."""
        sampler = sampler_with_density(self.base_dist)
        if sampler is None:
            y = self.base_dist.sample(key, sample_shape)
            log_prob = self.base_dist.log_prob(y)
        else:
            y, log_prob = sampler(key, sample_shape)
        path = [y]
        for bijection in self.bijections:
            y, log_det = bijection.forward(y)
            path.append(y)
            log_prob = log_prob - log_det
        return tuple(path), log_prob


class FlowDraws:
    """The law of draws (z, path) of a flow, path = (y, T_1(y), ..., T_{n-1}(...)) held fixed.

    log_prob((z, path)) is log p(z) with all its derivatives by z and by the flow's parameters; the
    path holds the values at which they are taken, and has no derivative of its own.

    Args:
      flow: z's distribution.
    """

    def __init__(self, flow: Flow):
        self.flow = flow

    @property
    def reparameterized(self) -> bool:
        """True if z has a derivative. (The path has none, on purpose.)"""
        return self.flow.has_rsample

    def sample(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, tuple[Array, ...]]:
        """z [*sample_shape, *batch, L] and its path, n arrays of that shape."""
        return self.sample_and_log_prob(key, sample_shape)[0]

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[tuple[Array, tuple[Array, ...]], Array]:
        """(z, path), and log p(z) with the total derivative."""
        (*path, z), log_prob = self.flow._draw(key, sample_shape)
        return (z, jax.lax.stop_gradient(tuple(path))), log_prob

    def log_prob(self, draw: tuple[Array, tuple[Array, ...]]) -> Array:
        """log p(z), nats, [*any, *batch]; no search for the values of the path."""
        (y, path), log_det = draw, 0.0
        for bijection, value in zip(reversed(self.flow.bijections), reversed(path), strict=True):
            if bijection.inverse_at is None:
                y, log_det_i = bijection.inverse(y)
            else:
                y, log_det_i = bijection.inverse_at(value, y)
            log_det = log_det + log_det_i
        return self.flow.base_dist.log_prob(y) + log_det

    def forward(self, draw: tuple[Array, tuple[Array, ...]]) -> Array:
        """z."""
        return draw[0]


def _triangular_solve(push: Callable[[Array], Array], tangent: Array) -> Array:
    """J^-1 tangent, J lower triangular.

    Args:
      push: the linear map J, [*any, L] -> [*any, L].
      tangent: [*any, L].
    """
    basis = jnp.eye(tangent.shape[-1], dtype=tangent.dtype)
    columns = jax.vmap(lambda e: push(jnp.broadcast_to(e, tangent.shape)))(basis)
    jacobian = jnp.moveaxis(columns, 0, -1)  # [*any, L, L]
    solution = jax.lax.linalg.triangular_solve(
        jacobian, tangent[..., None], left_side=True, lower=True
    )
    return solution[..., 0]
