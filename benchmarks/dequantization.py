"""Bits per dimension of a small flow by uniform and by learned noise, beside the exact ones.

    python -m benchmarks.dequantization

Images of two pixels of four levels, a fixed flow with drawn parameters whose masses quadrature
gives, and the mean over all sixteen images. The learned noise is trained by 300 steps of DReG.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elbo_lab import losses
from elbo_lab.data import Batch, Spec
from elbo_lab.models import pixel_flow
from elbo_lab.models.base import NOTHING_GIVEN, Model, Params

LEVELS, DRAWS, STEPS, TRAINED_DRAWS = 4, 50_000, 300, 8
SPEC = Spec("image", (1, 2), LEVELS)
CELLS = np.stack(np.meshgrid(*2 * [np.arange(LEVELS)], indexing="ij"), -1).reshape(-1, 2)
X = np.float32(CELLS / (LEVELS - 1))
BITS = 1 / (SPEC.dim * math.log(2))


def make() -> tuple[Model, Params]:
    """The model, with drawn parameters of p(v) and noise that is uniform at the start."""
    sizes = {"prior_flow": "affine", "prior_depth": 2, "prior_width": (5,), "noise_width": (4,)}
    options = pixel_flow.FlowOptions("variational", **sizes, activation="tanh")
    model = pixel_flow.make(options, SPEC)
    params = model.init(jax.random.key(0), Batch(jnp.asarray(X)))
    rng = np.random.default_rng(1)

    def drawn(leaf):
        return jnp.float32(0.5 * rng.normal(size=leaf.shape))

    return model, params | {"prior": jax.tree.map(drawn, params["prior"])}


def exact_masses(model: Model, params: Params) -> np.ndarray:
    """P(x) of every image by a Gauss-Legendre rule on its unit square, [16]."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    nodes, weights = (nodes + 1) / 2, weights / 2
    points = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)

    @jax.jit
    def density(params, v):
        return jnp.exp(model.prior(params, NOTHING_GIVEN).log_prob(v))

    values = density(params, jnp.asarray(CELLS[:, None] + points, jnp.float32))
    return np.float64(values) @ np.outer(weights, weights).ravel()


def trained(model: Model, params: Params) -> Params:
    """The parameters with learned noise, p(v) held fixed."""
    optimizer = optax.adam(0.03)

    def loss(encoder, key):
        arguments = _arguments(model, params | {"encoder": encoder})
        options = {"num_samples": TRAINED_DRAWS, "estimator": "dreg", "vectorized": True}
        return jnp.mean(losses.elbo(key, *arguments, **options)[0])

    @jax.jit
    def train(key, encoder):
        def body(state, step_key):
            encoder, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(encoder, step_key), moments)
            return (optax.apply_updates(encoder, updates), moments), None

        keys = jax.random.split(key, STEPS)
        return jax.lax.scan(body, (encoder, optimizer.init(encoder)), keys)[0][0]

    return params | {"encoder": train(jax.random.key(3), params["encoder"])}


def bounds(log_w: np.ndarray, k: int) -> np.ndarray:
    """IWAE-k bounds of groups of draws, the mean over images, [draws / k] from [draws, 16]."""
    groups = log_w.reshape(-1, k, log_w.shape[-1])
    return np.mean(np.logaddexp.reduce(groups, axis=1) - math.log(k), axis=1)


def main() -> None:
    """Prints the table of docs/systems/dequantization.md."""
    model, params = make()
    draw = jax.jit(
        lambda params, key: (
            losses.log_weights(key, *_arguments(model, params), DRAWS, vectorized=True).log_w
        )
    )
    uniform, learned = (
        np.float64(draw(own, jax.random.key(4))) for own in (params, trained(model, params))
    )
    exact = -BITS * np.mean(np.log(exact_masses(model, params)))
    print("| bound | uniform | variational | difference |\n|---|---|---|---|")
    for k, name in ((1, "ELBO"), (10, "L_10"), (100, "L_100")):
        by_noise = bounds(uniform, k), bounds(learned, k)
        columns = [-BITS * values for values in (*by_noise, by_noise[1] - by_noise[0])]
        print(f"| {name} | {' | '.join(map(_with_error, columns))} |")
    print(f"| exact | {exact:.4f} | {exact:.4f} | |")


def _arguments(model: Model, params: Params) -> tuple:
    """q(v|x), p(v) and log p(x|v) of all images, as the losses take them."""

    def log_likelihood(v):
        return model.likelihood(params, v, NOTHING_GIVEN).log_prob(X)

    posterior = model.posterior(params, jnp.asarray(X), NOTHING_GIVEN)
    return posterior, model.prior(params, NOTHING_GIVEN), log_likelihood


def _with_error(values: np.ndarray) -> str:
    return f"{values.mean():.4f} +- {values.std(ddof=1) / math.sqrt(len(values)):.4f}"


if __name__ == "__main__":
    main()
