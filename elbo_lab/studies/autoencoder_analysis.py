"""What the study autoencoder computes from trained runs: where codes lie under the prior, what
draws from the prior decode to, and the textbook's objective (13.28) beside the ELBO.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import special

from elbo_lab import keys, losses, models
from elbo_lab.data import Batch
from elbo_lab.distributions.means import closed_form_mean
from elbo_lab.models import NOTHING_GIVEN
from elbo_lab.models.base import Model
from elbo_lab.runs import examples
from elbo_lab.runs.loading import Trained
from elbo_lab.studies.study import Load

# Part of the prior inside the region that codes are counted in.
COVERED = 0.99
# Draws from the prior, and those of them in the figure.
DRAWS, SHOWN_DRAWS = 1000, 40
# Test images with their reconstructions in the figure.
SHOWN_IMAGES = 10
# Test examples at which (13.28) is compared with the ELBO.
COMPARED = 200


class Pictures(NamedTuple):
    """What the figure shows of one replicate."""

    inputs: np.ndarray  # [n, H, W] or [n, H, W, C], test images, one of each class first
    reconstructions: np.ndarray  # the same shape
    codes: np.ndarray  # [N, 2], of all test images
    labels: np.ndarray | None  # [N]
    draws: np.ndarray  # [SHOWN_DRAWS, H, W, ...], decoded draws from the prior


class Comparison(NamedTuple):
    """Equation (13.28) beside the ELBO, means over examples."""

    objective: float  # J = -|x - mu_G(z)|^2 / 2 - lambda KL
    scaled_elbo: float  # lambda (ELBO + D/2 log 2 pi lambda)
    difference: float  # the largest of an example
    gradient_norm: float  # |dJ|, over all parameters
    gradient_difference: float  # |dJ - lambda dELBO| / |dJ|


class Replicate(NamedTuple):
    """The numbers of one trained replicate."""

    squared_error: float  # of a decoded code, mean over pixels and test examples
    outside: float  # part of the codes outside of the region that holds COVERED of the prior
    log_pz: float  # mean log p(z) of the codes, nats
    nearest: float  # squared error per pixel of a test example to the nearest decoded draw
    comparison: Comparison | None  # None for an autoencoder
    pictures: Pictures | None  # None unless codes are a plane and examples are images


# Directory and replicate of a run -> what the table and the figure share.
_measured: dict[tuple[Path, int], Replicate] = {}


def radius(latent_dim: int) -> float:
    """The radius of the ball that holds COVERED of N(0, I): |z|^2 is chi-squared distributed."""
    return math.sqrt(2 * special.gammaincinv(latent_dim / 2, COVERED))


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Measures the replicates that are trained, for `of_cell`.

    Arguments and errors: see `study.AfterTraining`.
    """
    for cell in sweep["cells"]:
        for place in _places(path, cell):
            if place not in _measured:
                _measured[place] = _of_run(load(*place))


def of_cell(path: Path, cell: dict[str, Any]) -> list[Replicate]:
    """The replicates of a cell that `compute` has measured; none for codes of several layers, and
    for a learned prior.

    Args:
      path: the sweep's folder.
      cell: of sweep.json.
    """
    return [_measured[place] for place in _places(path, cell) if place in _measured]


def _places(path: Path, cell: dict[str, Any]) -> list[tuple[Path, int]]:
    """Directory and replicate of each run of a cell whose codes can be measured."""
    config = cell.get("config")  # a cell that is skipped has none
    if not config or len(config["latent_dims"]) != 1 or config["prior"] != "standard":
        return []
    return [(path / run["run"], run["replicate"]) for run in cell["runs"]]


def _of_run(trained: Trained) -> Replicate:
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    codes, decoded, draws = encoded_and_decoded(trained, test)
    x = np.asarray(test.x)
    is_plane = codes.shape[1] == 2 and trained.spec.kind == "image"
    return Replicate(
        float(np.mean((x - decoded) ** 2)),
        outside(codes),
        mean_log_pz(codes),
        nearest(x, draws),
        None if trained.config.objective == "autoencoder" else _comparison(trained, test),
        _pictures(trained, test, codes, decoded, draws) if is_plane else None,
    )


