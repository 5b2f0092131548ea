"""Evaluates a stored run again: other draws, other K, other data; beside the run, never over it.

RUN/evaluations/NAME/evaluation.npz   every example's values, as the run's own
RUN/evaluations/NAME/summary.json     settings, the checkpoint's digest, and the numbers
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from elbo_lab import __version__, configs, data, evaluation, files, keys, methods
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError
from elbo_lab.evaluation import measures
from elbo_lab.reports import results, tables
from elbo_lab.runs import examples
from elbo_lab.runs.loading import Trained

FOLDER = "evaluations"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is evaluated; None keeps what the run has."""

    measures: tuple[str, ...] = ("quantities",)
    k: int | None = None
    eval_k: int | None = None
    seed: int | None = None  # of the draws
    dataset: str | None = None


def evaluate(
    trained: Trained,
    settings: Settings,
    dataset: Dataset | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
) -> str:
    """Evaluates the test split and stores the values, unless they are stored already.

    Args:
      trained: a run.
      settings: what differs from the run's own evaluation.
      dataset: that of the settings, where they name one.
      on_batch: called with how many examples are done.

    Returns:
      The table, which names the folder of the evaluation.

    Raises:
      UserError: the data do not fit the model, or the disk refuses.
      ValueError: a measure does not go with the method.
    """
    dataset = trained.dataset if dataset is None else _fitting(trained, dataset)
    config = _config(trained, settings)
    stored = {
        "elbo_lab": __version__,
        "checkpoint": trained.digest,
        "settings": dataclasses.asdict(settings),
        "data_sha256": data.digest(dataset),
        "seed": config.seed,
    }
    folder = trained.path / FOLDER / configs.digest_of(files.jsonable(stored))
    summary_path = folder / "summary.json"
    if not summary_path.exists():
        values = _measured(trained, settings, config, dataset, on_batch)
        rows = results.test_results(config, values, trained.spec)
        _write(folder, values, stored | {"results": [row._asdict() for row in rows]})
    rows = [tables.Result(**row) for row in files.read_json(summary_path)["results"]]
    titles = [
        ("run", f"{trained.path}, seed {trained.config.seed}, step {trained.step:,}"),
        ("data", f"{dataset.name}, {len(dataset.x_test):,} test examples"),
        ("kept in", str(folder)),
    ]
    return tables.result_table(titles, rows)


def _config(trained: Trained, settings: Settings) -> configs.Config:
    given = {n: v for n in ("k", "eval_k") if (v := getattr(settings, n)) is not None}
    return dataclasses.replace(trained.config, **given)


def _fitting(trained: Trained, dataset: Dataset) -> Dataset:
    """The other data set, if the model takes it."""
    spec = data.spec_of(dataset, trained.config.binarization)
    if (spec.kind, spec.shape) != (trained.spec.kind, trained.spec.shape):
        raise UserError(
            f"--dataset={dataset.name} has examples of the kind {spec.kind} and the shape "
            f"{spec.shape}; {trained.path} was trained on {trained.spec.kind} {trained.spec.shape}."
        )
    if not len(dataset.x_test):
        raise UserError(f"--dataset={dataset.name} has no test examples.")
    return dataset


def _measured(
    trained: Trained, settings: Settings, config: configs.Config, dataset: Dataset, on_batch
) -> evaluation.Evaluation:
    method = methods.make(config, trained.spec, len(trained.dataset.x_train))
    method = method._replace(measure=measures.combined(list(settings.measures), method))
    seed = config.seed if settings.seed is None else settings.seed
    key = keys.stream_key(keys.base_key(seed), keys.EVALUATION)
    test = examples.of_test(config, dataset, trained.spec)
    return evaluation.evaluate(
        evaluation.make_evaluator(method),
        key,
        trained.params,
        trained.stats,
        test,
        on_batch,
    )


def _write(folder: Path, values: evaluation.Evaluation, summary: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    evaluation.write_evaluations(folder / "evaluation.npz", {0: jax.device_get(values)})
    # Last: its presence means that the evaluation is complete.
    files.write_summary(folder / "summary.json", summary)


def checked_measures(names: Sequence[str]) -> tuple[str, ...]:
    """The measures of these names.

    Raises:
      UserError: there is no such measure.
    """
    for name in names:
        if name not in measures.MEASURES:
            choices = ", ".join(measures.MEASURES)
            raise UserError(f"--measures must be among {choices}; got {name!r}.")
    return tuple(dict.fromkeys(names))
