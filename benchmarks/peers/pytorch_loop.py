"""PyTorch: a training loop that stops and resumes, and whose parameters are read back."""

import io
import pathlib
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers.common import LAYERS, Task
from benchmarks.peers.pytorch import Encoder, Weights, decoder, optimizer, set_up
from elbo_lab.files import write_atomically

# Attributes of a `Training` that are stored as they are.
PLAIN = ("order", "step", "seconds", "cpu_seconds")


class Training:
    """Training of a task's model by the IWAE bound of `task.k` draws.

    Each pass visits the images in a new order, in batches of `task.batch`; the remainder is left
    out. Images are binarized at each visit.

    Attributes:
      step: steps taken.
      seconds, cpu_seconds: wall time and processor time of these steps. The first is the longer
        one if other processes use the core.
    """

    def __init__(self, task: Task):
        device = set_up(task)
        self.batch, self.k = task.batch, task.k
        self.weights = Weights(Encoder(task), decoder(task)).to(device)
        self.adam = optimizer(task, self.weights.parameters())
        # Grey levels are converted once: all of MNIST takes 188 MB as float32.
        self.images = torch.from_numpy(task.images).to(device).float().div_(255)
        self.order = torch.arange(0)  # of the current pass
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0

    def train_to(self, step: int) -> None:
        """Takes steps until `self.step` is `step`."""
        steps_per_pass = len(self.images) // self.batch
        start, cpu_start = time.perf_counter(), time.process_time()
        for number in range(self.step, step):
            place = number % steps_per_pass
            if place == 0:
                self.order = torch.randperm(len(self.images))
            indices = self.order[place * self.batch : (place + 1) * self.batch]
            loss = -self.weights.bound(torch.bernoulli(self.images[indices]), self.k)
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
            self.adam.step()
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start
        self.step = max(self.step, step)

    def arrays(self) -> dict[str, np.ndarray]:
        """The parameters as the arrays of a task: path in our parameters -> array."""
        result = {}
        for name, layer in layers(self.weights).items():
            path = f"params/{LAYERS[name]}"
            result[f"{path}/kernel"] = layer.weight.detach().T.numpy().copy()
            result[f"{path}/bias"] = layer.bias.detach().numpy().copy()
        return result

    def save(self, file: pathlib.Path, notes: dict[str, Any]) -> None:
        """Writes all that the next steps depend on, and notes of plain values, atomically."""
        content = io.BytesIO()
        state = {name: getattr(self, name) for name in PLAIN}
        state["weights"], state["adam"] = self.weights.state_dict(), self.adam.state_dict()
        torch.save({**state, "random": torch.get_rng_state(), "notes": notes}, content)
        write_atomically(file, content.getvalue())

    def load(self, file: pathlib.Path) -> dict[str, Any]:
        """Continues from a file of `save`, and returns its notes."""
        state = torch.load(file, weights_only=True)
        self.weights.load_state_dict(state["weights"])
        self.adam.load_state_dict(state["adam"])
        torch.set_rng_state(state["random"])
        for name in PLAIN:
            setattr(self, name, state[name])
        return state["notes"]


def layers(weights: Weights) -> dict[str, nn.Linear]:
    """The linear layers of a model, by their names in `LAYERS`."""
    encoder, generator = weights.encoder, weights.decoder
    return {
        "encoder_0": encoder.trunk[0],
        "encoder_1": encoder.trunk[2],
        "mean": encoder.mean,
        "log_std": encoder.log_std,
        "decoder_0": generator[0],
        "decoder_1": generator[2],
        "logits": generator[4],
    }