def encoded_and_decoded(trained: Trained, test: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes E_q[z|x] [N, L], decoded codes [N, D], and decoded draws from N(0, I) [DRAWS, D]."""
    method = trained.method

    @jax.jit
    def compute(params: Any, stats: Any, batch: Batch, z: Array) -> tuple[Array, ...]:
        codes = method.encode(params, stats, batch)

        def decoded(z: Array) -> Array:
            return closed_form_mean(method.decode(params, stats, z, NOTHING_GIVEN))

        return codes, decoded(codes), decoded(z)

    # The same draws for every system, since the key is that of the seed.
    key = keys.stream_key(keys.base_key(trained.config.seed), keys.SAMPLES)
    z = jax.random.normal(key, (DRAWS, *trained.config.model_options.latent_dims))
    arrays = compute(trained.params, trained.stats, test, z)
    return tuple(np.asarray(array) for array in arrays)


def outside(codes: np.ndarray) -> float:
    """The part of the codes [N, L] outside of the ball that holds COVERED of N(0, I)."""
    squares = np.sum(np.float64(codes) ** 2, axis=1)
    return float(np.mean(squares > radius(codes.shape[1]) ** 2))


def mean_log_pz(codes: np.ndarray) -> float:
    """The mean of log N(z; 0, I) over codes [N, L], nats."""
    squares = np.sum(np.float64(codes) ** 2, axis=1)
    return float(np.mean(-0.5 * squares) - codes.shape[1] / 2 * math.log(2 * math.pi))


def nearest(x: np.ndarray, draws: np.ndarray) -> float:
    """The mean over examples x [N, D] of the squared error per value to the nearest of the draws
    [n, D].
    """
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(draws**2, axis=1) - 2 * x @ draws.T
    return float(np.mean(np.maximum(squares.min(axis=1), 0)) / x.shape[1])


def _comparison(trained: Trained, test: Batch) -> Comparison:
    model = models.make(trained.config, trained.spec)
    key = keys.stream_key(keys.base_key(trained.config.seed), keys.EVALUATION)
    variance = trained.config.model_options.likelihood_variance
    return compare(key, model, trained.params, test.x[:COMPARED], variance)


def compare(key: Array, model: Model, params: Any, x: Array, variance: float) -> Comparison:
    """Equation (13.28) and the ELBO of p(x|z) = N(mu_G(z), lambda I), from the same draw of z.

        J = -1/2 |x - mu_G(z)|^2 - lambda KL(q(z|x) || p(z)) = lambda (ELBO + D/2 log 2 pi lambda)

    Args:
      key: one typed PRNG key.
      model: whose likelihood is that normal distribution.
      params: the point at which gradients are compared.
      x: [N, D].
      variance: lambda.
    """
    options = {"kl": "analytic", "vectorized": True}

    def distributions(params: Any) -> tuple[Any, Any]:
        return model.posterior(params, x, NOTHING_GIVEN), model.prior(params, NOTHING_GIVEN)

    def objective(params: Any) -> tuple[Array, Array]:
        def mean(z: Array) -> Array:
            return model.likelihood(params, z, NOTHING_GIVEN).mean

        own_key = jax.random.clone(key)
        loss, _ = losses.lambda_vae(
            own_key, *distributions(params), mean, x=x, regularization=variance, **options
        )
        return -jnp.mean(loss), -loss

    def scaled_elbo(params: Any) -> tuple[Array, Array]:
        def log_likelihood(z: Array) -> Array:
            return model.likelihood(params, z, NOTHING_GIVEN).log_prob(x)

        own_key = jax.random.clone(key)
        loss, _ = losses.elbo(own_key, *distributions(params), log_likelihood, **options)
        scaled = variance * (-loss + x.shape[1] / 2 * math.log(2 * math.pi * variance))
        return jnp.mean(scaled), scaled

    @jax.jit
    def both(params: Any) -> tuple[Array, ...]:
        (value, values), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        (other, others), other_gradient = jax.value_and_grad(scaled_elbo, has_aux=True)(params)
        distance = jax.tree.map(jnp.subtract, gradient, other_gradient)
        norm = _norm(gradient)
        return value, other, jnp.max(jnp.abs(values - others)), norm, _norm(distance) / norm

    return Comparison(*(float(value) for value in both(params)))


def _norm(tree: Any) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def _pictures(
    trained: Trained, test: Batch, codes: np.ndarray, decoded: np.ndarray, draws: np.ndarray
) -> Pictures:
    labels = None if test.label is None else np.asarray(test.label)
    shown = first_of_each(labels, len(codes))

    def images(x: np.ndarray) -> np.ndarray:
        return np.clip(x.reshape(-1, *trained.spec.shape), 0, 1)

    inputs, outputs = images(np.asarray(test.x)[shown]), images(decoded[shown])
    return Pictures(inputs, outputs, codes, labels, images(draws[:SHOWN_DRAWS]))


def first_of_each(labels: np.ndarray | None, number: int) -> np.ndarray:
    """Indices of at most SHOWN_IMAGES examples: the first of each class, then the others in order.

    Args:
      labels: [N] or None.
      number: N.
    """
    # np.unique sorts the classes.
    firsts = [] if labels is None else np.unique(labels, return_index=True)[1]
    order = dict.fromkeys([*map(int, firsts), *range(number)])
    return np.array(list(order)[:SHOWN_IMAGES])
