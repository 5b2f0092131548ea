"""LSTMs over the two dimensions of an image (van den Oord et al. 2016a, "Pixel recurrent neural
networks").

What an LSTM computes from its inputs is one convolution over the whole image; what it computes from
its own states is a scan over rows (row LSTM) or diagonals (diagonal BiLSTM). States outside of the
image are zero. As in `networks.masked`, layers are computed for whole images or in steps, row by
row and pixel by pixel, and only the channels of the pixel itself need a mask.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.models.networks.convolutions import convolve
from elbo_lab.models.networks.masked import Left, class_biases
from elbo_lab.models.networks.mlp import GLOROT
from elbo_lab.models.networks.pixels import moved_on


class Cell(NamedTuple):
    """The state of an LSTM; both [..., width]."""

    h: Array  # the output
    c: Array  # the memory


def lstm(gates: Array, c: Array) -> Cell:
    """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').

    Args:
      gates: [..., 4 * width], the sums o, f, i and g in this order.
      c: [..., width], the memory before.
    """
    o, f, i, g = jnp.split(gates, 4, axis=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * jnp.tanh(g)
    return Cell(_sigmoid(o) * jnp.tanh(c), c)


def _sigmoid(x: Array) -> Array:
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)  # tanh costs the least on a CPU


def _at(x: Array, column: Array | int) -> Array:
    """A column of [N, W, F], [N, F]."""
    return jax.lax.dynamic_index_in_dim(x, column, axis=1, keepdims=False)


def _put(x: Array, value: Array, column: Array | int) -> Array:
    """[N, W, F] with a column replaced by [N, F]."""
    return jax.lax.dynamic_update_index_in_dim(x, value, column, axis=1)


class Gates(nn.Module):
    """What inputs and the label add to the four gates of an LSTM: [rows, H, W, 4 * width]."""

    width: int
    radius: int
    channels: int

    def setup(self):
        self.left = Left(self.width, self.radius, self.channels, first=False, parts=4)
        self.label_left = class_biases(4 * self.width, "label_left")

    def __call__(self, x: Array, label: Array | None, before: Array | None = None) -> Array:
        gates = self.left(x, before)
        return gates if label is None else gates + self.label_left(label)


class RowState(NamedTuple):
    """What a row LSTM keeps between pixels: to the left of the next pixel `cell` is of its row, and
    from that pixel on of the row above.
    """

    cell: Cell  # [N, W, width]
    across: Array  # what the row above adds to the gates, [N, W, 4 * width]
    left: Array  # inputs to the left, [N, 1, radius, inputs]


class RowLSTM(nn.Module):
    """An LSTM from row to row: [rows, H, W, inputs] -> h [rows, H, W, width].

        gates_i = x_i * K_x + h_{i-1} * K_h
        c_i, h_i = lstm(gates_i, c_{i-1})

    for row i, where * is a convolution along the row. K_x sees the pixel and `radius` pixels to its
    left, K_h the pixel above and `radius` pixels on either side of it (their section 3.1).
    """

    width: int
    radius: int
    channels: int

    def setup(self):
        self.gates = Gates(self.width, self.radius, self.channels)
        shape = (2 * self.radius + 1, self.width, 4 * self.width)
        self.kernel = self.param("kernel", GLOROT, shape)

    def __call__(self, x: Array, label: Array | None) -> Array:
        across = self._across()

        def next_row(cell: Cell, gates: Array) -> tuple[Cell, Array]:
            cell = lstm(gates + across(cell.h), cell.c)
            return cell, cell.h

        start = jnp.zeros((x.shape[0], x.shape[2], self.width))
        rows = jnp.moveaxis(self.gates(x, label), 1, 0)
        _, h = jax.lax.scan(next_row, Cell(start, start), rows)
        return jnp.moveaxis(h, 0, 1)

    def _across(self) -> Callable[[Array], Array]:
        """The convolution h [N, W, width] -> [N, W, 4 * width]; a function of arrays alone."""
        kernel, radius = self.kernel[None], self.radius
        return lambda h: convolve(h[:, None], kernel, ((0, 0), (radius, radius)))[:, 0]

    def start(self, number: int, columns: int, inputs: int) -> RowState:
        """The state before the first row."""
        zeros = jnp.zeros((number, columns, self.width))
        across = jnp.zeros((number, columns, 4 * self.width))
        left = jnp.zeros((number, 1, self.radius, inputs))
        return RowState(Cell(zeros, zeros), across, left)

    def new_row(self, state: RowState, row: Array | int, label: Array | None) -> RowState:
        """The state before the first pixel of a row."""
        across = self._across()(state.cell.h)
        return state._replace(across=across, left=jnp.zeros_like(state.left))

    def pixel(
        self, state: RowState, x: Array, column: Array | int, label: Array | None
    ) -> tuple[Array, RowState]:
        """h of a pixel, [N, 1, 1, width], from its inputs [N, 1, 1, inputs]; and the next state."""
        gates = self.gates(x, label, state.left)[:, 0, 0] + _at(state.across, column)
        own = lstm(gates, _at(state.cell.c, column))
        cell = jax.tree.map(lambda old, new: _put(old, new, column), state.cell, own)
        left = moved_on(state.left, x, axis=2)
        return own.h[:, None, None], state._replace(cell=cell, left=left)


class DiagonalLSTM(nn.Module):
    """An LSTM from the upper left corner: [rows, H, W, inputs] -> h [rows, H, W, width].

        gates_ij = K_x x_ij + K_h h_{i,j-1} + K_u h_{i-1,j}
        c_ij, h_ij = lstm(gates_ij, c_{i,j-1})

    The pixels of a diagonal, i + j = k, do not depend on each other, so that the scan goes over the
    H + W - 1 diagonals (their section 3.2).
    """

    width: int
    channels: int

    def setup(self):
        self.gates = Gates(self.width, 0, self.channels)
        shape = (2, self.width, 4 * self.width)
        self.kernel = self.param("kernel", GLOROT, shape)  # [K_u, K_h]

    def __call__(self, x: Array, label: Array | None) -> Array:
        _, height, width, _ = x.shape
        kernel = self.kernel.reshape(2 * self.width, 4 * self.width)
        # [diagonal, row, 1]: whether their pixel lies in the image.
        column = np.arange(height + width - 1)[:, None, None] - np.arange(height)[:, None]
        is_inside = (column >= 0) & (column < width)

        def next_diagonal(cell: Cell, inputs: tuple[Array, Array]) -> tuple[Cell, Array]:
            gates, is_inside = inputs
            above = jnp.pad(cell.h[:, :-1], ((0, 0), (1, 0), (0, 0)))
            states = jnp.concatenate([above, cell.h], axis=-1)  # h_{i-1,j}, h_{i,j-1}
            cell = lstm(gates + states @ kernel, cell.c)
            cell = jax.tree.map(lambda array: jnp.where(is_inside, array, 0), cell)
            return cell, cell.h

        start = jnp.zeros((x.shape[0], height, self.width))
        diagonals = jnp.moveaxis(skew(self.gates(x, label)), 2, 0)
        _, h = jax.lax.scan(next_diagonal, Cell(start, start), (diagonals, jnp.asarray(is_inside)))
        return unskew(jnp.moveaxis(h, 0, 2), width)

    def row(self, x: Array, above: Array, label: Array | None) -> Array:
        """h of one row, [N, W, width], from its inputs [N, 1, W, inputs] and h of the row above."""
        gates = self.gates(x, label)[:, 0] + self.from_above(above)
        kernel = self.kernel[1]

        def next_pixel(cell: Cell, gates: Array) -> tuple[Cell, Array]:
            cell = lstm(gates + cell.h @ kernel, cell.c)
            return cell, cell.h

        start = jnp.zeros((x.shape[0], self.width))
        _, h = jax.lax.scan(next_pixel, Cell(start, start), jnp.moveaxis(gates, 1, 0))
        return jnp.moveaxis(h, 0, 1)

    def from_above(self, h: Array) -> Array:
        """What the row above [N, W, width] adds to the gates."""
        return h @ self.kernel[0]

    def pixel(self, x: Array, from_above: Array, left: Cell, label: Array | None) -> Cell:
        """The state at one pixel, [N, width], from its inputs [N, 1, 1, inputs]."""
        gates = self.gates(x, label)[:, 0, 0] + from_above + left.h @ self.kernel[1]
        return lstm(gates, left.c)


class DiagonalState(NamedTuple):
    """What a diagonal BiLSTM keeps between pixels: to the left of the next pixel `inputs` and `h`
    are of its row, and from that pixel on of the row above.
    """

    inputs: Array  # [N, 1, W, inputs]
    h: Array  # of the LSTM from the left, [N, W, width]
    right: Array  # h of the LSTM from the right in the row above, [N, W, width]
    from_above: Array  # what h of the row above adds to the gates, [N, W, 4 * width]
    left: Cell  # of the LSTM from the left at the pixel to the left, [N, width]


class DiagonalBiLSTM(nn.Module):
    """LSTMs from the upper left and from the upper right corner:
    [rows, H, W, inputs] -> [rows, H, W, width].

        h_ij = left_ij + right_{i-1,j}

    The LSTM from the right runs over the mirrored image. It sees the pixels to the right in its own
    row, so that it is moved down by a row. Together they see the inputs of all pixels to the left
    and of all rows above. If the inputs of a pixel leave the pixel itself out, one pixel is seen by
    the first convolution alone: the last of the row above.
    """

    width: int
    channels: int

    def setup(self):
        self.left = DiagonalLSTM(self.width, self.channels)
        self.right = DiagonalLSTM(self.width, self.channels)

    def __call__(self, x: Array, label: Array | None) -> Array:
        right = mirrored(self.right(mirrored(x), label))
        return self.left(x, label) + jnp.pad(right[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))

    def start(self, number: int, columns: int, inputs: int) -> DiagonalState:
        """The state before the first row."""
        h = jnp.zeros((number, columns, self.width))
        left = jnp.zeros((number, self.width))
        return DiagonalState(
            inputs=jnp.zeros((number, 1, columns, inputs)),
            h=h,
            right=h,
            from_above=jnp.zeros((number, columns, 4 * self.width)),
            left=Cell(left, left),
        )

    def new_row(self, state: DiagonalState, row: Array | int, label: Array | None) -> DiagonalState:
        """The state before the first pixel of a row."""
        above = self.right.row(mirrored(state.inputs), state.right[:, ::-1], label)[:, ::-1]
        return state._replace(
            right=jnp.where(row > 0, above, 0),  # there is no row above the first
            from_above=self.left.from_above(state.h),
            left=jax.tree.map(jnp.zeros_like, state.left),
        )

    def pixel(
        self, state: DiagonalState, x: Array, column: Array | int, label: Array | None
    ) -> tuple[Array, DiagonalState]:
        """h of a pixel, [N, 1, 1, width], from its inputs [N, 1, 1, inputs]; and the next state."""
        own = self.left.pixel(x, _at(state.from_above, column), state.left, label)
        h = own.h + _at(state.right, column)
        inputs = jax.lax.dynamic_update_slice_in_dim(state.inputs, x, column, axis=2)
        state = state._replace(inputs=inputs, h=_put(state.h, own.h, column), left=own)
        return h[:, None, None], state


def mirrored(x: Array) -> Array:
    """Images [N, H, W, F] with left and right exchanged."""
    return x[:, :, ::-1]


def skew(x: Array) -> Array:
    """Images [N, H, W, F] with row i moved by i columns, [N, H, H + W - 1, F]; zeros elsewhere."""
    number, height, width, features = x.shape
    # Each row of W + H columns begins one column later in rows of W + H - 1 columns.
    x = jnp.pad(x, ((0, 0), (0, 0), (0, height), (0, 0))).reshape(number, -1, features)
    return x[:, :-height].reshape(number, height, height + width - 1, features)


def unskew(x: Array, width: int) -> Array:
    """The images of `skew`, [N, H, W, F]."""
    number, height, _, features = x.shape
    x = jnp.pad(x.reshape(number, -1, features), ((0, 0), (0, height), (0, 0)))
    return x.reshape(number, height, height + width, features)[:, :, :width]
