"""Mixtures of Gaussians or of Bernoulli vectors: log p(x) = log sum_k w_k p_k(x), exact.

Real numbers, and images as real numbers, have Gaussian components; binary images have Bernoulli
components. EM or gradients of the exact likelihood fit them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.models import components
from elbo_lab.models.base import Density, Given, Params
from elbo_lab.models.components import BERNOULLI, COVARIANCES, DIAGONAL, Statistics
from elbo_lab.options import option

EM, GRADIENT = FITS = ("em", "gradient")
KMEANS, RANDOM = STARTS = ("kmeans++", "random")


class EMMixture(NamedTuple):
    """A mixture that EM fits, as pure functions; `methods.mixture` trains it.

    It has no params: its `Statistics` are the stats of the method.
    """

    init: Callable[..., Statistics]
    """(key, batch, mean=None) -> statistics; the arguments are as in `Model`."""

    update: Callable[..., Statistics]
    """(statistics, x [N, D], responsibilities [N, K], decay) -> statistics: the M-step."""

    distribution: Callable[..., dist.MixtureSameFamily]
    """(params, statistics, given) -> p(x), as in `Density`."""


@dataclasses.dataclass(frozen=True)
class MixtureOptions:
    """Settings of `--model=mixture`."""

    components: int = option(10, "K, components", least=1)
    likelihood: str = option(
        BERNOULLI,
        "p(x|k) of a component: for binary images, or for real numbers",
        (BERNOULLI, "gaussian"),
    )
    covariance: str = option(
        "full", "of Gaussian components; tied: one that all share", COVARIANCES
    )
    fit: str = option(
        EM, "by the EM algorithm, or by the optimizer on the exact log-likelihood", FITS
    )
    variance_floor: float = option(
        1e-3, "the least variance: it is added to each Gaussian variance", least=0
    )
    start: str = option(
        KMEANS,
        "means of the components before training: distant rows of the first batch, or averages of "
        "it with random responsibilities",
        STARTS,
    )
    em_decay: float | None = option(
        None,
        "weight of the old statistics in a step of EM; if not given, 1 - B / N, a memory of one "
        "pass (and none where the batch is all of the data)",
        least=0,
        below=1,
    )


def make(options: MixtureOptions, spec: Spec) -> Density | EMMixture:
    """A mixture of images or real numbers.

    Args:
      options: the family's settings; `em_decay` is left to the method.
      spec: of kind "real" or "image".

    Returns:
      A `Density` with fit=gradient, an `EMMixture` with fit=em. Their laws have
      `component_log_probs` beside `log_prob`, `sample` and `mean`.

    Raises:
      ValueError: tokens, Bernoulli components of what is no binary image, or a variance floor that
        no Bernoulli variable has, or 0.
    """
    _check(options, spec)
    kind = BERNOULLI if options.likelihood == BERNOULLI else options.covariance

    def start(key: Array, batch: Batch, mean: Array | None = None) -> Statistics:
        return components.start(key, batch.x, options.components, kind, options.start)

    if options.fit == GRADIENT:
        return _by_gradient(start, kind, options.variance_floor)

    def update(statistics: Statistics, x: Array, responsibilities: Array, decay: Any) -> Statistics:
        return components.updated(statistics, x, responsibilities, decay, kind)

    def distribution(
        params: tuple[()], statistics: Statistics, given: Given
    ) -> dist.MixtureSameFamily:
        return components.law(
            jnp.log(statistics.shares),
            statistics.means,
            statistics.covariances,
            kind,
            options.variance_floor,
        )

    return EMMixture(start, update, distribution)


def _by_gradient(start: Callable[..., Statistics], kind: str, floor: float) -> Density:
    """The density whose params are unconstrained.

    Weights are softmax(weights). Variances are exp(log_variances) plus the floor, covariances are
    A A^T plus the floor, with A lower triangular and a diagonal exp(diag factors). A Bernoulli
    probability is p = e + (1 - 2 e) sigmoid(logits), with e (1 - e) = floor.
    """

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        statistics = start(key, batch, mean)
        params = {"weights": jnp.zeros_like(statistics.shares)}
        if kind == BERNOULLI:
            p = jnp.clip(statistics.means, 0.01, 0.99)
            return params | {"logits": jnp.log(p) - jnp.log1p(-p)}
        params["means"] = statistics.means
        # A coordinate that is constant in the first batch starts with a positive variance.
        least = max(floor, 1e-6)
        if kind == DIAGONAL:
            return params | {"log_variances": jnp.log(statistics.covariances + least)}
        factors = jnp.linalg.cholesky(components.with_floor(statistics.covariances, least))
        return params | {"factors": _log_diagonal(factors)}

    def distribution(params: Params, stats: Any, given: Given) -> dist.MixtureSameFamily:
        weights = params["weights"]
        if kind == BERNOULLI:
            least = components.least_probability(floor)
            means = least + (1 - 2 * least) * jax.nn.sigmoid(params["logits"])
            return components.law(weights, means, (), kind, floor)
        if kind == DIAGONAL:
            covariances = jnp.exp(params["log_variances"])
        else:
            factors = _exp_diagonal(params["factors"])
            transposed = jnp.swapaxes(factors, -1, -2)
            covariances = jnp.matmul(factors, transposed, precision=jax.lax.Precision.HIGHEST)
        return components.law(weights, params["means"], covariances, kind, floor)

    return Density(init, distribution)


def _log_diagonal(factors: Array) -> Array:
    """Lower triangular factors [..., D, D] with the logarithms of their diagonals."""
    diagonals = jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1))
    return jnp.tril(factors, -1) + diagonals[..., None] * jnp.eye(factors.shape[-1])


def _exp_diagonal(factors: Array) -> Array:
    """The inverse of `_log_diagonal`; what lies above the diagonal has no effect."""
    diagonals = jnp.exp(jnp.diagonal(factors, axis1=-2, axis2=-1))
    eye = jnp.eye(factors.shape[-1], dtype=factors.dtype)
    return jnp.tril(factors, -1) + diagonals[..., None] * eye


def _check(options: MixtureOptions, spec: Spec) -> None:
    if spec.kind == "token":
        raise ValueError("The model mixture takes images or real numbers, not tokens.")
    if options.likelihood != BERNOULLI:
        return
    if spec.kind != "image" or spec.levels != 2:
        raise ValueError(
            f"likelihood=bernoulli of the model mixture needs binary images, but these data are of "
            f"kind {spec.kind!r} with levels={spec.levels}; use likelihood=gaussian."
        )
    if not 0 < options.variance_floor < 0.25:
        raise ValueError(
            "variance_floor must be above 0 and below 0.25, the largest variance of a pixel, with "
            f"likelihood=bernoulli: a pixel that no image of a component lights would have the "
            f"probability 0; got {options.variance_floor:g}."
        )
