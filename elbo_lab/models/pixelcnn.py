"""Gated PixelCNN, an exact p(x) = prod_d p(x_d | x_<d) (van den Oord et al. 2016b)."""

import dataclasses

from elbo_lab.data.dataset import Spec
from elbo_lab.models import common, conditions, raster
from elbo_lab.models.base import Density
from elbo_lab.models.networks.latent_pixels import FeaturePixels
from elbo_lab.models.networks.levels import TokensAbove
from elbo_lab.models.networks.masked import GatedPixelCNN, gradient_batch
from elbo_lab.models.networks.pixels import grid
from elbo_lab.options import option, values_of


@dataclasses.dataclass(frozen=True)
class PixelCNNOptions:
    """Settings of `--model=pixelcnn`."""

    width: int = common.gated_width_option()
    layers: int = option(7, "gated layers", least=1, most=100)
    kernel_size: int = option(3, "of the layers after the first, odd", least=3, most=99, odd=True)
    first_kernel_size: int = option(7, "of the first layer, odd", least=3, most=99, odd=True)
    output_width: int = common.output_width_option()
    embedding_dim: int = common.token_embedding_option()
    condition: str = common.condition_option()


def make(options: PixelCNNOptions, spec: Spec) -> Density:
    """An exact density of images with levels, or of tokens; p(x|y) if it is conditioned on labels.

    Codes whose levels above are the data's context have the density p(x|context): embeddings of the
    codes above, taken to x's grid by `networks.levels.FromAbove`, enter every gate.

    Args:
      options: the family's settings.
      spec: of kind "image" or "token", with levels, of one to three axes.

    Raises:
      ValueError: the data have no levels or too many axes, a kernel size is even, a width is below
        the number of channels, or the model is conditioned on labels that the data lack, or on
        labels and a context.
    """
    raster.check("pixelcnn", options, spec)
    classes = conditions.num_classes(options, spec)
    sizes = values_of(options)
    del sizes["condition"]
    if spec.context:
        if classes is not None:
            raise ValueError(
                "condition=label does not go with codes that are given those of the levels above; "
                "use condition=none."
            )
        above = TokensAbove(
            spec.context, grid(spec.shape)[:2], options.width, options.embedding_dim
        )
        density = raster.density_given_context(FeaturePixels(spec, **sizes), above, spec)
    else:
        density = raster.density(GatedPixelCNN(spec, **sizes), spec, classes)
    return density._replace(gradient_batch=gradient_batch(spec, options.width))
