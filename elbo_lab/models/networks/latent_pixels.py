"""Gated masked convolutions over an image, given features at each of its pixels.

The features enter every gate of a gated PixelCNN by a 1 x 1 convolution (van den Oord et al. 2016b,
equation 5). Those of a latent z make the network of PixelVAE (Gulrajani et al. 2016), those of the
codes above the prior of a lower level of VQ-VAE-2 (Razavi et al. 2019).
"""

import jax
from jax import Array

from elbo_lab.models.networks.masked import GatedPixelCNN


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


class FeaturePixels(GatedPixelCNN):
    """`GatedPixelCNN` whose methods take features, [*any, H, W, F], in the place of a label.

    The logits at d depend on the features of all pixels within reach, before and after d.
    """

    _CONDITION = "features"

    def _condition(
        self,
        label: Array,
        x: Array,
        row: Array | int | None = None,
        column: Array | int | None = None,
    ) -> Array:
        """Features [*any, H, W, F] as [rows, H, W, F], of all pixels, of a row, or of a pixel."""
        features = label.reshape(-1, *label.shape[-3:])
        for axis, index in ((1, row), (2, column)):
            if index is not None:
                features = jax.lax.dynamic_slice_in_dim(features, index, 1, axis)
        return features


class LatentPixels(FeaturePixels):
    """`FeaturePixels` whose logits at d depend on those values before d alone that lie at most
    (receptive_field - 1) / 2 rows above, and columns to either side of, the pixel of d.

    Args:
      receptive_field: odd, at least 3; it takes the place of the kernel sizes.
      skip: True: the features enter the gates of every layer; False: of the first alone.
    """

    receptive_field: int = 3
    skip: bool = True

    @property
    def _radii(self) -> tuple[int, ...]:
        return radii(self.receptive_field, self.layers)

    def _sees_label(self, layer: int) -> bool:
        return self.skip or layer == 0
