"""PixelRNN (van den Oord et al. 2016a, "Pixel recurrent neural networks").

A convolution that leaves the pixel itself out, layers of LSTMs with residual connections, and two
1 x 1 layers. The network is computed for whole images or in steps, as `networks.masked` says.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.models.networks.masked import Above, Left, Masked1x1, RasterNetwork
from elbo_lab.models.networks.pixels import label_rows, neighbours, row_of
from elbo_lab.models.networks.recurrent import DiagonalBiLSTM, RowLSTM

ROW, DIAGONAL = RNNS = ("row", "diagonal")


class ResidualLSTM(nn.Module):
    """x + W h(x), h an LSTM's output and W a masked 1 x 1 layer (their figure 5)."""

    rnn: str
    width: int
    radius: int
    channels: int

    def setup(self):
        if self.rnn == ROW:
            self.lstm = RowLSTM(self.width, self.radius, self.channels)
        else:
            self.lstm = DiagonalBiLSTM(self.width, self.channels)
        self.out = Masked1x1(2 * self.width, self.channels)

    def __call__(self, x: Array, label: Array | None) -> Array:
        return x + self.out(self.lstm(x, label))

    def start(self, number: int, columns: int) -> Any:
        """The state before the first row."""
        return self.lstm.start(number, columns, 2 * self.width)

    def new_row(self, state: Any, row: Array | int, label: Array | None) -> Any:
        """The state before the first pixel of a row."""
        return self.lstm.new_row(state, row, label)

    def pixel(
        self, state: Any, x: Array, column: Array | int, label: Array | None
    ) -> tuple[Array, Any]:
        """Outputs for one pixel, and the next state."""
        h, state = self.lstm.pixel(state, x, column, label)
        return x + self.out(h), state


class PixelState(NamedTuple):
    """What a PixelRNN keeps between pixels."""

    above: Array | None  # what the rows above add to the first layer, [N, 1, W, 2 * width]
    layers: list[Any]  # the state of each LSTM


class PixelRNN(RasterNetwork):
    """PixelRNN: values [*any, D] -> logits [*any, D], or [*any, D, levels] for levels > 2.

    The logits at d are those of x_d given x_1, ..., x_{d-1}, and given the label if there is one,
    which adds a bias of its class to the gates. Labels, and the steps `start`, `new_row` and
    `pixel`, are as in `networks.masked.GatedPixelCNN`.

    Args:
      width: of an LSTM's state; layers have twice as many features.
      layers: LSTMs.
      kernel_size: of the row LSTM's convolutions.
      rnn: one of `RNNS`; the others are those of `RasterNetwork`.
    """

    rnn: str = ROW

    def setup(self):
        super().setup()
        channels, radius = self._grid[2], self.first_kernel_size // 2
        self.above = Above(2 * self.width, radius, first=True)
        self.left = Left(2 * self.width, radius, channels, first=True, parts=1)
        self.recurrent = [
            ResidualLSTM(self.rnn, self.width, self.kernel_size // 2, channels)
            for _ in range(self.layers)
        ]

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        label, inputs = label_rows(label, x), self._inputs(x)
        features = self.left(inputs)
        if self._grid[0] > 1:
            features = features + self.above(inputs)
        for layer in self.recurrent:
            features = layer(features, label)
        return self._outputs(features, x)

    def start(self, x: Array) -> PixelState:
        """The state before the first row; see `networks.masked.GatedPixelCNN.start`."""
        number, (height, columns, _) = math.prod(x.shape[:-1]), self._grid
        above = jnp.zeros((number, 1, columns, 2 * self.width)) if height > 1 else None
        return PixelState(above, [layer.start(number, columns) for layer in self.recurrent])

    def new_row(
        self, state: PixelState, x: Array, row: Array | int, label: Array | None = None
    ) -> PixelState:
        """The state before a row's first pixel; see `networks.masked.GatedPixelCNN.new_row`."""
        label, above = label_rows(label, x), None
        if self._grid[0] > 1:
            before, own = neighbours(self._inputs(x), row, self.above.radius, axis=1)
            above = self.above(own, before)
        pairs = zip(self.recurrent, state.layers, strict=True)
        return PixelState(above, [layer.new_row(own, row, label) for layer, own in pairs])

    def pixel(
        self,
        state: PixelState,
        x: Array,
        row: Array | int,
        column: Array | int,
        label: Array | None = None,
    ) -> tuple[Array, PixelState]:
        """A pixel's logits, and the next state; see `networks.masked.GatedPixelCNN.pixel`."""
        inputs, label = self._inputs(row_of(x, row, self._grid)), label_rows(label, x)
        before, own = neighbours(inputs, column, self.left.radius, axis=2)
        features = self.left(own, before)
        if state.above is not None:
            features = features + jax.lax.dynamic_slice_in_dim(state.above, column, 1, axis=2)
        layers = []
        for layer, old in zip(self.recurrent, state.layers, strict=True):
            features, new = layer.pixel(old, features, column, label)
            layers.append(new)
        return self._outputs(features, x), state._replace(layers=layers)
