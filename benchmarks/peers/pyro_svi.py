"""Pyro: model and guide with vectorized particles, without validation.

The optimizer is torch's fused Adam, since Pyro's optimizers create one for each parameter.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor

from benchmarks.peers import pytorch
from benchmarks.peers.common import DRAWS, LATENT, Peer, Task


def make(task: Task) -> Peer:
    """A peer with Trace_ELBO for one draw, and RenyiELBO of order 0 (the IWAE bound) for more."""
    device = pytorch.set_up(task)
    pyro.enable_validation(False)
    encoder, decoder = pytorch.Encoder(task).to(device), pytorch.decoder(task).to(device)
    batches = pytorch.Batches(task, device)
    zero, one = torch.zeros(LATENT, device=device), torch.ones(LATENT, device=device)
    x = torch.from_numpy(task.x).to(device)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("images", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(zero, one).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("images", len(x), dim=-1):
            mean, log_std = encoder(x)
            pyro.sample("z", dist.Normal(mean, log_std.exp()).to_event(1))

    def objective(k: int) -> Trace_ELBO | RenyiELBO:
        if k == 1:
            return Trace_ELBO(max_plate_nesting=1)
        options = {"num_particles": k, "vectorize_particles": True, "max_plate_nesting": 1}
        return RenyiELBO(alpha=0, **options)

    elbo = objective(task.k)
    # The loss is a sum over the batch. With epsilon times B, Adam takes the steps of the mean.
    b1, b2, epsilon = task.adam
    adam = pytorch.optimizer(
        task._replace(adam=(b1, b2, epsilon * task.batch)),
        [*encoder.parameters(), *decoder.parameters()],
    )

    def train() -> float:
        for binary in batches.call():
            adam.zero_grad(set_to_none=True)
            loss = elbo.loss_and_grads(model, guide, binary)
            adam.step()
        return loss

    def log_likelihood(images: np.ndarray) -> float:
        # Losses are sums over a batch: batches of one image give each image's bound.
        chunk_bound = objective(pytorch.ROWS)

        def image_value(image: Tensor) -> float:
            num_chunks = DRAWS // pytorch.ROWS
            parts = [-chunk_bound.loss(model, guide, image) for _ in range(num_chunks)]
            return (torch.tensor(parts).logsumexp(0) - np.log(num_chunks)).item()

        with torch.inference_mode():
            batches_of_one = torch.from_numpy(images).to(device).split(1)
            return float(np.mean([image_value(image) for image in batches_of_one]))

    return Peer(train, lambda: -elbo.loss(model, guide, x) / len(x), log_likelihood)
