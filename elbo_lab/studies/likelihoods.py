"""Estimates of log p(x) by draws of z: from the prior, from a fixed proposal, from the posterior,
from q(z|x) as ELBO and as IWAE; bias, spread and gradients against exact values.
"""

from collections.abc import Callable
from typing import Any

from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.reports import likelihood_figures
from elbo_lab.studies import likelihood_analysis, likelihood_results
from elbo_lab.studies.study import Computation, Study

# Draws of a repeat, which take 0.2 GB.
MOST_DRAWS = 10_000


def check(config: Config) -> None:
    """Raises a UserError for numbers of draws or of repeats out of range."""
    if not 1 <= config.k <= MOST_DRAWS:
        raise UserError(
            f"--k must lie in 1..{MOST_DRAWS} in the study likelihoods, which keeps all draws of a "
            f"repeat in memory; got {config.k}."
        )
    if config.replicates < 2:
        raise UserError(
            "--replicates must be at least 2 in the study likelihoods, which measures the spread "
            f"of an estimate over its repeats; got {config.replicates}."
        )


def compute(config: Config, on_progress: Callable[[float], None]) -> dict[str, Any]:
    """The results: see `likelihood_analysis.all_problems`.

    Args:
      config: reads k (the greatest K), replicates (repeats) and seed.
      on_progress: called with the part that is done, from 0 to 1.
    """
    total = len(likelihood_analysis.BOTH_GROW + likelihood_analysis.DATA_GROW)
    done = 0

    def on_problem() -> None:
        nonlocal done
        done += 1
        on_progress(done / total)

    models = likelihood_analysis.all_problems(config.seed, config.k, config.replicates, on_problem)
    sizes = {"examples": likelihood_analysis.EXAMPLES, "repeats": config.replicates}
    return {**sizes, "models": models}


def figure(results: dict[str, Any]) -> str:
    """SVG of bias, spread and gradient against K, a column for each L."""
    return likelihood_figures.estimates(likelihood_results.with_all_estimates(results))


STUDY = Study(
    "likelihoods",
    "Does a better proposal or a larger K decide how well draws estimate log p(x)?",
    {"k": "1000", "replicates": "100", "seed": "0"},
    caption="Estimates of log p(x) with K draws, against the exact value, for L latents. Top: how "
    "far they are below it on average (not shown where that is within two standard errors of 0). "
    "Middle: standard deviation. Bottom: cosine of the estimate's gradient, by the "
    "generation network's weights, with that of log p(x).",
    computation=Computation(
        compute, likelihood_results.text, figure, likelihood_results.KIND, check
    ),
)
