"""Studies on the command line: flags replace what all cells of a study share."""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from elbo_lab.cli import grid_flags, run_flags, sweep_flags
from elbo_lab.errors import UserError
from elbo_lab.studies import study_reporting
from elbo_lab.studies.study import Choice, Study, Texts
from elbo_lab.sweeps import grid


def conduct(
    study: Study,
    script: str,
    settings: Texts | None = None,
    workdir: Path | None = None,
    earlier: Sequence[Path] = (),
) -> int:
    """Trains what a study lacks, and reports. Returns the exit status.

    Args:
      study: the question.
      script: the name in `python -m experiments.<script>`.
      settings: what all cells share, of a script with flags of its own; if not given, the study's
        settings with the flags of a configuration that were given.
      workdir: the study's folder, in the place of --workdir.
      earlier: see `sweep_running.conduct`.

    Raises:
      UserError: a flag in which cells differ, or that has several values.
    """
    settings = settings_from_flags(study) if settings is None else settings
    made = cells(study, settings, study.choices(settings))
    finish = functools.partial(study_reporting.report, study, settings)
    return sweep_flags.conduct(script, made, 0, study.name, workdir, finish, earlier)


def settings_from_flags(study: Study) -> Texts:
    """The study's settings with the flags that were given.

    Raises:
      UserError: an unknown protocol, or several values of a flag.
    """
    given, several = grid_flags.axes_from_flags()
    for name, texts in several.items():
        raise UserError(f"--{name} takes one value in a study; got {','.join(texts)!r}.")
    if flags.FLAGS["protocol"].present:
        run_flags.protocol("protocol", flags.FLAGS.protocol or "")
    return study.settings | given


def cells(study: Study, settings: Texts, choices: Sequence[Choice]) -> list[grid.Cell]:
    """The cells of a study, with the reasons of those that cannot be trained.

    Raises:
      UserError: the first cell cannot be trained, with its reason; or one of several axes has a
        value that cannot be trained in any cell; or a flag was given in which cells differ.
    """
    made = []
    for values, own in choices:
        for name in own:
            if name in settings:
                raise UserError(
                    f"--{name} differs between the cells of the study {study.name}; leave it out."
                )
        try:
            made.append(grid.Cell(values, grid_flags.checked(settings | own)))
        except UserError as error:
            made.append(grid.Cell(values, None, str(error)))
    if made[0].config is None:  # The others are compared with it.
        raise UserError(made[0].reason)
    if len(made[0].values) > 1:  # Each value of a single axis has one cell, which may be skipped.
        grid.check_values(made)
    return made
