"""Pyro: model and guide with vectorized particles, validation off; torch's own fused Adam, since
Pyro's optimizers make one per parameter.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor

from benchmarks.peers import pytorch
from benchmarks.peers.common import LATENT, Peer, Task


def make(task: Task) -> Peer:
    """Trace_ELBO for one draw, RenyiELBO of order 0 (the IWAE bound) for more."""
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
    # The loss is a sum over the batch: with epsilon times B, Adam's steps are those of the mean.
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
        # One image at a time, so that a pass's value is that image's: L of `ROWS` draws.
        some = objective(pytorch.ROWS)
        log_mean = lambda image: torch.tensor([-some.loss(model, guide, image)])  # noqa: E731
        passes = torch.from_numpy(images).to(device).split(1)
        with torch.inference_mode():
            return float(np.mean([_combined(log_mean, image) for image in passes]))

    return Peer(train, lambda: -elbo.loss(model, guide, x) / len(x), log_likelihood)


def _combined(log_mean, image: Tensor) -> float:
    parts = torch.cat([log_mean(image) for _ in range(5000 // pytorch.ROWS)])
    return (parts.logsumexp(0) - np.log(len(parts))).item()
