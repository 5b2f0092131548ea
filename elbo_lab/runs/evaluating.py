"""Evaluates a stored run again: other draws, other K, other data; beside the run, never over it.

RUN/evaluations/NAME/evaluation.npz   every example's values, as the run's own
RUN/evaluations/NAME/summary.json     settings, the checkpoint's digest, and the numbers
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from elbo_lab import __version__, configs, data, evaluation, files, json_files, keys, methods
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError
from elbo_lab.evaluation import measures
from elbo_lab.reports import results, tables
from elbo_lab.runs import examples, sizes, stages
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
    config = _config(trained, settings)
    dataset = trained.dataset if dataset is None else _fitting(trained, settings, dataset)
    stored = {
        "elbo_lab": __version__,
        "checkpoint": trained.digest,
        "settings": dataclasses.asdict(settings),
        "data_sha256": data.digest(dataset),
        "seed": config.seed,
    }
    folder = trained.path / FOLDER / configs.digest_of(files.jsonable(stored))
    rows = _stored(folder, len(dataset.x_test))
    if rows is None:
        values = _measured(trained, settings, config, dataset, on_batch)
        rows = results.test_results(config, values, trained.spec)
        _write(folder, values, stored | {"results": [row._asdict() for row in rows]})
    titles = [
        ("run", f"{trained.path}, seed {trained.config.seed}, step {trained.step:,}"),
        ("data", f"{dataset.name}, {len(dataset.x_test):,} test examples"),
        ("kept in", str(folder)),
    ]
    return tables.result_table(titles, rows)


def _config(trained: Trained, settings: Settings) -> configs.Config:
    """The run's config, with the settings' numbers of draws.

    Raises:
      UserError: numbers of draws or a seed that cannot be.
    """
    given = {n: v for n in ("k", "eval_k") if (v := getattr(settings, n)) is not None}
    config = trained.config
    if given and config.k is None:
        name, value = next(iter(given.items()))
        kind = config.objective or config.model
        raise UserError(
            f"--{name}={value} does not go with {trained.path}, a run of {kind}, which is measured "
            "without draws."
        )
    config = dataclasses.replace(config, **given)
    if config.k is not None and config.eval_k < config.k:
        raise UserError(
            f"--eval_k must be at least --k, {config.k}, so that the IWAE-k bound can be "
            f"evaluated; got {config.eval_k} (what is not given is the run's)."
        )
    if config.eval_k > sizes.MOST_EVALUATED:
        raise UserError(
            f"--eval_k must be at most {sizes.MOST_EVALUATED:,}; got {config.eval_k:,}."
        )
    if settings.seed is not None and not 0 <= settings.seed < 2**31:
        raise UserError(f"--seed must lie in 0..{2**31 - 1}; got {settings.seed}.")
    return config


def _fitting(trained: Trained, settings: Settings, dataset: Dataset) -> Dataset:
    """The other data set, if the model takes it.

    Raises:
      UserError: its examples are of another kind, shape or number of levels, or there are none.
    """
    if not len(dataset.x_test):
        raise UserError(f"--dataset={settings.dataset} has no test examples.")
    tested = dataset._replace(x_train=dataset.x_test)
    spec, own = data.spec_of(tested, trained.config.binarization), trained.spec
    if spec[:3] != own[:3]:
        raise UserError(
            f"--dataset={settings.dataset} has test examples of {_shown(spec)}; {trained.path} was "
            f"trained on {_shown(own)}."
        )
    return dataset


def _shown(spec: data.Spec) -> str:
    levels = "real numbers" if spec.levels is None else f"{spec.levels} levels"
    return f"kind {spec.kind}, shape {spec.shape} and {levels}"


def _stored(folder: Path, number: int) -> list[tables.Result] | None:
    """The results of an evaluation that is complete; None if it has to be made."""
    try:
        summary = json_files.read(folder / "summary.json", {"results": list[dict]})
        rows = results.from_json(summary["results"])
    except (UserError, KeyError):
        return None
    values = evaluation.read_evaluations(folder / "evaluation.npz", number)
    return rows if values else None


def _measured(
    trained: Trained, settings: Settings, config: configs.Config, dataset: Dataset, on_batch
) -> evaluation.Evaluation:
    method = methods.make(config, trained.spec, len(trained.dataset.x_train))
    method = method._replace(measure=measures.combined(list(settings.measures), method))
    seed = config.seed if settings.seed is None else settings.seed
    key = keys.stream_key(keys.base_key(seed), keys.EVALUATION)
    test = examples.of_test(config, dataset, trained.spec)
    evaluator = evaluation.make_evaluator(method)
    found = evaluation.evaluate(evaluator, key, trained.params, trained.stats, test, on_batch)
    return found | stages.pair_bound(dataset, found)


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
    for name in names or [""]:
        if name not in measures.MEASURES:
            choices = ", ".join(measures.MEASURES)
            raise UserError(f"--measures must be among {choices}; got {name!r}.")
    return tuple(dict.fromkeys(names))
