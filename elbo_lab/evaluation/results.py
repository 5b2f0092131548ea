"""From values per image to reported numbers."""

import math

import numpy as np

from elbo_lab.config import Config
from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD, activity
from elbo_lab.evaluation.bounds import Evaluation
from elbo_lab.report import Result

NATS = "nats per image"
LOWER_BOUND = "lower bound in expectation"


def test_results(config: Config, evaluation: Evaluation) -> list[Result]:
    """The test split's numbers of one run, with standard errors over images.

    Args:
      config: the run's; k and eval_k name the bounds.
      evaluation: values per test image.

    Returns:
      ELBO, IWAE-k, L_K, KL, reconstruction term, effective sample size, active units per layer.
    """
    draws = config.eval_k
    results = [
        _mean("ELBO", "ELBO", evaluation.elbo, bound=LOWER_BOUND, k=1),
        _mean("IWAE bound", f"L_{config.k}", evaluation.iwae, bound=LOWER_BOUND, k=config.k),
        _mean(
            "log-likelihood", f"L_{draws}", evaluation.log_likelihood, bound=LOWER_BOUND, k=draws
        ),
        _mean("KL(q(z|x) || p(z))", "KL", evaluation.kl),
        _mean("reconstruction", "E_q log p(x|z)", evaluation.reconstruction),
        _mean(
            "effective sample size", f"ESS of {draws}", evaluation.effective_sample_size, "draws"
        ),
    ]
    of_train = bool(evaluation.train_means)
    layers = evaluation.train_means if of_train else evaluation.means
    for i, means in enumerate(layers):
        layer = f", layer {i + 1}" if len(layers) > 1 else ""
        active = float(np.sum(activity(means) > ACTIVE_THRESHOLD))
        name = f"active units{layer} of {means.shape[1]}"
        split = "train" if of_train else "test"
        results.append(Result(name, "AU", active, unit="units", split=split))
    return results


def train_result(config: Config, records: list[dict], first_step: int, replicate: int) -> Result:
    """The training bound of one replicate: the mean over the steps of the lines of metrics that end
    after `first_step`.
    """
    steps = np.diff([0, *(r["step"] for r in records)])  # of each line: the last may be shorter
    late = [i for i, r in enumerate(records) if r["step"] > first_step]
    bounds = [np.ravel(records[i]["bound"])[replicate] for i in late]
    iwae = (f"L_{config.k}", config.k)
    symbol, k = {
        **dict.fromkeys(("elbo", "wake_sleep"), ("ELBO", 1)),
        **dict.fromkeys(("iwae", "miwae", "rws", "iwae_elbo"), iwae),
        "piwae": (f"L_{config.m * config.k}", config.m * config.k),
    }.get(config.objective, ("", None))
    # What else is trained by is no bound at any setting, or none of a known direction at every K.
    is_bound = symbol or config.objective in ("ciwae", "free_bits", "free_bits_batch")
    return Result(
        "training bound" if is_bound else "training objective",
        symbol,
        float(np.average(bounds, weights=steps[late])),
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
