"""The one configuration object. Library code reads it and never the command line's flags."""

import dataclasses
import hashlib
import json
from typing import Any

from elbo_lab.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes: equal configs on one machine give equal bits.

    Each field is a command-line flag of the same name; the help texts are in `FIELD_HELP`.
    """

    # What is maximized
    objective: str = "iwae"
    k: int = 5
    m: int = 1
    beta: float | None = None
    kl: str | None = None
    estimator: str = "reparam"
    # The model
    model: str = "mlp"
    latent_dims: tuple[int, ...] = (50,)
    hidden_dims: tuple[int, ...] = (200, 200)
    upper_hidden_dims: tuple[int, ...] = (100, 100)
    activation: str = "tanh"
    scale: str = "log_std"
    output_bias: str = "train_mean"
    # The data
    dataset: str = "mnist_small"
    binarization: str = "dynamic"
    # Optimization
    batch_size: int = 20
    epochs: int = 100
    learning_rate: float = 1e-3
    lr_schedule: str = "cosine"
    adam_b1: float = 0.9
    adam_b2: float = 0.999
    adam_eps: float = 1e-4
    clip_norm: float | None = None
    seed: int = 0
    replicates: int = 1
    # Evaluation and the run's rhythm
    eval_k: int = 5000
    log_every: int | None = None
    checkpoint_every: int | None = None


FIELD_HELP = {
    "objective": "what is maximized",
    "k": "K, importance draws inside the bound (for elbo and beta_vae: draws that are averaged)",
    "m": "M, independent repeats of the bound that are averaged (miwae)",
    "beta": "weight of the KL (beta_vae; 4 where not given)",
    "kl": "the ELBO's KL term: from the draws (mc) or in closed form (analytic); elbo and beta_vae "
    "(where not given: mc for elbo, analytic for beta_vae)",
    "estimator": "gradient estimator",
    "model": "model family",
    "latent_dims": "latent dimensions of each stochastic layer, from the data up, e.g. 100,50",
    "hidden_dims": "hidden widths between the data and the first stochastic layer",
    "upper_hidden_dims": "hidden widths between stochastic layers",
    "activation": "hidden activation",
    "scale": "what the inference network's scale output is, of each Gaussian",
    "output_bias": "start of the output bias: the logit of the training mean, or zero",
    "dataset": "a built-in data set, or a path ending in .npz with arrays x_train and x_test "
    "(and y_train, y_test)",
    "binarization": "how grey levels become binary: Bernoulli draws at every visit (dynamic), one "
    "draw (fixed), at half (threshold), or none (the data must be binary)",
    "batch_size": "B, images per step",
    "epochs": "passes over the training images",
    "learning_rate": "Adam's (largest) learning rate, for the mean gradient over the batch",
    "lr_schedule": "the learning rate's course: constant, cosine to zero, or the IWAE paper's "
    "eight stages scaled to this run's length",
    "adam_b1": "Adam's beta_1",
    "adam_b2": "Adam's beta_2",
    "adam_eps": "Adam's epsilon",
    "clip_norm": "clip the gradient's global norm to this (not clipped where not given)",
    "seed": "seed of everything random in training; replicates use seed, seed + 1, ...",
    "replicates": "R, runs of consecutive seeds trained in one compiled program",
    "eval_k": "draws per test image of the log-likelihood estimate",
    "log_every": "steps per compiled call and line of metrics (where not given: about 50,000 "
    "draws' worth)",
    "checkpoint_every": "steps between checkpoints (where not given: 100 times log_every)",
}

# Fields that change when files are written, not what is computed at a given step. They still belong
# to the config: the boundaries of compiled calls decide what a line of metrics averages.


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON-ready values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def digest(config: Config) -> str:
    """Eight hexadecimal digits that tell configs apart, for names of run directories."""
    text = json.dumps(to_dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(config: Config, other: dict[str, Any]) -> list[str]:
    """'name: here vs there' for every field in which a config and a stored one differ."""
    mine = to_dict(config)
    names = [*mine, *(name for name in other if name not in mine)]
    missing = object()
    return [
        f"{name}: {_show(mine, name)} here, {_show(other, name)} there"
        for name in names
        if mine.get(name, missing) != other.get(name, missing)
    ]


def _show(fields: dict[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else "(none)"


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises a UserError unless value >= least (NaN fails)."""
    if not value >= least:
        raise UserError(f"--{name} must be at least {least}; got {value}.")
