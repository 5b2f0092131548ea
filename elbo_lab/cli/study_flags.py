"""Studies on the command line: flags replace the settings that all cells of a study share."""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from elbo_lab.cli import computed_flags, grid_flags, halving_flags, run_flags, sweep_flags
from elbo_lab.errors import UserError
from elbo_lab.runs import derived
from elbo_lab.studies import study_reporting
from elbo_lab.studies.study import Choice, Study, Texts, check_shared
from elbo_lab.sweeps import grid


def conduct(
    study: Study,
    script: str,
    settings: Texts | None = None,
    workdir: Path | None = None,
    earlier: Sequence[Path] = (),
    results_dir: Path | None = None,
) -> int:
    """Trains the cells that are missing, and reports the study. Returns the exit status.

    A study with rungs conducts them one after another; one with a computation trains nothing.

    Args:
      study: the question, and what answers it.
      script: the name in `python -m experiments.<script>`.
      settings: flag -> text, what all cells share; None: the study's settings, replaced by the
        flags of a configuration that are present.
      workdir: the study's folder; None: that of --workdir.
      earlier: see `sweep_running.conduct`.
      results_dir: folder that keeps the results, for a study that keeps any.

    Raises:
      UserError: a flag has several values, or sets what differs between cells.
    """
    settings = settings_from_flags(study) if settings is None else settings
    if study.computation is not None:
        return computed_flags.conduct(study, script, settings, results_dir)
    if study.halving is not None:
        return halving_flags.conduct(study, script, settings, results_dir)
    if results_dir is not None:
        study = study.kept_in(study, results_dir)
    grid_cells = cells(study, settings, study.choices(settings, run_flags.config_of))
    if study.needs_labels:
        check_labels(study, grid_cells)
    values = flags.FLAGS
    load = functools.partial(
        derived.load_run, data_dir=values.data_dir, manual_dir=values.manual_dir
    )
    finish = functools.partial(study_reporting.report, study, settings, load=load)
    return sweep_flags.conduct(
        script, grid_cells, 0, study.name, workdir, finish, earlier, study.one_core
    )


def check_labels(study: Study, grid_cells: Sequence[grid.Cell]) -> None:
    """Refuses data without labels.

    Raises:
      UserError: the data of a cell have no labels, or cannot be loaded.
    """
    for name in dict.fromkeys(cell.config.dataset for cell in grid_cells if cell.config):
        dataset = sweep_flags.load(name)
        if dataset.y_train is None or (len(dataset.x_test) and dataset.y_test is None):
            raise UserError(
                f"--dataset={name} has no labels, which the study {study.name} needs; give a data "
                "set with labels."
            )


def settings_from_flags(study: Study) -> Texts:
    """The study's settings, replaced by the flags that are present.

    Raises:
      UserError: an unknown protocol, or several values of a flag.
    """
    single, several = grid_flags.axes_from_flags()
    for name, texts in several.items():
        raise UserError(f"--{name} takes one value in a study; got {','.join(texts)!r}.")
    if flags.FLAGS["protocol"].present:
        run_flags.protocol("protocol", flags.FLAGS.protocol or "")
    return study.settings | single


def cells(study: Study, settings: Texts, choices: Sequence[Choice]) -> list[grid.Cell]:
    """The cells of a study; those that cannot be trained have the reason.

    As in a sweep, a flag that only some model families, objectives or optimizers have applies to
    the cells of those.

    Args:
      study: its name is for messages.
      settings: flag -> text, what all cells share.
      choices: a choice for each cell.

    Raises:
      UserError: the first cell, the baseline, cannot be trained; or one of several axes has a value
        that cannot be trained in any cell; or `settings` sets what differs between cells.
    """
    result = []
    check_shared(study.name, settings, choices)
    unused = grid_flags.unused(settings, [choice.settings for choice in choices])
    for choice in choices:
        try:
            own = grid_flags.of_cell(settings, choice.settings, unused)
            config = grid_flags.checked(own)
            result.append(grid.Cell(choice.values, config))
        except UserError as error:
            result.append(grid.Cell(choice.values, None, str(error)))
    baseline = result[0]
    if baseline.config is None:
        raise UserError(baseline.reason)
    # With a single axis each value has one cell, which may be skipped.
    if len(baseline.values) > 1:
        grid.check_values(result)
    return result
