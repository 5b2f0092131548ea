"""Model families by name, for flags, tables and stored configurations."""

from collections.abc import Callable
from typing import Any, NamedTuple

from elbo_lab.data.dataset import Spec
from elbo_lab.models import (
    conv,
    mixture,
    mlp,
    pixel_flow,
    pixelcnn,
    pixelrnn,
    pixelvae,
    sbn,
    text,
    vqvae,
)


class Family(NamedTuple):
    """A model family: its settings, its constructor, and its defaults."""

    options: type  # a frozen dataclass of `option` fields
    make: Callable[[Any, Spec], Any]  # (options, spec) -> Model, Density, ...
    about: str  # a line of --help
    # The defaults of --objective and --k; None for families with a loss of their own, which take
    # no objective, no number of draws and no estimator.
    objective: str | None = None
    k: int | None = None
    eval_k: int = 5000  # the default of --eval_k
    # The estimators that a family with discrete latents takes, the preferred first. The
    # default of --estimator is the first that goes with the objective and its draws. (): all, and
    # the objective's default.
    estimators: tuple[str, ...] = ()
    # Time per image and draw at the default sizes, relative to mlp's. Sweeps plan by it.
    relative_cost: float = 1.0
    takes_context: bool = False  # True: it models codes given those of the levels above them


MODELS: dict[str, Family] = {
    "mlp": Family(
        mlp.MLPOptions,
        mlp.make,
        "fully connected networks with any number of stochastic layers",
        objective="iwae",
        k=5,
    ),
    "conv": Family(
        conv.ConvOptions,
        conv.make,
        "convolutional networks for images of any size and colour, one stochastic layer",
        objective="iwae",
        k=5,
        relative_cost=8.0,
    ),
    "sbn": Family(
        sbn.SBNOptions,
        sbn.make,
        "sigmoid belief network: any number of layers of binary latents, exact for few units",
        objective="iwae",
        k=5,
        estimators=(
            *("vimco", "score_loo", "score", "disarm", "arm", "rebar", "ovis", "wake"),
            *("gumbel_softmax", "straight_through", "enumerate"),
        ),
    ),
    "pixelcnn": Family(
        pixelcnn.PixelCNNOptions,
        pixelcnn.make,
        "gated PixelCNN, an exact density of binary images, 256 levels or codes",
        relative_cost=45.0,
        takes_context=True,
    ),
    "pixelrnn": Family(
        pixelrnn.PixelRNNOptions,
        pixelrnn.make,
        "PixelRNN (row LSTM or diagonal BiLSTM), an exact density of the same data as pixelcnn",
        relative_cost=35.0,
    ),
    "pixelvae": Family(
        pixelvae.PixelVAEOptions,
        pixelvae.make,
        "PixelVAE: p(x|z) by masked convolutions, autoregressive given z; binary images or levels",
        objective="elbo",
        k=1,
        eval_k=100,
        relative_cost=40.0,
    ),
    "flow": Family(
        pixel_flow.FlowOptions,
        pixel_flow.make,
        "flow of the pixels of images, with uniform or learned noise added to their levels",
        objective="elbo",
        k=1,
        relative_cost=10.0,
    ),
    "vqvae": Family(
        vqvae.VQVAEOptions,
        vqvae.make,
        "VQ-VAE (or VQ-VAE-2), discrete codes of images; further runs fit a density to its codes",
        relative_cost=10.0,
    ),
    "mixture": Family(
        mixture.MixtureOptions,
        mixture.make,
        "mixture of Gaussians or of Bernoulli vectors with an exact likelihood, by EM or gradients",
        relative_cost=0.2,
    ),
    "text": Family(
        text.TextOptions,
        text.make,
        "texts of equal length: gated convolutions, a Gaussian code, and a decoder of characters",
        objective="elbo",
        k=1,
        relative_cost=60.0,
    ),
}


def make(config: Any, spec: Spec) -> Any:
    """The model that a configuration names, for data of a spec.

    Args:
      config: an `elbo_lab.configs.Config`; reads model and model_options.
      spec: of the data.

    Raises:
      ValueError: the family does not take the data, or a setting does not go with them.
    """
    if spec.context and not MODELS[config.model].takes_context:
        valid = " or ".join(name for name, family in MODELS.items() if family.takes_context)
        raise ValueError(
            f"The model {config.model} takes no codes that are given those of the levels above; "
            f"use {valid}."
        )
    return MODELS[config.model].make(config.model_options, spec)
