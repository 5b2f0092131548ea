"""Models small enough to be known exactly, with their data and parameters near the optimum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from elbo_lab.data.dataset import Batch
from elbo_lab.models.base import Given, Model, Params

LATENT_DIM, NUM_EXAMPLES, OFFSET = 20, 1024, 0.01


class Toy(NamedTuple):
    """A model at a point in its parameter space, with data."""

    model: Model
    params: Params
    x: np.ndarray  # [N, D], float32
    # Params, or their gradient -> {name in the paper: array}.
    groups: Callable[[Params], dict[str, Any]]
    inference: tuple[str, ...]  # names of the inference network's groups


def gaussian(seed: int = 0) -> Toy:
    """Rainforth et al. 2018, section 4: z ~ N(mu, I_20), x|z ~ N(z, I), q(z|x) = N(Ax + b, 2/3 I).

    The 1,024 examples come from the model with mu ~ N(0, I). The parameters are the maximum of the
    ELBO (mu = mean x, A = I/2, b = mu/2) plus noise N(0, 0.01^2), as in the paper. At the maximum q
    has the exact posterior's mean; its variance is 2/3, the exact posterior's is 1/2.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(size=LATENT_DIM) + rng.normal(size=(NUM_EXAMPLES, LATENT_DIM))
    x = (z + rng.normal(size=z.shape)).astype(np.float32)
    model = gaussian_model()
    params = model.init(jax.random.key(seed), Batch(jnp.asarray(x)))
    return Toy(model, params, x, _gaussian_groups, ("a", "b"))


def gaussian_model() -> Model:
    """The model of `gaussian`; its `init` starts near the optimum for the batch."""

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        mu = jnp.mean(batch.x, axis=0) if mean is None else mean
        optimum = {
            "encoder": {"a": jnp.eye(mu.size) / 2, "b": mu / 2},
            "decoder": {},
            "prior": {"mu": mu},
        }
        leaves, structure = jax.tree.flatten(optimum)
        keys = jax.random.split(key, len(leaves))
        moved = [
            leaf + OFFSET * jax.random.normal(leaf_key, leaf.shape)
            for leaf_key, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, moved)

    def posterior(params: Params, x: Array, given: Given):
        encoder = params["encoder"]
        return dist.Normal(x @ encoder["a"].T + encoder["b"], np.sqrt(2 / 3)).to_event(1)

    return Model(
        init,
        lambda params, given: dist.Normal(params["prior"]["mu"], 1.0).to_event(1),
        posterior,
        lambda params, z, given: dist.Normal(z, 1.0).to_event(1),
    )


def _gaussian_groups(params: Params) -> dict[str, Any]:
    return {**params["encoder"], **params["prior"]}


TOYS: dict[str, Callable[[int], Toy]] = {"gaussian": gaussian}
