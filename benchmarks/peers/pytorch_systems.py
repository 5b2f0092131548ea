"""PyTorch eager: the other model families, with the same layers as this library.

Images have the memory format channels_last, which is the faster one for these models.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.common import Peer, Task
from benchmarks.peers.pytorch import Batches, Weights, set_up, training_calls
from elbo_lab.models.pixelcnn import PixelCNNOptions
from elbo_lab.models.vqvae import VQVAEOptions

SIDE = 28  # of the images, pixels
SMOOTHING = 1e-5  # is divided equally among the codes, and added to their shares


class Built(NamedTuple):
    """A model and its losses, in nats per image, as functions of binary images [B, 784]."""

    module: nn.Module
    train_loss: Callable[[Tensor], Tensor]  # also updates the module's state, if it has any
    eval_loss: Callable[[Tensor], Tensor]


def filled(module: nn.Module, weight, bias) -> nn.Module:
    """Copies parameters into a module, and returns it."""
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight.copy()))
        module.bias.copy_(torch.from_numpy(bias.copy()))
    return module


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
    """[B, 64, 7, 7] -> logits [B, 784], with a bias for each pixel."""

    def __init__(self, task: Task, activation: type[nn.Module]):
        super().__init__()
        self.up, self.activation = upsample(task, "decoder/trunk/up_1"), activation()
        kernel, bias = task.layer("decoder/logits")
        self.kernel = nn.Parameter(torch.from_numpy(kernel.transpose(2, 3, 0, 1).copy()))
        self.bias = nn.Parameter(torch.from_numpy(bias.copy()))

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.up(x))
        return F.conv_transpose2d(h, self.kernel, stride=2, padding=1).flatten(1) + self.bias


class ConvGaussian(nn.Module):
    """x [B, 784] -> mean and log standard deviation, [B, 50] each."""

    def __init__(self, task: Task):
        super().__init__()
        self.trunk = nn.Sequential(*down(task, nn.Tanh))
        self.mean, self.log_std = linear(task, "encoder/mean"), linear(task, "encoder/scale")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(image(x)).permute(0, 2, 3, 1).flatten(1)
        return self.mean(h), self.log_std(h)


class LatentDecoder(nn.Module):
    """z [B, 50] -> logits [B, 784]."""

    def __init__(self, task: Task):
        super().__init__()
        self.grid, self.up = linear(task, "decoder/grid"), Up(task, nn.Tanh)

    def forward(self, z: Tensor) -> Tensor:
        grid = torch.tanh(self.grid(z))
        return self.up(grid.view(len(z), SIDE // 4, SIDE // 4, -1).permute(0, 3, 1, 2))


def conv_vae(task: Task) -> Built:
    """The convolutional VAE, trained by the IWAE bound with `task.k` draws."""
    weights = Weights(ConvGaussian(task), LatentDecoder(task))

    def loss(x: Tensor) -> Tensor:
        return -weights.bound(x, task.k)

    return Built(weights, loss, loss)


class BeliefNetwork(nn.Module):
    """One layer of binary units with linear conditionals p(x|z) and q(z|x)."""

    def __init__(self, task: Task):
        super().__init__()
        self.encoder = linear(task, "encoder/layer_1/logits")
        self.decoder = linear(task, "decoder/logits")
        self.top = nn.Parameter(torch.from_numpy(task.arrays["params/prior/top/logits"].copy()))

    def forward(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """x [B, 784] -> log w and log q(z|x) of k draws, [k, B] each."""
        logits = self.encoder(x).expand(k, -1, -1)
        with torch.no_grad():
            z = torch.bernoulli(torch.sigmoid(logits))
        log_qz_x = log_bernoulli(logits, z)
        log_pz = log_bernoulli(self.top.expand_as(z), z)
        log_px_z = log_bernoulli(self.decoder(z), x.expand(k, -1, -1))
        return log_px_z + log_pz - log_qz_x, log_qz_x


def log_bernoulli(logits: Tensor, value: Tensor) -> Tensor:
    """log p(value) of binary values [*batch, D] under logits of the same shape, [*batch]."""
    return -F.binary_cross_entropy_with_logits(logits, value, reduction="none").sum(-1)


def iwae_bound(log_w: Tensor) -> Tensor:
    """The IWAE bound of log-weights [k, *batch], [*batch]."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def vimco_loss(log_w: Tensor, log_qz_x: Tensor) -> Tensor:
    """A scalar with the gradient of minus the mean IWAE bound by VIMCO (Mnih and Rezende 2016).

    Draw k's signal is the bound minus the bound with log w_k replaced by the mean of the others.

    Args:
      log_w: [k, B], with its gradient.
      log_qz_x: log q(z_k|x), [k, B], with its gradient.
    """
    k, bound = len(log_w), iwae_bound(log_w)
    with torch.no_grad():
        others = (log_w.sum(0) - log_w) / (k - 1)
        is_replaced = torch.eye(k, dtype=torch.bool, device=log_w.device)[:, :, None]
        # [k, k, B]: column i has all log-weights, with the mean of the others in place of log w_i.
        replaced = torch.where(is_replaced, others, log_w[:, None])
        signal = bound - iwae_bound(replaced)
    return -(bound + (signal * log_qz_x).sum(0)).mean()


