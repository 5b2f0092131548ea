"""What the study information computes: estimates of known mutual information, and those of the
trained runs. They are kept in the study's folder, in estimates.json, part after part.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import keys
from elbo_lab.evaluation import aggregate_posterior, information
from elbo_lab.runs import examples, informing
from elbo_lab.runs.loading import Trained
from elbo_lab.studies import analysed_runs, information_laws, stored_results
from elbo_lab.studies.analysed_runs import Part
from elbo_lab.studies.information_laws import Law
from elbo_lab.studies.study import Load

FILE = "estimates.json"
LATENTS, EPOCHS = "latent_dims", "epochs"  # the axes of the grid
# Correlated Gaussians: d, the exact information in nats, and numbers of examples N.
DIM, EXACT, NUMBERS = 10, (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0), (16, 1024)
# N for the laws in the plane; draws of all repeats of an estimate together; points of a figure.
PLANAR_NUMBER, DRAWS, POINTS = 1024, 16384, 250
_SEED = 0

_ESTIMATE = {f"{name}{end}": float for name in informing.ESTIMATES for end in ("", "_error")}
LAW = {"law": str, "exact": float, "covariance": float, "examples": int} | _ESTIMATE
LAW |= {"repeats": int, "points": list[list[float]]}
GAUSSIAN = {"exact": float, "examples": int, "repeats": int, "model_exact": float} | _ESTIMATE
GAUSSIAN |= {name: float for name in ("model", "model_error", "critic", "critic_error")}
# Estimates of a run -> its array of `aggregate_posterior.make_measure`.
OF_RUNS = {
    "lower": "information",
    "corrected": "information_corrected",
    "upper": "information_loo",
    "rate": "information_rate",
    "model": "model_information",
    "kl": "aggregate_kl_corrected",
}
RUN = {"latent_dims": str, "epochs": int, "seed": int, "source": str, "examples": int}
RUN |= {f"{name}{end}": float | None for name in OF_RUNS for end in ("", "_error")}
_KIND = {"laws": list[LAW], "gaussians": list[GAUSSIAN], "runs": list[RUN]}


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the estimates that estimates.json lacks, once all runs are trained.

    Arguments and errors: see `study.AfterTraining`.
    """
    runs = analysed_runs.trained_runs(path, sweep, load)
    if not runs:
        return
    content = read(path) or {"laws": [], "gaussians": [], "runs": []}
    for name, estimates in (("laws", planar_rows), ("gaussians", gaussian_rows)):
        if not content[name]:
            content[name] = estimates()
            stored_results.write(path / FILE, content)
    # Runs with the same latents have the same model: its measurement is compiled once.
    measure_of = {
        run.cell["values"][LATENTS]: aggregate_posterior.make_measure(run.trained.method)
        for run in runs
    }
    parts = []
    for run in runs:
        latents, epochs = run.cell["values"][LATENTS], int(run.cell["values"][EPOCHS])
        # The replicates of a run share its checkpoint.
        fields = {"seed": run.trained.config.seed, "source": run.trained.digest}
        fields |= {"latent_dims": latents, "epochs": epochs}
        measure = measure_of[latents]
        parts.append(Part(fields, functools.partial(_run_rows, run.trained, measure)))
    analysed_runs.compute_missing(path / FILE, content, parts, "estimates", "runs", field="runs")


def read(path: Path) -> dict[str, Any] | None:
    """The estimates in a study's folder; None if there are none, or the file is damaged."""
    return stored_results.read_undamaged(path / FILE, _KIND)


def planar_rows() -> list[dict[str, Any]]:
    """Estimates of the two laws of equal covariance, with points of each."""
    rows = []
    for index, law in enumerate(information_laws.planar()):
        rng = np.random.default_rng([_SEED, index])
        repeats = DRAWS // PLANAR_NUMBER
        pairs = [law.draw(rng, PLANAR_NUMBER) for _ in range(repeats)]
        x, z = (np.concatenate(parts)[:, 0] for parts in zip(*pairs, strict=True))
        row = {"law": law.name, "exact": law.exact, "examples": PLANAR_NUMBER, "repeats": repeats}
        row |= {"covariance": float(np.cov(x, z)[0, 1]), **_estimates(law, pairs)}
        row["points"] = [np.round(values[:POINTS], 3).tolist() for values in (x, z)]
        rows.append(row)
    return rows


def gaussian_rows() -> list[dict[str, Any]]:
    """Estimates of correlated Gaussians for each exact information and each N."""
    return [
        gaussian_row(exact, DIM, number, DRAWS // number) for number in NUMBERS for exact in EXACT
    ]


def gaussian_row(exact: float, dim: int, number: int, repeats: int) -> dict[str, Any]:
    """Means over repeats, and their standard errors, of estimates from N draws of Gaussians.

    Args:
      exact: I(x; z), nats.
      dim: d.
      number: N.
      repeats: at least 2.
    """
    law = information_laws.gaussian(exact, dim)
    rng = np.random.default_rng([_SEED, number, round(1000 * exact)])
    pairs = [law.draw(rng, number) for _ in range(repeats)]
    critic = information_laws.critic(exact, dim)
    bound = functools.partial(information_laws.barber_agakov, exact, dim)
    return {
        **{"exact": exact, "examples": number, "repeats": repeats},
        **_estimates(law, pairs),
        **_mean("critic", [_of_matrix(critic(*pair))[0] for pair in pairs]),
        **_mean("model", [bound(*pair) for pair in pairs]),
        "model_exact": information_laws.exact_barber_agakov(exact, dim),
    }


def _estimates(law: Law, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Mean and standard error over repeats of each estimate."""
    by_repeat = np.array([_of_matrix(law.log_q(*pair)) for pair in pairs])
    row: dict[str, float] = {}
    for name, values in zip(informing.ESTIMATES, by_repeat.T, strict=True):
        row |= _mean(name, values)
    return row


@jax.jit
def _means(log_q: jax.Array) -> jax.Array:
    return jnp.stack([jnp.mean(values) for values in information.of_matrix(log_q)])


def _of_matrix(log_q: np.ndarray) -> np.ndarray:
    """Means of the three estimates over the draws of a matrix, [3]."""
    return np.float64(_means(jnp.asarray(log_q, jnp.float32)))


def _mean(name: str, values: Any) -> dict[str, float]:
    """Mean and standard error of values [R]; the error is NaN where a value is infinite."""
    with np.errstate(invalid="ignore"):
        error = np.std(values, ddof=1) / math.sqrt(len(values))
    return {name: float(np.mean(values)), f"{name}_error": float(error)}


def _run_rows(
    trained: Trained, measure: Callable[..., dict[str, jax.Array]]
) -> list[dict[str, Any]]:
    """Means over the test examples of a run, and their standard errors: one row."""
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    values = informing.measured(measure, keys.base_key(trained.config.seed), trained, test)
    row: dict[str, Any] = {"examples": len(trained.dataset.x_test)}
    for name, array in OF_RUNS.items():
        row |= _mean(name, np.float64(values[array]))
    return [row]
