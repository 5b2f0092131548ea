"""Evaluates a stored run again, with other draws, another K or other data.

The run's own evaluation stays; each of these has its own folder:

RUN/evaluations/NAME/evaluation.npz   every example's values, in the format of the run's own
RUN/evaluations/NAME/summary.json     settings, the checkpoint's digest, and the numbers
RUN/evaluations/NAME/classification.svg  of the measure `classification`: confusion and calibration
RUN/evaluations/NAME/information.svg     of the measure `information`: bounds against N
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from elbo_lab import __version__, configs, data, evaluation, files, json_files, keys, methods
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError
from elbo_lab.evaluation import measures
from elbo_lab.reports import (
    classification_figures,
    information_figures,
    results,
    svg_figures,
    tables,
)
from elbo_lab.runs import classifying, examples, informing, sizes, stages, text_measuring
from elbo_lab.runs.loading import Trained

FOLDER = "evaluations"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of an evaluation; None stands for the run's own value."""

    measures: tuple[str, ...] = ("quantities",)
    k: int | None = None
    eval_k: int | None = None
    seed: int | None = None  # of the draws
    dataset: str | None = None
    information_examples: int | None = None  # N of the measure `information`

    def stored(self) -> dict[str, Any]:
        """The settings in summary.json and in the name of the evaluation's folder.

        What only one measure reads is left out without it: older evaluations keep their names.
        """
        values = dataclasses.asdict(self)
        if informing.NAME not in self.measures:
            del values["information_examples"]
        return values


class Kept(NamedTuple):
    """An evaluation that is stored."""

    folder: Path
    values: evaluation.Evaluation  # per test example
    rows: list[tables.Result]
    # of the measure `classification`: `classifying.Classified.summary`; None without it
    classification: dict[str, Any] | None


def evaluate(
    trained: Trained,
    settings: Settings,
    dataset: Dataset | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
) -> str:
    """The table of an evaluation, which names its folder. See `kept` for arguments and errors."""
    evaluated = kept(trained, settings, dataset, on_batch)
    own = trained.dataset if dataset is None else dataset
    titles = [
        ("run", f"{trained.path}, seed {trained.config.seed}, step {trained.step:,}"),
        ("data", f"{own.name}, {len(own.x_test):,} test examples"),
        ("kept in", str(evaluated.folder)),
    ]
    return tables.result_table(titles, evaluated.rows)


