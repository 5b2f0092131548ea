"""Evaluates a stored run again, with other draws, another K, other data or fewer examples.

The run's own evaluation stays; each of these has its own folder:

RUN/evaluations/NAME/evaluation.npz   every example's values, in the format of the run's own
RUN/evaluations/NAME/summary.json     settings, the checkpoint's digest, and the numbers
RUN/evaluations/NAME/*.svg            figures of the measures that have one
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from elbo_lab import __version__, configs, data, evaluation, files, json_files, keys, methods
from elbo_lab.data import Dataset, text_files
from elbo_lab.errors import UserError
from elbo_lab.evaluation import measures
from elbo_lab.reports import results, svg_figures, tables
from elbo_lab.runs import (
    classifying,
    disentangling,
    examples,
    informing,
    sizes,
    stages,
    text_measuring,
)
from elbo_lab.runs.instruments import Settings
from elbo_lab.runs.loading import Trained

FOLDER = "evaluations"


# The measures of `measures.MEASURES` that look at a whole split.
INSTRUMENTS = {
    module.NAME: module.INSTRUMENT
    for module in (classifying, informing, text_measuring, disentangling)
}


class Kept(NamedTuple):
    """An evaluation that is stored."""

    folder: Path
    values: evaluation.Evaluation  # per test example
    rows: list[tables.Result]
    summaries: dict[str, Any]  # by instrument: `instruments.Outcome.summary`


def texts(trained: Trained, path: str) -> Dataset:
    """All lines of the text file that --dataset names, as test examples in the run's vocabulary.

    Raises:
      UserError: the run is not one of texts, or the file does not fit it.
    """
    text = trained.dataset.text
    if text is None or trained.spec.kind != "token":
        raise UserError(
            f"--dataset={path} is a text file; {trained.path} was trained on "
            f"{_shown(trained.spec)}."
        )
    try:
        return text_files.load_test(path, text)
    except UserError as error:
        raise UserError(f"--dataset={error}") from error


def evaluate(
    trained: Trained,
    settings: Settings,
    dataset: Dataset | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
) -> str:
    """The table of an evaluation, which names its folder. See `kept` for arguments and errors."""
    evaluated = kept(trained, settings, dataset, on_batch)
    own = trained.dataset if dataset is None else dataset
    number = f"{len(own.x_test):,} test examples"
    if settings.test_examples is not None:
        number = f"the first {settings.test_examples:,} of {number}"
    titles = [
        ("run", f"{trained.path}, seed {trained.config.seed}, step {trained.step:,}"),
        ("data", f"{own.name}, {number}"),
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

    Quantities of an example do not depend on `settings.test_examples`: the draws of a batch have
    its index as their key, and batches have the same size.

    Args:
      trained: a run.
      settings: the differences from the run's own evaluation.
      dataset: the one that the settings name; None if they name none.
      on_batch: called with the number of examples that are done.

    Raises:
      UserError: the data do not fit the model or have fewer examples than the settings ask for,
        or a file cannot be written.
      ValueError: a measure does not go with the method.
    """
    config = _config(trained, settings)
    if dataset is None:
        dataset = trained.dataset
    else:
        _check_dataset(trained, settings, dataset)
    if settings.information_examples is not None and informing.NAME not in settings.measures:
        raise UserError(
            f"--information_examples={settings.information_examples} goes with "
            f"--measures={informing.NAME}; got --measures={','.join(settings.measures)}."
        )
    chosen = _first_examples(dataset, settings)
    used = {name: INSTRUMENTS[name] for name in settings.measures if name in INSTRUMENTS}
    for instrument in used.values():
        instrument.check(trained, settings, chosen)
    stored = {
        "elbo_lab": __version__,
        "checkpoint": trained.digest,
        "settings": settings.stored(),
        "data_sha256": data.digest(dataset, with_labels=trained.method.classes is not None),
        "seed": config.seed,
    }
    folder = trained.path / FOLDER / configs.digest_of(files.jsonable(stored))
    complete = _stored(folder, len(chosen.x_test))
    if complete is not None:
        return complete
    seed = config.seed if settings.seed is None else settings.seed
    values = _measured(trained, settings, config, chosen, seed, on_batch)
    outcomes = {
        name: instrument.measure(trained, settings, chosen, values, seed)
        for name, instrument in used.items()
    }
    for outcome in outcomes.values():
        values |= outcome.values
    rows = results.test_results(config, values, trained.spec)
    rows += [row for outcome in outcomes.values() for row in outcome.rows]
    summaries = {name: outcome.summary for name, outcome in outcomes.items()}
    _write(folder, values, stored | summaries | {"results": [row._asdict() for row in rows]})
    return Kept(folder, values, rows, files.jsonable(summaries))


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
    if spec._replace(classes=None) != own._replace(classes=None):
        raise UserError(
            f"--dataset={settings.dataset} has test examples of {_shown(spec)}; {trained.path} was "
            f"trained on {_shown(own)}."
        )
    if (
        dataset.codes or trained.dataset.codes
    ) and dataset.checkpoint != trained.dataset.checkpoint:
        raise UserError(
            f"--dataset={settings.dataset} has codes of another run than {trained.dataset.name}, "
            f"on which {trained.path} was trained; the codes of different runs do not compare."
        )
    if dataset.text != trained.dataset.text:
        raise UserError(
            f"--dataset={settings.dataset} has another vocabulary or other lines than the texts "
            f"that {trained.path} was trained on."
        )
    _check_labels(trained, settings, dataset)


