"""Networks (Flax linen): one file a kind. `models.laws` says what their outputs mean."""

from elbo_lab.models.networks.conv import (
    NORMS,
    ConvCritic,
    ConvDecoder,
    ConvSettings,
    GaussianConv,
    LatentConvDecoder,
    image_shape,
)
from elbo_lab.models.networks.heads import Head
from elbo_lab.models.networks.made import MADE
from elbo_lab.models.networks.mlp import (
    ACTIVATIONS,
    INITS,
    MLP,
    SCALES,
    CriticMLP,
    DecoderMLP,
    GaussianMLP,
    gaussian,
)

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "MADE",
    "MLP",
    "NORMS",
    "SCALES",
    "ConvCritic",
    "ConvDecoder",
    "ConvSettings",
    "CriticMLP",
    "DecoderMLP",
    "GaussianConv",
    "GaussianMLP",
    "Head",
    "LatentConvDecoder",
    "gaussian",
    "image_shape",
]
