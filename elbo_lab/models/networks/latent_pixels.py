"""Gated masked convolutions over an image, given features of z at each of its pixels.

The network of PixelVAE (Gulrajani et al. 2016): features of z enter every gate of a gated PixelCNN
by a 1 x 1 convolution (van den Oord et al. 2016b, equation 5).
"""

import flax.linen as nn
import jax
from jax import Array

from elbo_lab.data.dataset import Spec
from elbo_lab.models.networks.masked import GatedLayer, Masked1x1, grid


def radii(receptive_field: int, layers: int) -> tuple[int, ...]:
    """The radius of each layer's kernel, the first layer first; their sum is the network's.

    With the radius r = (receptive_field - 1) / 2 layers after the first have 3 x 3 kernels, and the
    first has what remains: its input has the fewest channels, so that a wide kernel costs least
    there. If r is below the number of layers, the first kernel is 3 x 3 too, and the last ones are
    1 x 1.

    Args:
      receptive_field: odd, at least 3.
      layers: at least 1.
    """
    total = receptive_field // 2
    first = max(1, total - (layers - 1))
    return (first, *(int(i < total - first) for i in range(layers - 1)))


class LatentPixels(nn.Module):
    """Values [*any, D] and features of z [*any, H, W, F] -> logits [*any, D], or
    [*any, D, levels] for levels > 2.

    The logits at d depend on all features of z within reach, and on those values before d that lie
    at most sum(radii) rows above, and columns to either side of, the pixel of d.

    Args:
      spec: kind "image", of two or three axes, with levels.
      width: features of each stack, at least the number of colours.
      radii: of the layers' kernels, the first layer first; see `radii`.
      output_width: features between the two 1 x 1 layers at the end, at least the number of
        colours.
    """

    spec: Spec
    width: int
    radii: tuple[int, ...]
    output_width: int

    def setup(self):
        colours, levels = self._grid[2], self.spec.levels
        self.gated = [
            GatedLayer(self.width, radius, colours, first=i == 0, condition="features")
            for i, radius in enumerate(self.radii)
        ]
        self.hidden = Masked1x1(self.output_width, colours)
        self.logits = Masked1x1(colours * (1 if levels == 2 else levels), colours)

    @property
    def _grid(self) -> tuple[int, int, int]:
        return grid(self.spec.shape)

    def __call__(self, x: Array, features: Array) -> Array:
        return self.row(x, self.above(x, features), features)

    def above(self, x: Array, features: Array) -> list[Array]:
        """The vertical stack's contributions to the horizontal one, [rows, H, W, any] a layer."""
        v, features, above = self._inputs(x), _rows_first(features), []
        for layer in self.gated:
            v, from_above = layer.vertical(v, features)
            above.append(from_above)
        return above

    def row(self, x: Array, above: list[Array], features: Array) -> Array:
        """The logits of all rows of the image, or of one.

        Args:
          x: [*any, D'], the values of these rows alone.
          above: the result of the method `above`, cut to these rows.
          features: of z, cut to these rows, [*any, H', W, F].

        Returns:
          [*any, D'] or [*any, D', levels].
        """
        h, features = self._inputs(x), _rows_first(features)
        for layer, from_above in zip(self.gated, above, strict=True):
            h = layer.horizontal(h, from_above, features)
        logits = self.logits(jax.nn.relu(self.hidden(jax.nn.relu(h))))
        return logits.reshape(x.shape if self.spec.levels == 2 else (*x.shape, self.spec.levels))

    def _inputs(self, x: Array) -> Array:
        """Values [*any, D'] scaled to [-1, 1], [rows, H', W, colours]."""
        _, width, colours = self._grid
        return (2 * x - 1).reshape(-1, x.shape[-1] // (width * colours), width, colours)


def _rows_first(features: Array) -> Array:
    """[*any, H', W, F] -> [rows, H', W, F]."""
    return features.reshape(-1, *features.shape[-3:])