def _first_examples(dataset: Dataset, settings: Settings) -> Dataset:
    """The data set with the test examples that are evaluated.

    Raises:
      UserError: there are fewer of them than `settings.test_examples`.
    """
    number, available = settings.test_examples, len(dataset.x_test)
    if number is None:
        return dataset
    if not 1 <= number <= available:
        raise UserError(
            f"--test_examples must lie in 1..{available}, the test examples of {dataset.name}; "
            f"got {number}."
        )
    return data.first_of_test(dataset, number)


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
    above = ", given codes above" if spec.context else ""
    return f"kind {spec.kind}, shape {spec.shape} and {levels}{above}"


def stored_values(path: Path, settings: Settings, available: int) -> evaluation.Evaluation | None:
    """Values of the test examples from a run's complete evaluation with these settings, the last
    one if there are several (after the run was trained again); None if there is none.

    Args:
      path: the run's directory.
      settings: of the evaluation.
      available: test examples of the data that it is of.
    """
    wanted = files.jsonable(settings.stored())
    for summary in sorted((path / FOLDER).glob("*/summary.json"), key=_age):
        found = _stored(summary.parent, settings.number_of(available))
        if found is not None and json_files.read(summary, {}).get("settings") == wanted:
            return found.values
    return None


def _age(file: Path) -> float:
    return -file.stat().st_mtime


def _stored(folder: Path, number: int) -> Kept | None:
    """A complete evaluation of N examples; None if it is missing, incomplete or damaged."""
    try:
        summary = json_files.read(folder / "summary.json", {"results": list[dict]})
        rows = results.from_json(summary["results"])
    except (UserError, KeyError):
        return None
    values = evaluation.read_evaluations(folder / "evaluation.npz", number)
    if not values:
        return None
    summaries = {name: summary[name] for name in INSTRUMENTS if name in summary}
    return Kept(folder, values[0], rows, summaries)


def _measured(
    trained: Trained,
    settings: Settings,
    config: configs.Config,
    dataset: Dataset,
    seed: int,
    on_batch: Callable[[int], None],
) -> evaluation.Evaluation:
    """Values per test example of the measures that go batch by batch."""
    names = [name for name in settings.measures if measures.MEASURES[name].make is not None]
    if not names:
        return stages.pair_bound(dataset, {})
    method = methods.make(config, trained.spec, len(trained.dataset.x_train))
    evaluator = evaluation.make_evaluator(method._replace(measure=measures.combined(names, method)))
    key = keys.stream_key(keys.base_key(seed), keys.EVALUATION)
    test = examples.test_examples(config, dataset, trained.spec)
    values = evaluation.evaluate(evaluator, key, trained.params, trained.stats, test, on_batch)
    return values | stages.pair_bound(dataset, values)


def _write(folder: Path, values: evaluation.Evaluation, summary: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    evaluation.write_evaluations(folder / "evaluation.npz", {0: jax.device_get(values)})
    for name, instrument in INSTRUMENTS.items():
        if name in summary and instrument.figure is not None:
            file, draw = instrument.figure
            svg = svg_figures.standalone(draw(summary[name])) + "\n"
            files.write_atomically(folder / file, svg.encode())
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