def belief_network(task: Task) -> Built:
    """The sigmoid belief network, trained by the IWAE bound with `task.k` draws and VIMCO."""
    network = BeliefNetwork(task)

    def train_loss(x: Tensor) -> Tensor:
        return vimco_loss(*network(x, task.k))

    def eval_loss(x: Tensor) -> Tensor:
        return -iwae_bound(network(x, task.k)[0]).mean()

    return Built(network, train_loss, eval_loss)


class GatedLayer(nn.Module):
    """One layer of the vertical and the horizontal stack, with cropped kernels."""

    def __init__(self, task: Task, index: int):
        super().__init__()
        path = f"gated_{index}"
        self.above_kernel, self.above_bias = self._kernel(task, f"{path}/above")
        self.left_kernel, self.left_bias = self._kernel(task, f"{path}/left")
        self.across, self.out = pixelwise(task, f"{path}/across"), pixelwise(task, f"{path}/out")
        self.first = index == 0
        self.radius = self.left_kernel.shape[-1] - 1
        # The first layer does not see the pixel itself.
        mask = torch.ones_like(self.left_kernel)
        mask[..., -1] = 0
        self.register_buffer("mask", mask, persistent=False)

    def _kernel(self, task: Task, path: str) -> tuple[nn.Parameter, nn.Parameter]:
        kernel, bias = task.layer(path)
        weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        return nn.Parameter(weight), nn.Parameter(torch.from_numpy(bias.copy()))

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the vertical features before their gate, and the horizontal features."""
        # A padded copy costs less than padding on both sides and cropping the output. The first
        # layer's vertical features must not see their own row: its input lacks the last row.
        r, bottom = self.radius, -1 if self.first else 0
        above = F.conv2d(F.pad(v, (r, r, r, bottom)), self.above_kernel, self.above_bias)
        kernel = self.left_kernel * self.mask if self.first else self.left_kernel
        left = F.conv2d(F.pad(h, (r, 0)), kernel, self.left_bias)
        update = self.out(gate(left + self.across(above)))
        return above, update if self.first else h + update


def gate(x: Tensor) -> Tensor:
    """tanh(a) sigmoid(b), with a and b the halves of the channels."""
    # Contiguous halves, since element-wise kernels are slow on slices of channels_last tensors.
    a, b = (half.contiguous(memory_format=torch.channels_last) for half in x.chunk(2, dim=1))
    return torch.tanh(a) * torch.sigmoid(b)


class PixelCNN(nn.Module):
    """x [B, 784] -> logits [B, 784]; each depends on the pixels before it."""

    def __init__(self, task: Task):
        super().__init__()
        layers = PixelCNNOptions().layers
        self.gated = nn.ModuleList([GatedLayer(task, i) for i in range(layers)])
        self.hidden, self.logits = pixelwise(task, "hidden"), pixelwise(task, "logits")

    def forward(self, x: Tensor) -> Tensor:
        v = h = image(2 * x - 1)
        for i, layer in enumerate(self.gated):
            # The image has no gate. The last layer's vertical features are not used.
            v, h = layer(gate(v) if i else v, h)
        return self.logits(F.relu(self.hidden(F.relu(h)), inplace=True)).flatten(1)


def pixelcnn(task: Task) -> Built:
    """PixelCNN, trained by -log p(x)."""
    network = PixelCNN(task)

    def loss(x: Tensor) -> Tensor:
        return cross_entropy(network(x), x)

    return Built(network, loss, loss)


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Minus log p(x): the sum over pixels, the mean over the batch."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


class VQVAE(nn.Module):
    """Encoder, codebook (moving averages with restarts) and decoder."""

    def __init__(self, task: Task):
        super().__init__()
        self.options = VQVAEOptions()
        trunk = residual_stack(task, "encoder/trunk/residual")
        self.encoder = nn.Sequential(
            *down(task, nn.ReLU), *trunk, pixelwise(task, "encoder/vectors")
        )
        self.decoder = nn.Sequential(
            *residual_stack(task, "decoder/trunk/residual"), Up(task, nn.ReLU)
        )
        for name in ("shares", "sums"):
            self.register_buffer(name, torch.from_numpy(task.arrays[f"stats/{name}"].copy()))

    def codes(self) -> Tensor:
        """The codebook, [K, E]."""
        total, smoothing = self.shares.sum(), SMOOTHING / len(self.shares)
        smoothed = (self.shares + smoothing) / (total + SMOOTHING) * total
        return self.sums / smoothed[:, None]

    def loss(self, x: Tensor, update: bool) -> Tensor:
        """-log p(x|codes) plus the commitment loss; `update` also updates the codebook."""
        grid = self.encoder(image(x)).permute(0, 2, 3, 1)  # [B, 7, 7, E]
        vectors = grid.flatten(0, 2)
        with torch.no_grad():
            codes = self.codes()
            halves = codes.square().sum(1) / 2
            indices = torch.addmm(halves, vectors, codes.T, alpha=-1).argmin(1)
            nearest = F.embedding(indices, codes)
            if update:
                self.update(vectors, indices, nearest)
        distance = (vectors - nearest).square().sum() / len(x)
        quantized = vectors + (nearest - vectors).detach()
        logits = self.decoder(quantized.view(grid.shape).permute(0, 3, 1, 2))
        return cross_entropy(logits, x) + self.options.commitment * distance

    def update(self, vectors: Tensor, indices: Tensor, nearest: Tensor) -> None:
        """Updates the moving averages; unused codes restart at vectors far from their code."""
        number, equal = len(self.shares), 1 / len(self.shares)
        new = 1 - self.options.codebook_decay
        counts = torch.bincount(indices, minlength=number).float()
        sums = torch.zeros_like(self.sums).index_add_(0, indices, vectors)
        self.shares.lerp_(counts / len(vectors), new)
        self.sums.lerp_(sums / len(vectors), new)
        unused = self.shares < self.options.restart_below * equal
        if unused.any():
            distances = (vectors - nearest).square().sum(1)
            drawn = torch.multinomial(distances, int(unused.sum()))
            self.shares[unused] = equal
            self.sums[unused] = vectors[drawn] * equal


def vqvae(task: Task) -> Built:
    """VQ-VAE, trained with straight-through gradients and a commitment loss."""
    module = VQVAE(task)
    return Built(
        module,
        functools.partial(module.loss, update=True),
        functools.partial(module.loss, update=False),
    )


MODELS = {"conv": conv_vae, "sbn": belief_network, "pixelcnn": pixelcnn, "vqvae": vqvae}


def make(task: Task) -> Peer:
    """A peer with a plain loop.

    Raises:
      RuntimeError: the module has another number of parameters than this library's model.
    """
    device = set_up(task)
    module, train_loss, eval_loss = MODELS[task.model](task)
    module.to(device, memory_format=torch.channels_last)
    number = sum(p.numel() for p in module.parameters())
    if number != task.num_parameters:
        raise RuntimeError(
            f"{task.model} has {number} parameters here and {task.num_parameters} in the library."
        )
    x = torch.from_numpy(task.x).to(device)

    def one_bound() -> float:
        with torch.inference_mode():
            return -eval_loss(x).item()

    return Peer(training_calls(task, module, train_loss, Batches(task, device)), one_bound)
