"""Single convolutions by PyTorch's eager functions, for `benchmarks.convolutions`."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from elbo_lab.devices import setup


def turns(layer: Any, backward: bool, calls: int) -> Callable[[], float]:
    """A function that returns the seconds of a call, of `calls` calls in a loop.

    Args:
      layer: a `benchmarks.convolutions.Convolution`.
      backward: True for the layer with its gradient.
      calls: of a turn.
    """
    torch.set_num_threads(setup.cores())
    (up, down), (left, right) = layer.padding
    rows, height, width, channels = layer.x
    x = torch.ones(rows, channels, height, width).contiguous(memory_format=torch.channels_last)
    order = (2, 3, 0, 1) if layer.transposed else (3, 2, 0, 1)
    kernel = torch.ones(layer.kernel).permute(order) / np.prod(layer.kernel)
    for array in (x, kernel):
        array.requires_grad_(backward)

    def apply() -> torch.Tensor:
        if layer.transposed:
            return F.conv_transpose2d(x, kernel, stride=2, padding=1)
        return F.conv2d(F.pad(x, (left, right, up, down)), kernel, stride=layer.stride)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            y = apply()
            if backward:
                torch.autograd.grad(y, (x, kernel), y.detach())
        return (time.perf_counter() - start) / calls

    turn()
    return turn
