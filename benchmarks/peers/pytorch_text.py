"""PyTorch eager: texts with a Gaussian code and one of two decoders."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.common import Task
from benchmarks.peers.pytorch_layers import Built, drawn, linear, parameter
from elbo_lab.models.text import AUTOREGRESSIVE, TextOptions


class GatedConvolution(nn.Module):
    """h + (h W + b) sigmoid(h V + c), [B, width, T] -> [B, width, T]."""

    def __init__(self, task: Task, path: str, causal: bool):
        super().__init__()
        kernel, bias = task.layer(path)
        size, inputs, features = kernel.shape
        padding = 0 if causal else size // 2
        self.before = size - 1 if causal else 0
        self.conv = nn.Conv1d(inputs, features, size, padding=padding)
        self.conv.weight, self.conv.bias = parameter(kernel.transpose(2, 1, 0)), parameter(bias)

    def forward(self, h: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features h, and features [B, 2 width] of a condition that all positions share."""
        features = self.conv(F.pad(h, (self.before, 0)) if self.before else h)
        if condition is not None:
            features = features + condition[:, :, None]
        return h + F.glu(features, dim=1)


class Embedding(nn.Module):
    """A vector of each token, and one of each position."""

    def __init__(self, task: Task, path: str):
        super().__init__()
        table = torch.from_numpy(task.arrays[f"params/{path}/tokens"].copy())
        self.tokens = nn.Embedding(*table.shape, _weight=table)
        self.positions = parameter(task.arrays[f"params/{path}/positions"])


class Encoder(nn.Module):
    """Tokens [B, T] -> mean and log standard deviation, [B, L] each."""

    def __init__(self, task: Task):
        super().__init__()
        self.embedding = Embedding(task, "encoder/embedding")
        self.features = linear(task, "encoder/embedding/features")
        self.layers = nn.Sequential(
            *(
                GatedConvolution(task, f"encoder/layer_{i}", causal=False)
                for i in range(TextOptions().layers)
            )
        )
        self.mean, self.log_std = linear(task, "encoder/mean"), linear(task, "encoder/scale")

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.embedding.tokens(tokens) + self.embedding.positions
        h = self.layers(self.features(vectors).transpose(1, 2)).mean(2)
        return self.mean(h), self.log_std(h)


class Positionwise(nn.Module):
    """z [B, L] -> logits [B, T, levels]; the tokens given z are independent."""

    def __init__(self, task: Task):
        super().__init__()
        self.positions, self.logits = (
            linear(task, f"decoder/{name}") for name in ("positions", "logits")
        )

    def forward(self, tokens: Tensor, z: Tensor) -> Tensor:
        h = torch.tanh(self.positions(z)).view(len(z), -1, self.logits.in_features)
        return self.logits(h)


class Causal(nn.Module):
    """Tokens [B, T], z [B, L] -> logits [B, T, levels], each given the tokens before it."""

    def __init__(self, task: Task):
        super().__init__()
        layers = range(TextOptions().layers)
        self.embedding = Embedding(task, "decoder")
        self.features, self.logits = (
            linear(task, "decoder/features"),
            linear(task, "decoder/logits"),
        )
        self.layers = nn.ModuleList(
            [GatedConvolution(task, f"decoder/layer_{i}", causal=True) for i in layers]
        )
        self.latents = nn.ModuleList([unbiased(task, f"decoder/latents_{i}") for i in layers])
        self.added = unbiased(task, "decoder/latents")

    def hidden(self, tokens: Tensor, z: Tensor) -> Tensor:
        """Features of the positions 0..T for tokens [B, T], but of at most as many as there are."""
        # Position t sees the token before it; the first one sees none.
        vectors = F.pad(self.embedding.tokens(tokens), (0, 0, 1, 0))
        vectors = vectors[:, : len(self.embedding.positions)]
        vectors = vectors + self.embedding.positions[: vectors.shape[1]]
        h = self.features(vectors).transpose(1, 2)
        for layer, latents in zip(self.layers, self.latents, strict=True):
            h = layer(h, latents(z))
        return h.transpose(1, 2) + self.added(z)[:, None]

    def forward(self, tokens: Tensor, z: Tensor) -> Tensor:
        return self.logits(self.hidden(tokens, z))


def unbiased(task: Task, path: str) -> nn.Linear:
    """A linear layer without a bias."""
    kernel = task.arrays[f"params/{path}/kernel"]
    layer = nn.Linear(*kernel.shape, bias=False)
    layer.weight = parameter(kernel.T)
    return layer


class TextVAE(nn.Module):
    """q(z|x), and p(x|z) by the decoder of the task's settings."""

    def __init__(self, task: Task):
        super().__init__()
        decoder = (task.options or {}).get("text_decoder")
        self.encoder = Encoder(task)
        self.latent_dim = self.encoder.mean.out_features
        self.decoder = Causal(task) if decoder == AUTOREGRESSIVE else Positionwise(task)

    def loss(self, tokens: Tensor) -> Tensor:
        """Minus the ELBO by one draw of z."""
        z, kl = drawn(*self.encoder(tokens))
        logits = self.decoder(tokens, z)
        nll = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")
        return nll / len(tokens) + kl


def text(task: Task) -> Built:
    """A text model, trained by the ELBO."""
    module = TextVAE(task)
    return Built(module, module.loss, module.loss)
