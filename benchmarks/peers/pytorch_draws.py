"""PyTorch eager: drawing examples, by the usual loop that computes the network for each value.

Networks of pixels are computed on the whole image, of which the logits of one pixel are used. Texts
are computed up to the character that is drawn, and have logits there alone. What does not depend on
the values, the features of z, is computed once.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.common import Peer, Task
from benchmarks.peers.pytorch import set_up
from benchmarks.peers.pytorch_pixels import CodePixelCNN
from benchmarks.peers.pytorch_systems import MODELS
from benchmarks.peers.pytorch_text import Positionwise


def draw_pixels(logits: Callable[[Tensor], Tensor], x: Tensor, values: int) -> Tensor:
    """The first `values` binary values of images x [B, D], which are overwritten."""
    for d in range(values):
        x[:, d] = torch.bernoulli(torch.sigmoid(logits(x)[:, d]))
    return x


def draw_tokens(logits: Tensor) -> Tensor:
    """Tokens [N] with logits [N, levels]."""
    return torch.multinomial(logits.softmax(1), 1)[:, 0]


def from_pixelcnn(module, task: Task, x: Tensor, values: int) -> Tensor:
    """Images, of which the first `values` pixels are drawn."""
    return draw_pixels(module, torch.zeros(task.batch, x.shape[1], device=x.device), values)


def from_pixelvae(module, task: Task, x: Tensor, values: int) -> Tensor:
    """Images for draws of z, of which the first `values` pixels are drawn."""
    features = module.features(torch.randn(task.batch, module.latent_dim, device=x.device))
    blank = torch.zeros(task.batch, x.shape[1], device=x.device)
    return draw_pixels(lambda x: module.logits(x, features), blank, values)


def from_text(module, task: Task, x: Tensor, values: int) -> Tensor:
    """Texts for draws of z, of which the first `values` characters are drawn."""
    z = torch.randn(task.batch, module.latent_dim, device=x.device)
    tokens = torch.zeros(task.batch, x.shape[1], dtype=torch.long, device=x.device)
    if isinstance(module.decoder, Positionwise):
        return draw_tokens(module.decoder(tokens, z).flatten(0, 1)).view_as(tokens)
    for t in range(values):
        hidden = module.decoder.hidden(tokens[:, :t], z)[:, t]
        tokens[:, t] = draw_tokens(module.decoder.logits(hidden))
    return tokens


class Pair:
    """A VQ-VAE and a PixelCNN of its codes, whose arrays are the task's under "prior/"."""

    def __init__(self, vqvae, task: Task, device: torch.device):
        prefix = "prior/"
        own = {n.removeprefix(prefix): a for n, a in task.arrays.items() if n.startswith(prefix)}
        prior = CodePixelCNN(task._replace(arrays=own))
        self.vqvae, self.prior = vqvae, prior.to(device, memory_format=torch.channels_last)

    def loss(self, x: Tensor) -> Tensor:
        """-log p(x|codes of x) - log p(codes of x), the mean over the batch."""
        codes = self.vqvae.encode(x)
        nll = F.binary_cross_entropy_with_logits(self.vqvae.decode(codes), x, reduction="sum")
        logits = self.prior(codes).flatten(0, 1)
        return (nll + F.cross_entropy(logits, codes.flatten(), reduction="sum")) / len(x)

    def draw(self, task: Task, x: Tensor, values: int) -> Tensor:
        """Means of pixels for codes, of which the first `values` are drawn."""
        number = self.vqvae.encode(x[:1]).shape[1]
        codes = torch.zeros(task.batch, number, dtype=torch.long, device=x.device)
        for d in range(values):
            codes[:, d] = draw_tokens(self.prior(codes)[:, d])
        return torch.sigmoid(self.vqvae.decode(codes))


DRAWS = {"pixelcnn": from_pixelcnn, "pixelvae": from_pixelvae, "text": from_text}


def make(task: Task) -> Peer:
    """A peer that draws `task.batch` examples."""
    device = set_up(task)
    module, _, loss = MODELS[task.model](task)
    module.to(device, memory_format=torch.channels_last)
    x = torch.from_numpy(task.x).to(device)
    if task.model == "vqvae":
        pair = Pair(module, task, device)
        loss = pair.loss

    @torch.inference_mode()
    def sample(values: int) -> Tensor:
        if task.model == "vqvae":
            return pair.draw(task, x, values).cpu()
        return DRAWS[task.model](module, task, x, values).cpu()  # waits for the device

    @torch.inference_mode()
    def one_bound() -> float:
        return -loss(x).item()

    return Peer(bound=one_bound, sample=sample)
