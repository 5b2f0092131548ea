"""SOAP: Adam in the eigenbases of Shampoo's factors (Vyas et al. 2024, arXiv:2409.11321)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

# Bound of rounding errors in the bases, relative to the machine's epsilon and the root mean square.
ROUNDING = 256
# One entry for each axis of an array; None for an axis that is not preconditioned.
PerAxis = tuple[Array | None, ...]


class SOAPState(NamedTuple):
    """State of `scale_by_soap`."""

    count: Array  # [], int32, updates so far
    mu: Any  # like the parameters: first moments, in the bases
    nu: Any  # like the parameters: second moments, in the bases
    factors: Any  # parameters' tree of PerAxis, [n, n] for an axis of length n
    bases: Any  # likewise; the columns are orthonormal, those of large eigenvalues first


def scale_by_soap(
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    decay: float = 0.95,
    frequency: int = 10,
    max_dim: int = 256,
    factor_every: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Scales gradients by SOAP: Adam's rule in slowly renewed eigenbases.

    For a matrix G, with the factors L ~ E[G G^T] and R ~ E[G^T G] as moving averages, and Q_L, Q_R
    approximately their eigenvectors:

        G' = Q_L^T G Q_R
        mu <- b1 mu + (1 - b1) G',  nu <- b2 nu + (1 - b2) G'^2
        direction = Q_L (mu^ / (sqrt(nu^) + eps)) Q_R^T

    mu^ and nu^ are corrected for their start at zero as in Adam. A renewal takes one step of
    orthogonal iteration from the old basis, Q <- qr(L Q), with the columns sorted by their Rayleigh
    quotients (algorithms 3 and 4 of the paper), and rotates mu into the new bases. Arrays of more
    axes have one factor for each axis. Vectors and scalars, and an array without an axis of at most
    `max_dim`, are updated by Adam.

    The paper keeps nu at a renewal. Here it is nu'_j = sum_i T_ij^2 nu_i for the rotation
    T = Q_old^T Q_new: the second moment in the new basis of a gradient whose coordinates in the old
    one are uncorrelated, which an eigenbasis makes them. So moments and bases fit each other, and
    bases can be renewed more seldom.

    With `max_dim` between the lengths of a matrix's axes the preconditioner is one-sided (section
    5.2 of the paper): only the shorter axis has a factor.

    Where gradients have a lower rank than the bases, the coordinates outside of their span are
    rounding errors, which Adam's rule would scale up to the size of the others. So eps is raised by
    a bound of these errors, `ROUNDING` times the machine's epsilon times the root mean square of
    the array's coordinates.

    As in the authors' code, the first gradient of a preconditioned array only starts its factors
    and bases (by an eigendecomposition), and its first update is zero: in its own eigenbasis a
    gradient is not typical of those that follow.

    Cost of a step for an [m, n] matrix, in products of 2 m n^2 operations for each preconditioned
    axis of length n: 2 for the rotations, 1 / factor_every for the factor, 2 / frequency for the
    moments; and every `frequency` steps a QR decomposition and two products of [n, n] matrices.
    Memory: 2 n^2 numbers for each such axis beside Adam's moments.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment, positive.
      decay: decay of the factors at each of their updates, in [0, 1). (The paper's is b2.)
      frequency: steps between renewals of the bases.
      max_dim: the greatest length of an axis that is preconditioned.
      factor_every: steps between updates of the factors.

    Returns:
      A transformation whose `update` also takes `step`, []: the number of updates so far, which
      decides when factors and bases are renewed; the state's count if not given. Under `jax.vmap`
      pass it, not mapped: otherwise each branch is computed at every step.

    Raises:
      ValueError: an argument is out of its range.
    """
    _check(b1, b2, eps, decay, frequency, max_dim, factor_every)

    def init(params: optax.Params) -> SOAPState:
        def per_axis(make: Callable[..., Array]) -> Any:
            """make(length, dtype) for each preconditioned axis of each array."""
            return jax.tree.map(
                lambda p: tuple(
                    make(n, jnp.promote_types(p.dtype, jnp.float32)) if is_short else None
                    for n, is_short in zip(p.shape, _preconditioned(p, max_dim), strict=True)
                ),
                params,
            )

        return SOAPState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(jnp.zeros_like, params),
            per_axis(lambda n, dtype: jnp.zeros((n, n), dtype)),
            per_axis(lambda n, dtype: jnp.eye(n, dtype=dtype)),
        )

    def update(
        grads: optax.Updates,
        state: SOAPState,
        params: optax.Params | None = None,
        *,
        step: Array | None = None,
        **_: Any,
    ) -> tuple[optax.Updates, SOAPState]:
        del params
        step = state.count if step is None else step
        is_first = state.count == 0
        factors = _when(
            step % factor_every == 0,
            lambda factors: _averaged(factors, grads, jnp.where(is_first, 0.0, decay)),
            state.factors,
        )

        def rotated(grad: Array, bases: PerAxis) -> Array:
            in_bases = _to_bases(grad, bases)
            return jnp.where(is_first, 0, in_bases) if _any(bases) else in_bases

        grads = jax.tree.map(rotated, grads, state.bases)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)

        def direction(m: Array, v: Array, bases: PerAxis) -> Array:
            # A preconditioned array's moments start with the second gradient.
            gradients = jnp.maximum(state.count, 1) if _any(bases) else state.count + 1
            mean, square = m / (1 - b1**gradients), v / (1 - b2**gradients)
            least = eps + _rounding(bases, square)
            return _from_bases((mean / (jnp.sqrt(square) + least)).astype(m.dtype), bases)

        directions = jax.tree.map(direction, mu, nu, state.bases)
        mu, nu, bases = _when(
            step % frequency == 0,
            lambda moments: _renewed(*moments, factors, step == 0),
            (mu, nu, state.bases),
        )
        return directions, SOAPState(state.count + 1, mu, nu, factors, bases)

    return optax.GradientTransformationExtraArgs(init, update)


