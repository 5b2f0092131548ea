"""What the study mixtures computes from a trained mixture: EM's path, and log p(x) = ELBO + KL."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import keys, models
from elbo_lab.distributions.mixtures import responsibilities
from elbo_lab.evaluation.finite_latents import decomposition
from elbo_lab.models import NOTHING_GIVEN
from elbo_lab.models.mixture import EMMixture
from elbo_lab.runs import examples
from elbo_lab.runs.loading import Trained
from elbo_lab.studies.study import Load

# Iterations of EM in the path.
ITERATIONS = 30
# Draws of the mixture, and points on an axis of the density's grid, in the figure.
DRAWS, GRID = 2000, 160


class EMPath(NamedTuple):
    """Means over examples along T iterations of EM, in nats."""

    log_px: np.ndarray  # [T + 1], log p(x) before the first iteration, and after each
    elbo: np.ndarray  # [T], ELBO(q, x) after an M-step, with the q of the E-step before it


class Density(NamedTuple):
    """A density of two dimensions on a grid."""

    horizontal: np.ndarray  # [GRID]
    vertical: np.ndarray  # [GRID]
    values: np.ndarray  # [GRID, GRID], p(x); a row for each value of the vertical axis


class Analysis(NamedTuple):
    """What the study shows of its first cell, one trained mixture."""

    path: EMPath
    decomposition: list[dict[str, Any]]  # of `decompositions`
    examples: np.ndarray  # [N, D], of the training split
    draws: np.ndarray  # [DRAWS, D]
    density: Density | None  # None in other than two dimensions


# Directory and replicate of a run -> what the table and the figure share.
_analysed: dict[tuple[Path, int], Analysis] = {}


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Analyses the sweep's first cell, for `of_sweep`.

    Arguments and errors: see `study.AfterTraining`.
    """
    place = _place(path, sweep)
    if place is not None and place not in _analysed:
        _analysed[place] = _of_run(load(*place))


def of_sweep(path: Path, sweep: dict[str, Any]) -> Analysis | None:
    """The analysis of a sweep's first cell, once `compute` has made it; None until it is trained,
    or if EM did not fit it.
    """
    return _analysed.get(_place(path, sweep))


def _place(path: Path, sweep: dict[str, Any]) -> tuple[Path, int] | None:
    """Directory and replicate of the first run of the first cell, if EM fitted it."""
    cell = sweep["cells"][0]
    if not cell.get("runs") or cell["config"]["fit"] != "em":
        return None
    run = cell["runs"][0]
    return path / run["run"], run["replicate"]


def _of_run(trained: Trained) -> Analysis:
    model = models.make(trained.config, trained.spec)
    law = model.distribution(trained.params, trained.stats, NOTHING_GIVEN)
    train = examples.all_of_train(trained.config, trained.dataset, trained.spec).x
    test = examples.test_examples(trained.config, trained.dataset, trained.spec).x
    base_key = keys.base_key(trained.config.seed)
    init_key = keys.stream_key(base_key, keys.INITIALIZATION)
    start = model.init(init_key, *examples.first_rows(trained.dataset))
    draws = law.sample(keys.stream_key(base_key, keys.SAMPLES), (DRAWS,))
    return Analysis(
        em_path(model, start, train, ITERATIONS),
        decompositions(law, test),
        np.asarray(train),
        np.asarray(draws),
        _on_grid(law, np.asarray(train)) if train.shape[1] == 2 else None,
    )


def em_path(model: EMMixture, start: Any, x: Array, iterations: int) -> EMPath:
    """EM on all examples at once.

    Args:
      model: the mixture.
      start: its statistics before the first iteration.
      x: [N, D].
      iterations: T.
    """

    def law(statistics: Any) -> Any:
        return model.distribution((), statistics, NOTHING_GIVEN)

    @jax.jit
    def run(start: Any, x: Array) -> tuple[Array, tuple[Array, Array]]:
        def iteration(statistics: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
            q, _ = responsibilities(law(statistics), x)
            statistics = model.update(statistics, x, q, 0.0)
            after = decomposition(law(statistics).component_log_probs(x), jnp.log(q))
            return statistics, (jnp.mean(after.log_px), jnp.mean(after.elbo))

        first = jnp.mean(law(start).log_prob(x))
        return first, jax.lax.scan(iteration, start, length=iterations)[1]

    first, (log_px, elbo) = jax.device_get(run(start, x))
    return EMPath(np.append(first, log_px), elbo)


def decompositions(law: Any, x: Array) -> list[dict[str, Any]]:
    """Means over examples of log p(x), ELBO(q) and KL(q || p(z|x)), for several q (13.3).

    Args:
      law: a mixture of K components.
      x: [N, D].

    Returns:
      A row for each q: its name "q", "log_px", "elbo", "kl", and "residual", the largest
      |log p(x) - ELBO - KL| of an example.
    """
    log_joint = law.component_log_probs(x)
    posterior, _ = responsibilities(law, x)
    number = log_joint.shape[-1]
    qs = {
        "p(z|x), the posterior": posterior,
        "the likeliest component alone": jax.nn.one_hot(jnp.argmax(posterior, axis=-1), number),
        "half posterior, half uniform": (posterior + 1 / number) / 2,
        "p(z), the weights": law.mixing_distribution.probs,
        "uniform": jnp.full(number, 1 / number),
    }
    rows = []
    for name, q in qs.items():
        parts = decomposition(log_joint, jnp.log(q))
        row = {field: float(jnp.mean(values)) for field, values in parts._asdict().items()}
        residual = jnp.max(jnp.abs(parts.log_px - parts.elbo - parts.kl))
        rows.append({"q": name, **row, "residual": float(residual)})
    return rows


def _on_grid(law: Any, x: np.ndarray) -> Density:
    """p(x) on a square grid around the examples [N, 2]."""
    reach = 1.15 * np.max(np.abs(x - x.mean(axis=0)))
    horizontal, vertical = (np.linspace(m - reach, m + reach, GRID) for m in x.mean(axis=0))
    points = np.stack(np.meshgrid(horizontal, vertical), axis=-1).astype(np.float32)
    return Density(horizontal, vertical, np.exp(np.asarray(law.log_prob(jnp.asarray(points)))))
