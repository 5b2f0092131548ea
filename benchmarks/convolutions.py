"""Measures single convolutions of our models, alone and with their gradient, against PyTorch's:

    python -m benchmarks.convolutions

Ours are those of `elbo_lab.models.networks.convolutions` in a compiled loop, as a training step has
them; PyTorch's have channels_last arrays, and both take turns. The extra `peers` has PyTorch.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks import peers
from benchmarks.workers import in_turns
from elbo_lab.cli import run_flags
from elbo_lab.models.networks.convolutions import Padding, conv2d_transpose, convolve

ROUNDS, SECONDS = 9, 0.2  # alternations, and about the length of a turn
PLANNED = 50e9  # floating-point operations per second by which the calls of a turn are planned


class Convolution(NamedTuple):
    """The shapes of a layer."""

    label: str
    x: tuple[int, int, int, int]  # [rows, H, W, C]
    kernel: tuple[int, int, int, int]  # [M, N, C, F]
    padding: Padding = ((1, 1), (1, 1))
    stride: int = 1
    transposed: bool = False


CONVOLUTIONS = (
    Convolution("PixelCNN, rows above", (8, 28, 28, 16), (2, 3, 16, 32), ((1, 0), (1, 1))),
    Convolution("PixelCNN, left of the row", (8, 28, 28, 16), (1, 2, 16, 32), ((0, 0), (1, 0))),
    Convolution("VQ-VAE, halving", (128, 14, 14, 32), (4, 4, 32, 64), stride=2),
    Convolution("VQ-VAE, 3 x 3", (128, 7, 7, 64), (3, 3, 64, 64)),
    Convolution("VQ-VAE, doubling", (128, 7, 7, 64), (4, 4, 64, 32), transposed=True),
)


def ours(layer: Convolution, x: Array, kernel: Array) -> Array:
    """The layer as our networks compute it."""
    if layer.transposed:
        return conv2d_transpose(x, kernel, (2 * x.shape[1], 2 * x.shape[2]))
    return convolve(x, kernel, layer.padding, layer.stride)


def our_turn(layer: Convolution, backward: bool, calls: int) -> Callable[[], float]:
    """A function that returns the seconds of a call, of `calls` calls in a compiled loop."""
    apply = functools.partial(ours, layer)

    def body(arrays: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        if backward:
            y, gradient = jax.vjp(apply, *arrays)
            changes = gradient(y)
        else:
            changes = (apply(*arrays)[0, 0, 0, 0],) * 2
        # The next call depends on all that this one computes.
        return jax.tree.map(lambda a, change: a + 1e-9 * change, arrays, changes), None

    loop = jax.jit(lambda arrays: lax.scan(body, arrays, length=calls)[0])
    arrays = jnp.ones(layer.x), jnp.ones(layer.kernel) / np.prod(layer.kernel)
    jax.block_until_ready(loop(arrays))  # compiles

    def turn() -> float:
        start = time.perf_counter()
        jax.block_until_ready(loop(arrays))
        return (time.perf_counter() - start) / calls

    return turn


def main() -> int:
    """Prints milliseconds of each layer, medians over rounds."""
    peers.require("torch", "benchmarks.convolutions")
    from benchmarks.peers import pytorch_convolutions

    print(f"ms: ours, PyTorch's   {'forward':>20} {'with the gradient':>22}   ours over it")
    for layer in CONVOLUTIONS:
        outputs = np.prod(layer.x[:3]) / layer.stride**2
        calls = max(1, int(SECONDS * PLANNED / (6 * outputs * np.prod(layer.kernel))))
        turns = [
            make(layer, backward, calls)
            for backward in (False, True)
            for make in (our_turn, pytorch_convolutions.turns)
        ]
        seconds = in_turns(turns, ROUNDS)
        ms = 1e3 * np.median(seconds, axis=0)
        ratio = np.median(seconds[:, 3] / seconds[:, 2])
        print(
            f"{layer.label:26} {ms[0]:8.2f} {ms[1]:8.2f} {ms[2]:12.2f} {ms[3]:8.2f} {ratio:13.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    run_flags.run(main, __doc__)
