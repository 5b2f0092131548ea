"""Training protocols of published papers, and one of our own, as complete configurations.

A protocol fixes everything but the objective, K, the data set and the number of stochastic layers,
which the paper's tables vary. Where a paper and its public code differ, each has its own entry.
"""

import dataclasses

from elbo_lab import configs
from elbo_lab.configs import Config

# Burda et al. (2016), section 5: 3^i passes at 0.001 x 10^(-i/7), i = 0..7, batches of 20, Adam
# with epsilon 1e-4. The paper does not state the output bias, which is that of its code.
_BURDA_PAPER = configs.make(
    dataset="mnist",
    objective="iwae",
    k=5,
    latent_dims=(50,),
    hidden_dims=(200, 200),
    upper_hidden_dims=(100, 100),
    activation="tanh",
    scale="log_std",
    binarization="dynamic",
    batch_size=20,
    epochs=3280,
    learning_rate=1e-3,
    lr_schedule="burda",
    adam_b1=0.9,
    adam_b2=0.999,
    adam_eps=1e-4,
    eval_k=5000,
)

# Ours, by one-sided SOAP: the candidate that is left of the study fast_protocol, with a length at
# which IWAE with k = 5 takes about 40 minutes on one core.
_FAST = configs.replace(
    _BURDA_PAPER,
    estimator="stl",
    batch_size=250,
    epochs=300,
    optimizer="soap",
    learning_rate=6e-3,
    lr_schedule="cosine",
    warmup_steps=50,
    adam_b1=0.9,
    adam_b2=0.95,
    adam_eps=1e-8,
    soap_decay=0.8,
    soap_factor_every=5,
)

PROTOCOLS: dict[str, Config] = {
    "burda2015_paper": _BURDA_PAPER,
    # The public code of the same paper (github.com/yburda/iwae). It visits the images in the order
    # in which they are stored, sums gradients over the batch, starts Adam with a second moment of
    # one, and initializes every layer from the same stream of random numbers.
    "burda2015_code": configs.replace(
        _BURDA_PAPER,
        held_out=400,
        shuffle=False,
        init="glorot_same_key",
        lr_schedule="burda_rounded",
        batch_gradient="sum",
        adam_b1=0.99,
        adam_eps_hat=True,
        adam_nu_start=1.0,
        test_draw="by_seed",
        au_images=500,
    ),
    # Rainforth et al. (2018), section 6: Burda et al.'s network and data, 64 draws in total (for
    # MIWAE and PIWAE: --k=8 --m=8). We assume the optimization of Burda et al.'s paper.
    "rainforth2018": configs.replace(_BURDA_PAPER, k=64),
    # Tucker et al. (2018), as in their public code: 5 million steps of batches of 32 from 50,000
    # images, a constant rate, TensorFlow's Adam, and inputs centred by the training mean.
    "tucker2018": configs.replace(
        _BURDA_PAPER,
        k=64,
        estimator="dreg",
        center_inputs=True,
        held_out=10_000,
        batch_size=32,
        epochs=3200,
        learning_rate=3e-4,
        lr_schedule="constant",
        adam_eps=1e-8,
        adam_eps_hat=True,
        test_draw="by_seed",
    ),
    # Ours, for Burda et al.'s model and data, by Adam: a tenth of their 9.84 million steps,
    # batches five times as large, doubly reparameterized gradients, and a rate that falls to zero.
    "fast_adam": configs.replace(
        _BURDA_PAPER,
        estimator="dreg",
        batch_size=100,
        epochs=1640,
        learning_rate=4e-3,
        lr_schedule="cosine",
        adam_eps=1e-8,
    ),
    "fast": _FAST,
    # For a run that starts at the parameters of one by `fast` (--init_from), with more draws.
    "fast_continued": configs.replace(_FAST, epochs=15, learning_rate=2e-3),
}


def with_optimizer(config: Config, optimizer: str) -> Config:
    """The config with this optimizer; another one than its own has the optimizer's defaults."""
    if optimizer == config.optimizer:
        return config
    return dataclasses.replace(config, optimizer=optimizer, optimizer_options=None)


def scaled(config: Config, budget: float) -> Config:
    """The config with `budget` times its epochs, at least one.

    The learning-rate schedule keeps its shape, since it depends on the fraction of the run.
    """
    if config.epochs < 1:
        return config  # `validation.check` refuses it
    return dataclasses.replace(config, epochs=max(1, round(config.epochs * budget)))
