"""Studies with rungs on the command line: the candidates and their configurations."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from absl import flags

from elbo_lab import data, training
from elbo_lab.cli import grid_flags, run_flags, sweep_flags
from elbo_lab.errors import UserError
from elbo_lab.studies import halving, halving_running
from elbo_lab.studies.halving import Candidate
from elbo_lab.studies.study import Choice, Halving, Study, Texts, check_shared
from elbo_lab.sweeps import grid


def conduct(study: Study, script: str, settings: Texts, results_dir: Path | None) -> int:
    """Conducts the rungs one after another, and reports the study. Returns the exit status.

    Args:
      study: with rungs.
      script: the name in `python -m experiments.<script>`.
      settings: flag -> text, what all candidates share; "budget" multiplies those of the rungs.
      results_dir: a folder for the results of a complete study; None: no such file.

    Raises:
      UserError: the data set has test images, `settings` sets the epochs or what differs between
        candidates, or no candidate can be trained.
    """
    name = settings["dataset"]
    if not name.startswith(data.TRAINING):
        raise UserError(
            f"--dataset must begin with {data.TRAINING} in the study {study.name}, which compares "
            f"by held-out training images; got {name!r}."
        )
    if "epochs" in settings:
        raise UserError(
            f"--epochs follows from the rungs of the study {study.name}, which --budget "
            "multiplies; leave it out."
        )
    settings = dict(settings)
    study = _within_budget(study, settings.pop("budget", "1"))
    choices = study.choices(settings, run_flags.config_of)
    check_shared(study.name, settings, choices)
    options = sweep_flags.options(script, study.name, flags.FLAGS.workdir, study.one_core)
    num_train = len(options.load(name).x_train)
    candidates = [candidate_of(study.halving, choice, settings, num_train) for choice in choices]
    if flags.FLAGS.print_config:
        print(json.dumps(_described(candidates), indent=2))
        return 0
    return halving_running.conduct(study, candidates, options, results_dir)


def _within_budget(study: Study, text: str) -> Study:
    """The study with the budgets of its rungs multiplied by the value of --budget."""
    factor = float(text)
    run_flags.check_budget(factor)
    rungs = [rung._replace(budget=factor * rung.budget) for rung in study.halving.rungs]
    return study._replace(halving=study.halving._replace(rungs=tuple(rungs)))


def candidate_of(rungs: Halving, choice: Choice, settings: Texts, num_train: int) -> Candidate:
    """A candidate with its configuration in each rung, or the reason why there is none.

    Args:
      rungs: the study's.
      choice: the candidate.
      settings: flag -> text, what all candidates share.
      num_train: number of training images, including those that are held out.
    """
    name = ", ".join(choice.values.values())
    try:
        config = grid_flags.checked(settings | choice.settings)
    except UserError as error:
        refused = grid.Cell(choice.values, None, str(error))
        number = len(rungs.rungs)
        return Candidate(name, choice.settings, (refused,) * number, (0.0,) * number)
    # A batch larger than the data has no step: the data check of the rung refuses it.
    steps = max(1, training.steps_per_epoch(config, num_train - config.held_out))
    cost = rungs.cost(settings | choice.settings)
    cells, compute = [], []
    for rung in rungs.rungs:
        epochs = halving.epochs(rung.budget, cost, steps)
        cells.append(grid.Cell(choice.values, dataclasses.replace(config, epochs=epochs)))
        compute.append(cost * epochs * steps)
    return Candidate(name, choice.settings, tuple(cells), tuple(compute))


def _described(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """What --print_config prints: every candidate in every rung, as if none were eliminated."""
    return [
        {"rung": number + 1} | sweep_flags.described(candidate.cells[number])
        for number in range(len(candidates[0].cells))
        for candidate in candidates
    ]
