"""From values per example to reported numbers."""

import math
from typing import Any

import numpy as np

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.data.dataset import Spec
from elbo_lab.evaluation import quantities
from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD, activity
from elbo_lab.evaluation.evaluator import Evaluation
from elbo_lab.evaluation.quantities import BITS, LOWER_BOUND, NATS, UPPER_BOUND
from elbo_lab.methods import codebook
from elbo_lab.models.laws import LIKELIHOODS
from elbo_lab.reports.tables import Result
from elbo_lab.training.metrics import covered_steps


def test_results(config: Config, evaluation: Evaluation, spec: Spec | None = None) -> list[Result]:
    """The test split's numbers of one run, with standard errors over examples.

    Where p(x|z) is a density, the names of what depends on it end in ", density". Where it is a
    mass of 256 levels, the log-likelihood is also given in bits per dimension, -log p / (D log 2):
    an upper bound in expectation if log p is a lower bound.

    Args:
      config: the run's; it names the bounds' numbers of draws.
      evaluation: values per test example.
      spec: of the data; without it nothing is given in bits per dimension.

    Returns:
      The means of `quantities.QUANTITIES` that there are, active units per layer, and the use of
      the codebook.
    """
    settings, density = configs.to_dict(config), is_density(config)
    results = []
    for name, quantity in quantities.present(evaluation).items():
        of = ", density" if quantity.of_x and density else ""
        results.append(
            _mean(
                quantity.title + of,
                quantities.symbol(quantity, settings),
                evaluation[name],
                quantity.unit,
                quantity.direction,
                quantities.num_draws(quantity, settings),
            )
        )
    if spec is not None and spec.kind == "image" and spec.levels == 256 and not density:
        results += _bits(evaluation, spec.dim, settings)
    return results + active_units(evaluation) + code_use(evaluation, settings)


def from_json(rows: list[dict[str, Any]]) -> list[Result]:
    """The results that a summary's rows describe; null, which stands for NaN in JSON, is NaN."""
    found = [Result(**{name: row[name] for name in Result._fields}) for row in rows]
    return [r._replace(value=math.nan) if r.value is None else r for r in found]


def is_density(config: Config) -> bool:
    """Whether log p(x|.) is that of a density; a family without laws to choose from has masses."""
    likelihood = configs.own_settings(config).get("likelihood")
    return likelihood is not None and LIKELIHOODS[likelihood].density


def _bits(evaluation: Evaluation, dim: int, settings: dict[str, Any]) -> list[Result]:
    """The log-likelihoods in bits per dimension."""
    found = []
    for name in ("log_px", "log_likelihood", "pair_bound"):
        if name in evaluation:
            quantity = quantities.QUANTITIES[name]
            bits = -evaluation[name].astype(np.float64) / (dim * math.log(2))
            direction = {LOWER_BOUND: UPPER_BOUND}.get(quantity.direction, quantity.direction)
            symbol = f"-{quantities.symbol(quantity, settings)} / D"
            draws = quantities.num_draws(quantity, settings)
            found.append(_mean(BITS, symbol, bits, BITS, direction, draws))
    return found


def code_use(evaluation: Evaluation, settings: dict[str, Any]) -> list[Result]:
    """Perplexity and use of the codebook over the split, of a method with codes."""
    if "codes" not in evaluation:
        return []
    number = settings["num_codes"]
    perplexity, usage = map(float, codebook.codebook_use(evaluation["codes"], number))
    return [
        Result(f"perplexity of {number} codes", "exp H", perplexity, unit="codes", split="test"),
        Result(f"used codes of {number}", "", round(usage * number), unit="codes", split="test"),
    ]


def active_units(evaluation: Evaluation) -> list[Result]:
    """How many units of each layer are active, over training examples if those were measured."""
    split = "train" if quantities.layers(evaluation, "train") else "test"
    layers = quantities.layers(evaluation, split)
    results = []
    for i, means in enumerate(layers):
        layer = f", layer {i + 1}" if len(layers) > 1 else ""
        units = activity(means)
        active = float(np.sum(units > ACTIVE_THRESHOLD))
        name = f"active units{layer} of {units.size}"
        results.append(Result(name, "AU", active, unit="units", split=split))
    return results


def not_finite(evaluation: Evaluation) -> str:
    """Which values per example are not finite, in words; "" if all are."""
    counts = {
        name: int(np.sum(~np.isfinite(evaluation[name]))) for name in quantities.present(evaluation)
    }
    found = [f"{name} on {count}" for name, count in counts.items() if count]
    return f"not finite: {', '.join(found)} test images" if found else ""


def train_result(
    config: Config,
    records: list[dict],
    first_step: int,
    replicate: int,
    steps_per_line: int | None = None,
    term: str = "bound",
) -> Result:
    """The training bound of one replicate: the mean over the steps of the lines of metrics that end
    after `first_step`; NaN if there are none.

    Args:
      config: the run's.
      records: of `metrics.read_metrics`.
      first_step: the last step that does not count.
      replicate: which of R.
      steps_per_line: see `metrics.covered_steps`; all steps since the line before
        if not given.
      term: the term of the loss that is averaged.
    """
    steps = np.diff([0, *(r["step"] for r in records)])  # of each line: the last may be shorter
    if steps_per_line is not None:
        covered = covered_steps(records, steps_per_line)
        steps = np.array([last - first + 1 for first, last in covered], int)
    late = [i for i, r in enumerate(records) if r["step"] > first_step]
    bounds = [np.ravel(records[i][term])[replicate] for i in late]
    of = ", density" if is_density(config) else ""
    if term != "bound":
        title, unit = quantities.term(term, is_density(config))
        value = float(np.average(bounds, weights=steps[late])) if late else math.nan
        return Result(title, "", value, unit=unit, split="train")
    iwae = (f"L_{config.k}", config.k)
    symbol, k = {
        **dict.fromkeys(("elbo", "wake_sleep"), ("ELBO", 1)),
        **dict.fromkeys(("iwae", "miwae", "rws", "iwae_elbo"), iwae),
        "piwae": (f"L_{config.m * config.k}", config.m * config.k),
    }.get(config.objective, ("", None))
    # What else is trained by is no bound at any setting, or none of a known direction at every K.
    is_bound = symbol or config.objective in ("ciwae", "free_bits", "free_bits_batch")
    return Result(
        ("training bound" if is_bound else "training objective") + of,
        symbol,
        float(np.average(bounds, weights=steps[late])) if late else math.nan,
        unit=NATS,
        bound=LOWER_BOUND if is_bound else None,
        k=k,
        split="train",
    )


def _mean(
    name: str,
    symbol: str,
    values: np.ndarray,
    unit: str = NATS,
    bound: str | None = None,
    k: int | None = None,
) -> Result:
    values = np.asarray(values, np.float64)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return Result(
        name,
        symbol,
        float(np.mean(values)),
        error,
        "images" if error is not None else None,
        unit,
        bound,
        k,
        "test",
        len(values),
    )
