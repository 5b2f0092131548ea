"""PixelRNN, an exact p(x) = prod_d p(x_d | x_<d) by two-dimensional LSTMs (van den Oord et al.
2016a).
"""

import dataclasses

from elbo_lab.data.dataset import Spec
from elbo_lab.models import common, raster
from elbo_lab.models.base import Density
from elbo_lab.models.networks.pixelrnn import RNNS, ROW, PixelRNN
from elbo_lab.options import option


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
    kernel_size: int = option(3, "of the row LSTM's convolutions, odd", least=3, most=99)
    first_kernel_size: int = option(7, "of the first convolution, odd", least=3, most=99)
    output_width: int = common.output_width_option()
    embedding_dim: int = common.token_embedding_option()
    condition: str = common.condition_option()


def make(options: PixelRNNOptions, spec: Spec) -> Density:
    """An exact density of images with levels, or of tokens, by `raster.make`."""
    return raster.make("pixelrnn", PixelRNN, options, spec)
