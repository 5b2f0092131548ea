"""PyTorch: layers with this library's parameters, and terms of a loss that several models share.

Images have the memory format channels_last, which is the faster one for these models.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.common import Task

SIDE = 28  # of the images, pixels


class Built(NamedTuple):
    """A model and its losses, in nats per example, as functions of a batch: binary images [B, 784]
    or tokens [B, T].
    """

    module: nn.Module
    train_loss: Callable[[Tensor], Tensor]  # also updates the module's state, if it has any
    eval_loss: Callable[[Tensor], Tensor]


def filled(module: nn.Module, weight, bias) -> nn.Module:
    """Copies parameters into a module, and returns it."""
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight.copy()))
        module.bias.copy_(torch.from_numpy(bias.copy()))
    return module


def parameter(array) -> nn.Parameter:
    """A parameter with an array's values."""
    return nn.Parameter(torch.from_numpy(array.copy()))


def conv(task: Task, path: str, stride: int = 1) -> nn.Conv2d:
    """A convolution with "SAME" padding."""
    kernel, bias = task.layer(path)
    height, _, inputs, features = kernel.shape
    layer = nn.Conv2d(inputs, features, height, stride, padding=(height - 1) // 2)
    return filled(layer, kernel.transpose(3, 2, 0, 1), bias)


def upsample(task: Task, path: str) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles height and width."""
    kernel, bias = task.layer(path)
    layer = nn.ConvTranspose2d(*kernel.shape[2:], 4, stride=2, padding=1)
    return filled(layer, kernel.transpose(2, 3, 0, 1), bias)


def pixelwise(task: Task, path: str) -> nn.Conv2d:
    """A linear layer that is applied to each pixel."""
    kernel, bias = task.layer(path)
    layer = nn.Conv2d(*kernel.shape, 1)
    return filled(layer, kernel.T[:, :, None, None], bias)


def linear(task: Task, path: str) -> nn.Linear:
    """A linear layer that is applied to vectors."""
    kernel, bias = task.layer(path)
    return filled(nn.Linear(*kernel.shape), kernel.T, bias)


def image(x: Tensor) -> Tensor:
    """[B, 784] as [B, 1, 28, 28]."""
    return x.view(-1, 1, SIDE, SIDE).contiguous(memory_format=torch.channels_last)


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, task: Task, path: str):
        super().__init__()
        self.conv_0, self.conv_1 = conv(task, f"{path}/conv_0"), conv(task, f"{path}/conv_1")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_1(F.relu(self.conv_0(F.relu(x)), inplace=True))


def residual_stack(task: Task, path: str) -> list[nn.Module]:
    """A 3 x 3 convolution, a residual block and a ReLU."""
    return [conv(task, f"{path}/conv"), Residual(task, f"{path}/block_0"), nn.ReLU(inplace=True)]


def down(task: Task, activation: type[nn.Module]) -> list[nn.Module]:
    """[B, 1, 28, 28] -> [B, 64, 7, 7]."""
    layers = [conv(task, f"encoder/trunk/down_{i}", stride=2) for i in (0, 1)]
    return [layers[0], activation(), layers[1], activation()]


class Up(nn.Module):
    """[B, 64, 7, 7] -> [B, features, 28, 28], with a bias for each of these values.

    Args:
      path: of the decoder in our parameters.
      head: the name of its last layer.
    """

    def __init__(self, task: Task, path: str, head: str, activation: type[nn.Module]):
        super().__init__()
        self.up, self.activation = upsample(task, f"{path}/trunk/up_1"), activation()
        kernel, bias = task.layer(f"{path}/{head}")
        self.kernel = parameter(kernel.transpose(2, 3, 0, 1))
        self.bias = parameter(bias.reshape(SIDE, SIDE, -1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.up(x))
        y = F.conv_transpose2d(h, self.kernel, stride=2, padding=1)
        # The bias has the order of channels_last, too.
        return y + self.bias.permute(2, 0, 1)


class ConvGaussian(nn.Module):
    """x [B, 784] -> mean and log standard deviation, [B, 50] each."""

    def __init__(self, task: Task):
        super().__init__()
        self.trunk = nn.Sequential(*down(task, nn.Tanh))
        self.mean, self.log_std = linear(task, "encoder/mean"), linear(task, "encoder/scale")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(image(x)).permute(0, 2, 3, 1).flatten(1)
        return self.mean(h), self.log_std(h)


class LatentUp(nn.Module):
    """z [B, 50] -> [B, features, 28, 28]; the arguments are those of `Up`."""

    def __init__(self, task: Task, path: str, head: str):
        super().__init__()
        self.grid, self.up = linear(task, f"{path}/grid"), Up(task, path, head, nn.Tanh)

    def forward(self, z: Tensor) -> Tensor:
        grid = torch.tanh(self.grid(z))
        return self.up(grid.view(len(z), SIDE // 4, SIDE // 4, -1).permute(0, 3, 1, 2))


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Minus log p(x): the sum over pixels, the mean over the batch."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def drawn(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """A draw z from q(z|x), and the mean over the batch of log q(z|x) - log p(z), nats."""
    eps = torch.randn_like(mean)
    z = mean + log_std.exp() * eps
    # The constants of both densities cancel.
    return z, (0.5 * (z.square() - eps.square()) - log_std).sum(-1).mean()