def _check(b1, b2, eps, decay, frequency, max_dim, factor_every) -> None:
    """Raises ValueError for an argument of `scale_by_soap` out of its range."""
    for name, value in (("b1", b1), ("b2", b2), ("decay", decay)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1); got {value}.")
    if not eps > 0:
        raise ValueError(f"eps must be positive; got {eps}.")
    for name, value, least in (
        ("frequency", frequency, 1),
        ("factor_every", factor_every, 1),
        ("max_dim", max_dim, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}.")


def _preconditioned(array: Array, max_dim: int) -> list[bool]:
    """For each axis of an array, True if it is preconditioned. An axis of length 1 never is."""
    return [array.ndim > 1 and 1 < n <= max_dim for n in array.shape]


def _any(bases: PerAxis) -> bool:
    """True if an axis is preconditioned."""
    return any(basis is not None for basis in bases)


def _rounding(bases: PerAxis, square: Array) -> Array | float:
    """[], a bound of the rounding errors of an array's coordinates in the bases; 0 for no bases.

    Args:
      bases: of the array.
      square: second moments in the bases, corrected for their start.
    """
    if not _any(bases):
        return 0.0
    return ROUNDING * jnp.finfo(square.dtype).eps * jnp.sqrt(jnp.mean(square))


def _when(condition: Array, function: Callable[[Any], Any], value: Any) -> Any:
    """function(value) if the condition holds, else the value."""
    return jax.lax.cond(condition, function, lambda value: value, value)


def _apply(array: Array, matrices: PerAxis, axis_of_matrix: int) -> Array:
    """Contracts each axis of an array with an axis of its matrix, if it has one."""
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            product = jnp.tensordot(array, matrix, (axis, axis_of_matrix))
            array = jnp.moveaxis(product, -1, axis).astype(array.dtype)
    return array


def _to_bases(array: Array, bases: PerAxis) -> Array:
    """Coordinates of an array in the bases: Q_L^T G Q_R for a matrix G."""
    return _apply(array, bases, 0)


def _from_bases(array: Array, bases: PerAxis) -> Array:
    """The array of these coordinates: Q_L G' Q_R^T for a matrix G'."""
    return _apply(array, bases, 1)


def _averaged(factors: Any, grads: optax.Updates, decay: Array) -> Any:
    """The factors after an update: decay L + (1 - decay) G G^T."""

    def averaged(grad: Array, factors: PerAxis) -> PerAxis:
        def one(axis: int, factor: Array) -> Array:
            others = [other for other in range(grad.ndim) if other != axis]
            square = jnp.tensordot(grad, grad, (others, others)).astype(factor.dtype)
            return (decay * factor + (1 - decay) * square).astype(factor.dtype)

        return tuple(
            None if factor is None else one(axis, factor) for axis, factor in enumerate(factors)
        )

    return jax.tree.map(averaged, grads, factors)


def _renewed(mu: Any, nu: Any, bases: Any, factors: Any, is_first: Array) -> tuple[Any, Any, Any]:
    """The moments and the bases after a renewal of the bases.

    Args:
      mu: first moments, in the old bases.
      nu: second moments, likewise.
      bases: the old bases.
      factors: the factors.
      is_first: [], True if the factors are those of the first gradient.
    """

    def eigenvectors(moments: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        # The moments of preconditioned arrays are zero.
        mu, nu, _ = moments
        # eigh sorts eigenvalues in ascending order.
        return mu, nu, jax.tree.map(lambda factor: jnp.linalg.eigh(factor)[1][:, ::-1], factors)

    def iterated(moments: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        mu, nu, bases = moments
        arrays, treedef = jax.tree.flatten(mu)
        renewed = [
            _renewed_array(*parts)
            for parts in zip(
                arrays,
                jax.tree.leaves(nu),
                treedef.flatten_up_to(bases),
                treedef.flatten_up_to(factors),
                strict=True,
            )
        ]
        return tuple(jax.tree.unflatten(treedef, part) for part in zip(*renewed, strict=True))

    return jax.lax.cond(is_first, eigenvectors, iterated, (mu, nu, bases))


def _renewed_array(
    mu: Array, nu: Array, bases: PerAxis, factors: PerAxis
) -> tuple[Array, Array, PerAxis]:
    """One array's moments and bases after one step of orthogonal iteration."""
    renewed: list[Array | None] = list(bases)
    rotations: list[Array | None] = list(bases)
    for axis, (basis, factor) in enumerate(zip(bases, factors, strict=True)):
        if basis is not None:
            product = factor @ basis
            order = jnp.argsort(-jnp.sum(basis * product, axis=0))  # Rayleigh quotients
            renewed[axis] = jnp.linalg.qr(product[:, order])[0]
            rotations[axis] = basis.T @ renewed[axis]
    squares = tuple(None if rotation is None else rotation**2 for rotation in rotations)
    return _to_bases(mu, tuple(rotations)), _to_bases(nu, squares), tuple(renewed)
