"""Networks (Flax linen): one file a kind. `models.laws` says what their outputs mean."""

from elbo_lab.models.networks.mlp import (
    ACTIVATIONS,
    INITS,
    MLP,
    SCALES,
    BernoulliMLP,
    GaussianMLP,
    LocationScaleMLP,
    gaussian,
)

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "MLP",
    "SCALES",
    "BernoulliMLP",
    "GaussianMLP",
    "LocationScaleMLP",
    "gaussian",
]
