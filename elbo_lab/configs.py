"""The one configuration object. Library code reads it and never the command line's flags."""

import dataclasses
import hashlib
import json
import math
from typing import Any

# A hyper-parameter: a number, or the text of its course over the steps, "linear:0:1:5000".
Hyper = float | str


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes: equal configs on one machine give equal bits.

    Each field is a command-line flag of the same name; `SECTIONS` explains it.
    """

    # What is maximized
    objective: str = "iwae"
    k: int = 5
    m: int = 1
    estimator: str | None = None
    # What some objectives have besides; the objective's own default where not given
    kl: str | None = None
    beta: Hyper | None = None
    alpha: Hyper | None = None
    power: Hyper | None = None
    order: int | None = None
    partition: int | tuple[float, ...] | None = None
    phase: str | None = None
    gamma: Hyper | None = None
    capacity: Hyper | None = None
    min_kl: Hyper | None = None
    group_size: int | None = None
    regularization: Hyper | None = None
    lambda_off: Hyper | None = None
    lambda_diag: Hyper | None = None
    kl_weight: Hyper | None = None
    mmd_weight: Hyper | None = None
    # The model
    model: str = "mlp"
    latent_dims: tuple[int, ...] = (50,)
    hidden_dims: tuple[int, ...] = (200, 200)
    upper_hidden_dims: tuple[int, ...] = (100, 100)
    activation: str = "tanh"
    scale: str = "log_std"
    likelihood: str = "bernoulli"
    output_bias: str = "train_mean"
    init: str = "glorot"
    center_inputs: bool = False
    # The data
    dataset: str = "mnist_small"
    held_out: int = 0
    binarization: str = "dynamic"
    test_draw: str = "common"
    # Optimization
    batch_size: int = 20
    epochs: int = 100
    learning_rate: float = 1e-3
    lr_schedule: str = "cosine"
    shuffle: bool = True
    batch_gradient: str = "mean"
    adam_b1: float = 0.9
    adam_b2: float = 0.999
    adam_eps: float = 1e-4
    adam_eps_hat: bool = False
    adam_nu_start: float = 0.0
    clip_norm: float | None = None
    seed: int = 0
    replicates: int = 1
    # Evaluation and the run's rhythm
    eval_k: int = 5000
    au_images: int | None = None
    log_every: int | None = None
    checkpoint_every: int | None = None


# What each field means, in the sections that `--help` prints.
SECTIONS = {
    "What is maximized": {
        "objective": "the objective",
        "k": "K, importance draws inside the bound (elbo and beta_vae: draws that are averaged)",
        "m": "M, independent repeats of the bound that are averaged (miwae, piwae)",
        "estimator": "the gradient estimator (reparam if not given and the objective takes one); "
        "docs/bounds.md tells which go with an objective",
    },
    "What some objectives have besides, with their defaults": {
        "kl": "the KL term, from the draws (mc) or in closed form (analytic): {kl}",
        "beta": "weight of the KL, of the total correlation, or of the ELBO: {beta}. Like every "
        "number of this section that is not a count it may follow a course over the steps: "
        "{syntax} (constant:4 is 4)",
        "alpha": "order, -inf for the greatest log-weight, inf for the least: {alpha}",
        "power": "n, at least 1: {power}",
        "order": "m, below k: {order}",
        "partition": "steps of equal length, or points that rise from 0 to 1 as 0,0.1,1: "
        "{partition}",
        "phase": "of the inference network: {phase}",
        "gamma": "weight of the KL's distance to the capacity: {gamma}",
        "capacity": "C, nats: {capacity}",
        "min_kl": "lambda, the KL in nats per group that costs nothing: {min_kl}",
        "group_size": "neighbouring latent dimensions in a group: {group_size}",
        "regularization": "lambda, weight of the KL and variance of p(x|z): {regularization}",
        "lambda_off": "weight of squared covariances: {lambda_off}",
        "lambda_diag": "weight of squared distances of variances to one: {lambda_diag}",
        "kl_weight": "1 - alpha of InfoVAE: {kl_weight}",
        "mmd_weight": "alpha + lambda - 1 of InfoVAE: {mmd_weight}",
    },
    "The model": {
        "model": "the model family",
        "latent_dims": "latent dimensions of each stochastic layer, from the data up, e.g. 100,50",
        "hidden_dims": "hidden widths between the data and the first stochastic layer",
        "upper_hidden_dims": "hidden widths between two stochastic layers",
        "activation": "of the hidden layers",
        "scale": "what a Gaussian's scale output is: log sigma, log sigma^2, softplus's sigma^2",
        "likelihood": "p(x|z): a mass of binary pixels (bernoulli) or of 8-bit grey levels "
        "(discretized_logistic), or a density of grey levels, whose bounds do not compare with "
        "those of masses; all but bernoulli need --binarization=none",
        "output_bias": "start of the output bias: where p(x|z) has the training mean, or zero",
        "init": "start of the weights: Glorot's uniform law, every layer by a key of its own or "
        "all by the same one (as the IWAE paper's code does)",
        "center_inputs": "subtract the training mean from what the inference network sees",
    },
    "The data": {
        "dataset": "{datasets}, another image set of tensorflow-datasets by its name there, or a "
        "path ending in .npz with arrays x_train and x_test (and, if there are labels, y_train and "
        "y_test), or by the names of MedMNIST or dSprites",
        "held_out": "training images, the last ones, that are not trained on; of a file of one "
        "split, images drawn once to be the test images",
        "binarization": "Bernoulli draws at every visit (dynamic), one such draw (fixed), lit from "
        "one half on (threshold), or as they are (none, for binary images, or with a likelihood of "
        "grey levels)",
        "test_draw": "whether dynamic binarization draws the test images in common for all runs, "
        "which then compare image by image, or anew by each run's seed",
    },
    "Optimization": {
        "batch_size": "B, images per step",
        "epochs": "passes over the training images",
        "learning_rate": "Adam's learning rate",
        "lr_schedule": "the learning rate's course: constant, by a cosine to zero, or the eight "
        "stages of the IWAE paper scaled to this run's length (burda_rounded: with two digits of "
        "each rate, as its code)",
        "shuffle": "a new order of the images in every pass, instead of the one they are stored in",
        "batch_gradient": "gradient of the loss's mean or of its sum over the batch; for Adam they "
        "differ by what its epsilon means",
        "adam_b1": "Adam's beta_1",
        "adam_b2": "Adam's beta_2",
        "adam_eps": "Adam's epsilon",
        "adam_eps_hat": "add epsilon to the second moment's root before its bias is corrected, not "
        "after (the last formula of section 2 of Adam's paper)",
        "adam_nu_start": "Adam's second moment before the first step",
        "clip_norm": "clip the gradient to this global norm (never if not given)",
        "seed": "of initialization, batches and draws; the test images' common binarization and "
        "that of --binarization=fixed do not depend on it",
        "replicates": "R, runs of the seeds seed .. seed + R - 1 trained in one compiled program",
    },
    "Evaluation and rhythm": {
        "eval_k": "draws per test image of the log-likelihood estimate",
        "au_images": "training images, the first ones, over which active units are counted (all "
        "test images if not given)",
        "log_every": "steps per compiled call and line of metrics, at most a pass over the data "
        "(if not given, as many as take about 50,000 draws)",
        "checkpoint_every": "steps between checkpoints, which are saved at the end of a compiled "
        "call (if not given, every 20 calls)",
    },
}


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON-ready values; infinities as text, for which JSON has no word."""
    fields = json.loads(json.dumps(dataclasses.asdict(config)))
    infinite = {n: str(v) for n, v in fields.items() if isinstance(v, float) and math.isinf(v)}
    return fields | infinite


def shown(value: Any) -> str:
    """A field's value as its flag takes it; "" for None."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def from_dict(fields: dict[str, Any]) -> Config:
    """The config that `to_dict` made these values of.

    Raises:
      TypeError: a field that this version does not have.
    """

    def value(name: str, stored: Any) -> Any:
        if isinstance(stored, list):
            return tuple(stored)
        return float(stored) if name in HYPER and stored in ("inf", "-inf") else stored

    return Config(**{name: value(name, stored) for name, stored in fields.items()})


def digest(config: Config) -> str:
    """Eight hexadecimal digits that tell configs apart, for names of run directories."""
    return digest_of(to_dict(config))


def digest_of(values: Any) -> str:
    """The same of any values that JSON can hold."""
    text = json.dumps(values, sort_keys=True)
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


# Fields that are hyper-parameters of an objective: each may follow a course over the steps.
HYPER = tuple(field.name for field in dataclasses.fields(Config) if field.type == Hyper | None)
# Fields that only some objectives have, as arguments of the same name.
SETTINGS = (*HYPER, "kl", "order", "partition", "phase", "group_size")
