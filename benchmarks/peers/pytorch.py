"""PyTorch: all draws in one vectorized pass, fused Adam, and the data on the device."""

import math
import os
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.common import DRAWS, LATENT, Peer, Task, orders

# Rows (draws x images) of one pass of the evaluation.
ROWS = 1000


def set_up(task: Task) -> torch.device:
    """Uses all cores. Returns the kind of device that JAX uses."""
    torch.set_num_threads(task.cores)
    torch.manual_seed(0)
    return torch.device("cuda" if task.platform == "gpu" else "cpu")


def linear(task: Task, name: str) -> nn.Linear:
    """A layer of the task, with its parameters."""
    kernel, bias = task.layers[name]
    layer = nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    return layer


class Encoder(nn.Module):
    """x [*batch, 784] -> mean and log standard deviation, [*batch, 50] each."""

    def __init__(self, task: Task):
        super().__init__()
        self.trunk = nn.Sequential(
            linear(task, "encoder_0"), nn.Tanh(), linear(task, "encoder_1"), nn.Tanh()
        )
        self.mean, self.log_std = linear(task, "mean"), linear(task, "log_std")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h), self.log_std(h)


def decoder(task: Task) -> nn.Sequential:
    """z [*batch, 50] -> logits [*batch, 784]."""
    return nn.Sequential(
        linear(task, "decoder_0"),
        nn.Tanh(),
        linear(task, "decoder_1"),
        nn.Tanh(),
        linear(task, "logits"),
    )


class Weights(nn.Module):
    """The importance weights of k draws.

    Args:
      encoder: x [B, 784] -> mean and log standard deviation, [B, 50] each.
      decoder: z [rows, 50] -> logits [rows, 784].
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor, k: int) -> Tensor:
        """x [B, 784] -> log w [k, B]."""
        mean, log_std = self.encoder(x)
        eps = torch.randn(k, *mean.shape, device=x.device)
        z = mean + log_std.exp() * eps
        logits = self.decoder(z.view(-1, LATENT)).view(k, *x.shape)
        cross_entropy = F.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        )
        # log p(z) - log q(z|x), whose constants cancel
        latent = 0.5 * (eps.square() - z.square()).sum(-1) + log_std.sum(-1)
        return latent - cross_entropy.sum(-1)

    def bound(self, x: Tensor, k: int) -> Tensor:
        """Mean over the batch of L_k."""
        return (self(x, k).logsumexp(0) - math.log(k)).mean()


def optimizer(task: Task, parameters) -> torch.optim.Adam:
    """Adam that updates all parameters in one kernel."""
    b1, b2, epsilon = task.adam
    return torch.optim.Adam(
        parameters, lr=task.learning_rate, betas=(b1, b2), eps=epsilon, fused=True
    )


class Batches:
    """The batches of each call: binary images [B, 784], or tokens [B, T]."""

    def __init__(self, task: Task, device: torch.device):
        self.examples = torch.from_numpy(task.images).to(device)
        self.orders = orders(task)

    def call(self):
        """Yields the `steps` batches of the next call."""
        for indices in torch.from_numpy(next(self.orders)).to(self.examples.device):
            batch = self.examples[indices]
            if batch.dtype == torch.uint8:
                batch = torch.bernoulli(batch.float().div_(255))
            yield batch


def training_calls(
    task: Task, module: nn.Module, loss: Callable[[Tensor], Tensor], batches: Batches
) -> Callable[[], float]:
    """A function that takes `task.steps` steps of Adam on loss(x [B, 784]).

    It returns the loss of the last step.
    """
    adam = optimizer(task, module.parameters())

    def train() -> float:
        for binary in batches.call():
            value = loss(binary)
            adam.zero_grad(set_to_none=True)
            value.backward()
            adam.step()
        return value.item()  # waits for the device

    return train


def chunked_log_likelihood(log_weights, x: Tensor) -> float:
    """The mean of L_5000, ROWS rows at a time; log_weights(x [n, 784], k) -> [k, n]."""
    per_pass = max(1, ROWS // len(x))
    with torch.inference_mode():
        parts = [log_weights(x, per_pass).logsumexp(0) for _ in range(DRAWS // per_pass)]
        total = torch.stack(parts).logsumexp(0) - math.log(per_pass * len(parts))
        return total.mean().item()


def make(task: Task, compiled: bool) -> Peer:
    """A peer with a plain loop; `compiled` compiles the bound and its gradient by torch.compile."""
    if compiled:
        os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    device = set_up(task)
    weights = Weights(Encoder(task), decoder(task)).to(device)
    bound = torch.compile(weights.bound) if compiled else weights.bound
    log_weights = torch.compile(weights) if compiled else weights
    x = torch.from_numpy(task.x).to(device)

    train = training_calls(task, weights, lambda b: -bound(b, task.k), Batches(task, device))

    def one_bound() -> float:
        with torch.inference_mode():
            return weights.bound(x, task.k).item()

    def log_likelihood(images: np.ndarray) -> float:
        parts = torch.from_numpy(images).to(device).split(20)
        sums = [chunked_log_likelihood(log_weights, part) * len(part) for part in parts]
        return sum(sums) / len(images)

    return Peer(train, one_bound, log_likelihood)
