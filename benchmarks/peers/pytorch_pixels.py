"""PyTorch eager: PixelCNN of images and of codes, and PixelVAE."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.common import Task
from benchmarks.peers.pytorch_layers import (
    Built,
    ConvGaussian,
    LatentUp,
    cross_entropy,
    drawn,
    image,
    parameter,
    pixelwise,
)
from elbo_lab.models.pixelcnn import PixelCNNOptions
from elbo_lab.models.pixelvae import PixelVAEOptions


class GatedLayer(nn.Module):
    """One layer of the vertical and the horizontal stack, with cropped kernels."""

    def __init__(self, task: Task, path: str, first: bool):
        super().__init__()
        self.above_kernel, self.above_bias = self._kernel(task, f"{path}/above")
        self.left_kernel, self.left_bias = self._kernel(task, f"{path}/left")
        self.across, self.out = pixelwise(task, f"{path}/across"), pixelwise(task, f"{path}/out")
        self.first = first
        self.radius = self.left_kernel.shape[-1] - 1
        # The first layer does not see the pixel itself.
        mask = torch.ones_like(self.left_kernel)
        mask[..., -1] = 0
        self.register_buffer("mask", mask, persistent=False)

    def _kernel(self, task: Task, path: str) -> tuple[nn.Parameter, nn.Parameter]:
        kernel, bias = task.layer(path)
        return parameter(kernel.transpose(3, 2, 0, 1)), parameter(bias)

    def forward(
        self, v: Tensor, h: Tensor, beside: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the vertical features before their gate, and the horizontal features.

        Args:
          v, h: features of both stacks.
          beside: what is added to the features of both, before their gates.
        """
        # A padded copy costs less than padding on both sides and cropping the output. The first
        # layer's vertical features must not see their own row: its input lacks the last row.
        r, bottom = self.radius, -1 if self.first else 0
        above = F.conv2d(F.pad(v, (r, r, r, bottom)), self.above_kernel, self.above_bias)
        kernel = self.left_kernel * self.mask if self.first else self.left_kernel
        left = F.conv2d(F.pad(h, (r, 0)), kernel, self.left_bias)
        if beside is not None:
            above, left = above + beside[0], left + beside[1]
        update = self.out(gate(left + self.across(above)))
        return above, update if self.first else h + update


def gate(x: Tensor) -> Tensor:
    """tanh(a) sigmoid(b), with a and b the halves of the channels."""
    # Contiguous halves, since element-wise kernels are slow on slices of channels_last tensors.
    a, b = (half.contiguous(memory_format=torch.channels_last) for half in x.chunk(2, dim=1))
    return torch.tanh(a) * torch.sigmoid(b)


class Stacks(nn.Module):
    """The gated layers and both output layers: inputs [B, C, H, W] -> logits [B, levels', H, W].

    Args:
      path: "" or, of a network inside of a model, its path with a slash at the end.
      layers: gated layers.
    """

    def __init__(self, task: Task, path: str, layers: int):
        super().__init__()
        self.gated = nn.ModuleList(
            [GatedLayer(task, f"{path}gated_{i}", first=i == 0) for i in range(layers)]
        )
        self.hidden, self.logits = (pixelwise(task, path + name) for name in ("hidden", "logits"))

    def forward(self, x: Tensor, beside: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        v = h = x
        for i, layer in enumerate(self.gated):
            # The image has no gate. The last layer's vertical features are not used.
            v, h = layer(gate(v) if i else v, h, beside[i] if beside else None)
        return self.logits(F.relu(self.hidden(F.relu(h)), inplace=True))


class PixelCNN(nn.Module):
    """x [B, 784] -> logits [B, 784]; each depends on the pixels before it."""

    def __init__(self, task: Task):
        super().__init__()
        self.stacks = Stacks(task, "", PixelCNNOptions().layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.stacks(image(2 * x - 1)).flatten(1)


class CodePixelCNN(nn.Module):
    """Codes [B, side^2] -> logits [B, side^2, levels]; each depends on the codes before it."""

    def __init__(self, task: Task):
        super().__init__()
        table = task.arrays["params/embedding/embedding"]
        self.embedding = nn.Embedding(*table.shape, _weight=torch.from_numpy(table.copy()))
        self.stacks = Stacks(task, "", PixelCNNOptions().layers)

    def forward(self, codes: Tensor) -> Tensor:
        side = math.isqrt(codes.shape[1])
        vectors = self.embedding(codes).view(len(codes), side, side, -1)
        return self.stacks(vectors.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)


class PixelVAE(nn.Module):
    """q(z|x), and p(x|z) by gated layers whose gates see features of z at each pixel."""

    def __init__(self, task: Task):
        super().__init__()
        layers = PixelVAEOptions().layers
        self.encoder = ConvGaussian(task)
        self.latent_dim = self.encoder.mean.out_features
        self.up = LatentUp(task, "decoder/latents", "features")
        self.stacks = Stacks(task, "decoder/pixels/", layers)
        self.beside = nn.ModuleList(
            [
                unbiased(task, f"decoder/pixels/gated_{i}/features_{stack}")
                for i in range(layers)
                for stack in ("above", "left")
            ]
        )

    def features(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the gates of each layer see of z [B, 50]."""
        features = self.up(z)
        outputs = [layer(features) for layer in self.beside]
        return list(zip(outputs[::2], outputs[1::2], strict=True))

    def logits(self, x: Tensor, features: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Logits [B, 784] of images x [B, 784] given z."""
        return self.stacks(image(2 * x - 1), features).flatten(1)

    def loss(self, x: Tensor) -> Tensor:
        """Minus the ELBO by one draw of z."""
        z, kl = drawn(*self.encoder(x))
        return cross_entropy(self.logits(x, self.features(z)), x) + kl


def unbiased(task: Task, path: str) -> nn.Conv2d:
    """A linear layer of each pixel without a bias."""
    kernel = task.arrays[f"params/{path}/kernel"]
    layer = nn.Conv2d(*kernel.shape, 1, bias=False)
    layer.weight = parameter(kernel.T[:, :, None, None])
    return layer


def pixelcnn(task: Task) -> Built:
    """PixelCNN, trained by -log p(x)."""
    network = PixelCNN(task)

    def loss(x: Tensor) -> Tensor:
        return cross_entropy(network(x), x)

    return Built(network, loss, loss)


def pixelvae(task: Task) -> Built:
    """PixelVAE, trained by the ELBO."""
    module = PixelVAE(task)
    return Built(module, module.loss, module.loss)
