"""PixelRNN, an exact p(x) = prod_d p(x_d | x_<d) by two-dimensional LSTMs (van den Oord et al.
2016a).
"""

import dataclasses

from elbo_lab.data.dataset import Spec
from elbo_lab.models import common, conditions, raster
from elbo_lab.models.base import Density
from elbo_lab.models.networks.pixelrnn import RNNS, ROW, PixelRNN
from elbo_lab.options import option, values_of


@dataclasses.dataclass(frozen=True)
class PixelRNNOptions:
    """Settings of `--model=pixelrnn`."""

    rnn: str = option(
        ROW,
        "row LSTM, or diagonal BiLSTM, which sees the whole image above and takes longer",
        RNNS,
    )
    width: int = option(16, "of an LSTM's state; layers have twice as many features", least=1)
    layers: int = option(3, "LSTMs", least=1, most=100)
    kernel_size: int = option(3, "of the row LSTM's convolutions, odd", least=3, most=99, odd=True)
    first_kernel_size: int = option(7, "of the first convolution, odd", least=3, most=99, odd=True)
    output_width: int = common.output_width_option()
    embedding_dim: int = common.token_embedding_option()
    condition: str = common.condition_option()


def make(options: PixelRNNOptions, spec: Spec) -> Density:
    """An exact density of images with levels, or of tokens; p(x|y) if it is conditioned on labels.

    Args:
      options: the family's settings.
      spec: of kind "image" or "token", with levels, of one to three axes.

    Raises:
      ValueError: as `pixelcnn.make`.
    """
    raster.check("pixelrnn", options, spec)
    classes = conditions.num_classes(options, spec)
    sizes = values_of(options)
    del sizes["condition"]
    return raster.density(PixelRNN(spec, **sizes), spec, classes)