def kept(
    trained: Trained,
    settings: Settings,
    dataset: Dataset | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Kept:
    """Evaluates the test split and stores the values, unless they are stored already.

    Args:
      trained: a run.
      settings: the differences from the run's own evaluation.
      dataset: the one that the settings name; None if they name none.
      on_batch: called with the number of examples that are done.

    Raises:
      UserError: the data do not fit the model, or a file cannot be written.
      ValueError: a measure does not go with the method.
    """
    config = _config(trained, settings)
    if dataset is None:
        dataset = trained.dataset
    else:
        _check_dataset(trained, settings, dataset)
    if classifying.NAME in settings.measures:
        classifying.check(trained)
    informing.check(trained, settings.measures, settings.information_examples, dataset)
    if text_measuring.NAME in settings.measures:
        text_measuring.check(trained)
    stored = {
        "elbo_lab": __version__,
        "checkpoint": trained.digest,
        "settings": settings.stored(),
        "data_sha256": data.digest(dataset, with_labels=trained.method.classes is not None),
        "seed": config.seed,
    }
    folder = trained.path / FOLDER / configs.digest_of(files.jsonable(stored))
    complete = _stored(folder, len(dataset.x_test))
    if complete is not None:
        return complete
    values = _measured(trained, settings, config, dataset, on_batch)
    classified = None
    if classifying.NAME in settings.measures:
        classified = classifying.classified(trained, dataset, values)
        values |= classified.values
    rows = results.test_results(config, values, trained.spec)
    if classified is not None:
        rows += classified.rows
        stored[classifying.NAME] = classified.summary
    if informing.NAME in settings.measures:
        size = settings.information_examples or len(dataset.x_test)
        rows += informing.rows(size, trained.spec.kind)
        stored[informing.NAME] = informing.summary(values, size)
    if text_measuring.NAME in settings.measures:
        seed = config.seed if settings.seed is None else settings.seed
        key = keys.stream_key(keys.base_key(seed), keys.SAMPLES)
        own, stored["text"] = text_measuring.measured(trained, dataset, values, key, seed)
        rows += own
    _write(folder, values, stored | {"results": [row._asdict() for row in rows]})
    return Kept(folder, values, rows, files.jsonable(stored.get(classifying.NAME)))


def _config(trained: Trained, settings: Settings) -> configs.Config:
    """The run's config, with the settings' numbers of draws.

    Raises:
      UserError: the numbers of draws or the seed are out of range, or the run has no draws.
    """
    draws = {"k": settings.k, "eval_k": settings.eval_k}
    draws = {name: value for name, value in draws.items() if value is not None}
    config = trained.config
    if draws and config.k is None:
        name, value = next(iter(draws.items()))
        raise UserError(
            f"--{name}={value} does not go with {trained.path}, a run of "
            f"{config.objective or config.model}, which is measured without draws."
        )
    config = dataclasses.replace(config, **draws)
    if config.k is not None and config.eval_k < config.k:
        raise UserError(
            f"--eval_k must be at least --k, {config.k}, so that the IWAE-k bound can be "
            f"evaluated; got {config.eval_k} (a flag that is not given has the run's value)."
        )
    if config.eval_k > sizes.MOST_EVALUATED:
        raise UserError(
            f"--eval_k must be at most {sizes.MOST_EVALUATED:,}; got {config.eval_k:,}."
        )
    if settings.seed is not None and not 0 <= settings.seed < 2**31:
        raise UserError(f"--seed must lie in 0..{2**31 - 1}; got {settings.seed}.")
    return config


def _check_dataset(trained: Trained, settings: Settings, dataset: Dataset) -> None:
    """Raises a UserError for a data set without test examples, or with examples of another kind,
    shape or number of levels than the model's.
    """
    if not len(dataset.x_test):
        raise UserError(f"--dataset={settings.dataset} has no test examples.")
    # `spec_of` looks at training examples.
    as_train = dataset._replace(x_train=dataset.x_test)
    spec, own = data.spec_of(as_train, trained.config.binarization), trained.spec
    if spec[:3] != own[:3]:
        raise UserError(
            f"--dataset={settings.dataset} has test examples of {_shown(spec)}; {trained.path} was "
            f"trained on {_shown(own)}."
        )
    if dataset.text != trained.dataset.text:
        raise UserError(
            f"--dataset={settings.dataset} has another vocabulary or other lines than the texts "
            f"that {trained.path} was trained on."
        )
    _check_labels(trained, settings, dataset)


def _check_labels(trained: Trained, settings: Settings, dataset: Dataset) -> None:
    """Raises a UserError for a data set whose labels are not those of a conditional model."""
    classes = trained.method.classes
    if classes is None:
        return
    if dataset.y_test is None:
        raise UserError(
            f"--dataset={settings.dataset} has no labels, and {trained.path} is a model of p(x|y)."
        )
    if dataset.y_test.max() >= classes:
        raise UserError(
            f"--dataset={settings.dataset} has labels up to {dataset.y_test.max()}; "
            f"{trained.path} was trained on 0..{classes - 1}."
        )


def _shown(spec: data.Spec) -> str:
    """A spec in words."""
    levels = "real numbers" if spec.levels is None else f"{spec.levels} levels"
    return f"kind {spec.kind}, shape {spec.shape} and {levels}"


def _stored(folder: Path, number: int) -> Kept | None:
    """A complete evaluation of N examples; None if it is missing, incomplete or damaged."""
    try:
        summary = json_files.read(folder / "summary.json", {"results": list[dict]})
        rows = results.from_json(summary["results"])
    except (UserError, KeyError):
        return None
    values = evaluation.read_evaluations(folder / "evaluation.npz", number)
    return Kept(folder, values[0], rows, summary.get(classifying.NAME)) if values else None


def _measured(
    trained: Trained, settings: Settings, config: configs.Config, dataset: Dataset, on_batch
) -> evaluation.Evaluation:
    """Values per test example."""
    method = methods.make(config, trained.spec, len(trained.dataset.x_train))
    seed = config.seed if settings.seed is None else settings.seed
    base_key, values = keys.base_key(seed), {}
    test = examples.test_examples(config, dataset, trained.spec)
    by_batch = [name for name in settings.measures if not measures.MEASURES[name].of_split]
    if informing.NAME in settings.measures:
        measure = measures.information(method, settings.information_examples)
        values |= informing.measured(measure, base_key, trained, test)
    if by_batch:
        evaluator = evaluation.make_evaluator(
            method._replace(measure=measures.combined(by_batch, method))
        )
        key = keys.stream_key(base_key, keys.EVALUATION)
        values |= evaluation.evaluate(evaluator, key, trained.params, trained.stats, test, on_batch)
    return values | stages.pair_bound(dataset, values)


def _write(folder: Path, values: evaluation.Evaluation, summary: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    evaluation.write_evaluations(folder / "evaluation.npz", {0: jax.device_get(values)})
    figures = {}
    if classifying.NAME in summary:
        classifiers = summary[classifying.NAME]["classifiers"]
        figures[classifying.FIGURE] = classification_figures.figure(classifiers, classifying.OWN)
    if informing.NAME in summary:
        figures[informing.FIGURE] = information_figures.by_size(summary[informing.NAME])
    for name, svg in figures.items():
        files.write_atomically(folder / name, (svg_figures.standalone(svg) + "\n").encode())
    # Written last: its presence means that the evaluation is complete.
    files.write_summary(folder / "summary.json", summary)


def checked_measures(names: Sequence[str]) -> tuple[str, ...]:
    """The names of measures without repetitions.

    Raises:
      UserError: there is no name, or no such measure.
    """
    for name in names or [""]:
        if name not in measures.MEASURES:
            choices = ", ".join(measures.MEASURES)
            raise UserError(f"--measures must be among {choices}; got {name!r}.")
    return tuple(dict.fromkeys(names))
