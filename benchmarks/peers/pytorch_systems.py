"""PyTorch eager: the other model families, with the same layers as this library."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.common import Peer, Task
from benchmarks.peers.pytorch import Batches, Weights, set_up, training_calls
from benchmarks.peers.pytorch_layers import (
    Built,
    ConvGaussian,
    LatentUp,
    Up,
    cross_entropy,
    down,
    image,
    linear,
    pixelwise,
    residual_stack,
)
from benchmarks.peers.pytorch_pixels import pixelcnn, pixelvae
from benchmarks.peers.pytorch_text import text
from elbo_lab.models.vqvae import VQVAEOptions

SMOOTHING = 1e-5  # is divided equally among the codes, and added to their shares


def conv_vae(task: Task) -> Built:
    """The convolutional VAE, trained by the IWAE bound with `task.k` draws."""
    weights = Weights(
        ConvGaussian(task), nn.Sequential(LatentUp(task, "decoder", "logits"), nn.Flatten())
    )

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
            *residual_stack(task, "decoder/trunk/residual"),
            Up(task, "decoder", "logits", nn.ReLU),
            nn.Flatten(),
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
            indices = assigned(vectors, codes)
            nearest = F.embedding(indices, codes)
            if update:
                self.update(vectors, indices, nearest)
        distance = (vectors - nearest).square().sum() / len(x)
        quantized = vectors + (nearest - vectors).detach()
        logits = self.decoded(quantized.view(grid.shape))
        return cross_entropy(logits, x) + self.options.commitment * distance

    def encode(self, x: Tensor) -> Tensor:
        """The codes of images [B, 784], [B, 49]."""
        vectors = self.encoder(image(x)).permute(0, 2, 3, 1).flatten(1, 2)
        return assigned(vectors.flatten(0, 1), self.codes()).view(len(x), -1)

    def decode(self, indices: Tensor) -> Tensor:
        """Logits [B, 784] of codes [B, 49]."""
        side = math.isqrt(indices.shape[1])
        return self.decoded(F.embedding(indices, self.codes()).view(len(indices), side, side, -1))

    def decoded(self, grid: Tensor) -> Tensor:
        """Logits [B, 784] of vectors [B, 7, 7, E]."""
        return self.decoder(grid.permute(0, 3, 1, 2))

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


def assigned(vectors: Tensor, codes: Tensor) -> Tensor:
    """The index of the code [K, E] nearest to each vector [N, E], [N]."""
    return torch.addmm(codes.square().sum(1) / 2, vectors, codes.T, alpha=-1).argmin(1)


def vqvae(task: Task) -> Built:
    """VQ-VAE, trained with straight-through gradients and a commitment loss."""
    module = VQVAE(task)
    return Built(
        module,
        functools.partial(module.loss, update=True),
        functools.partial(module.loss, update=False),
    )


MODELS = {
    "conv": conv_vae,
    "sbn": belief_network,
    "pixelcnn": pixelcnn,
    "pixelvae": pixelvae,
    "vqvae": vqvae,
    "text": text,
}


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
