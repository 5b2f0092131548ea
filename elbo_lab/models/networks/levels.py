"""Levels of grids of vectors, each half as high and wide as the one below (Razavi et al. 2019).

Levels are ordered from the top, the coarsest grid, down to the one nearest to the data. Vectors of
a level are [*batch, M, E], a grid of h w = M cells row by row.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Spec, split_levels
from elbo_lab.models.networks.conv import (
    ConvDecoder,
    ConvEncoder,
    ConvSettings,
    NormActivation,
    ResidualStack,
    Upsample,
)
from elbo_lab.models.networks.mlp import dense


def settings_of_levels(settings: ConvSettings, levels: int) -> tuple[ConvSettings, ...]:
    """The settings of each level's networks, from the top down.

    The last are those of the data's networks. The "image" of a higher level is the grid of features
    of the level below, which it halves once: its `sizes` are the grid below and its own.
    """
    settings_of = [settings]
    for _ in range(levels - 1):
        grid, features = settings_of[0].sizes[-1], settings.channels[-1]
        settings_of.insert(0, settings._replace(shape=(*grid, features), channels=(features,)))
    return tuple(settings_of)


class FromAbove(nn.Module):
    """What the vectors of all levels above say of each cell of a grid, [*batch, h, w, features].

    u_1 = f_1(e_1),  u_l = f_l([e_l, u_{l-1}]), with f_l residual blocks, a transposed convolution
    to the grid below, and an activation.

    Args:
      settings: of each level above the grid, from the top down; see `settings_of_levels`.
    """

    settings: tuple[ConvSettings, ...]

    @nn.compact
    def __call__(self, above: Sequence[Array]) -> Array:
        batch, u = above[0].shape[:-2], None
        for i, (own, e) in enumerate(zip(self.settings, above, strict=True)):
            size_below, size = own.sizes
            x = e.reshape(math.prod(batch), *size, e.shape[-1])
            x = x if u is None else jnp.concatenate([x, u], axis=-1)
            x = ResidualStack(own, name=f"residual_{i}")(x)
            x = Upsample(own.channels[-1], size_below, name=f"up_{i}")(x)
            u = NormActivation(own, name=f"act_{i}")(x)
        return u.reshape(*batch, *u.shape[1:])


class LevelsEncoder(nn.Module):
    """The vectors of each level from an image, to be quantized from the top down.

    Upwards, features of each level: f_L = trunk(x), f_l = trunk_l(f_{l+1}). Downwards, vectors:
    z_1 = W_1 f_1, and z_l = W_l [f_l, FromAbove_l(e_1, ..., e_{l-1})], with e the nearest codes.

    Args:
      code_dim: E.
      settings: of each level, from the top down.
    """

    code_dim: int
    settings: tuple[ConvSettings, ...]

    def setup(self):
        # Those of a single level are named as in runs that were stored before there were several.
        self.trunk = ConvEncoder(self.settings[-1])
        self.trunks_above = [ConvEncoder(own) for own in self.settings[:-1]]
        names = [f"vectors_{i}" for i in range(len(self.settings) - 1)]
        self.projections = [dense(self.code_dim, name) for name in (*names, "vectors")]
        self.from_above = [FromAbove(self.settings[:i]) for i in range(1, len(self.settings))]

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """The vectors of all levels without quantization, [*batch, M_l, E] each."""
        features, vectors = self.upwards(x), ()
        for _ in self.settings:
            vectors = (*vectors, self.downwards(features, vectors))
        return vectors

    def upwards(self, x: Array) -> tuple[Array, ...]:
        """Features of each level, [*batch, h_l, w_l, any], from the top down, of x [*batch, D]."""
        features = [self.trunk(x)]
        for trunk in reversed(self.trunks_above):
            features.insert(0, trunk(features[0].reshape(*x.shape[:-1], -1)))
        return tuple(features)

    def downwards(self, features: tuple[Array, ...], above: tuple[Array, ...]) -> Array:
        """Vectors of the level below those of `above`, [*batch, M_l, E].

        Args:
          features: of `upwards`.
          above: codes of the levels above, [*batch, M_i, E] each; () for the top level.
        """
        level = len(above)
        grid = features[level]
        if above:
            grid = jnp.concatenate([grid, self.from_above[level - 1](above)], axis=-1)
        cells = grid.reshape(*grid.shape[:-3], -1, grid.shape[-1])
        return self.projections[level](cells)


class LevelsDecoder(ConvDecoder):
    """Vectors of all levels [*batch, M_l, E] -> the outputs of `ConvDecoder`.

    Its grid is the lowest level's vectors, beside `FromAbove` of the others.

    Args:
      above: settings of the levels above the lowest.
    """

    above: tuple[ConvSettings, ...] = ()

    @nn.compact
    def __call__(self, vectors: Sequence[Array]) -> tuple[Array, ...]:
        *above, lowest = vectors
        size = self.settings.sizes[-1]
        grid = lowest.reshape(*lowest.shape[:-2], *size, lowest.shape[-1])
        if above:
            grid = jnp.concatenate([grid, FromAbove(self.above, name="from_above")(above)], axis=-1)
        return super().__call__(grid)


class TokensAbove(nn.Module):
    """What the tokens of all levels above say of each cell of a grid, by `FromAbove` of their
    embeddings: [*batch, M_1 + M_2 + ...] -> [*batch, h, w, features].

    Args:
      specs: of each level above, from the top down.
      size: (h, w) of the grid.
      features: of each cell.
      embedding_dim: of the embedding of a token.
    """

    specs: tuple[Spec, ...]
    size: tuple[int, int]
    features: int
    embedding_dim: int

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        sizes_below = (*(spec.shape for spec in self.specs[1:]), self.size)
        settings = tuple(
            ConvSettings((*size, self.features), (self.features,), "relu", "none", 1)
            for size in sizes_below
        )
        above = [
            nn.Embed(spec.levels, self.embedding_dim, name=f"embedding_{i}")(part)
            for i, (spec, part) in enumerate(
                zip(self.specs, split_levels(tokens, self.specs), strict=True)
            )
        ]
        return FromAbove(settings, name="from_above")(above)
