"""A run from wherever it stopped to its summary: what run, sweep and table1 share."""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from elbo_lab import __version__, data, training
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.devices import distributed
from elbo_lab.devices.setup import Placement
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.runs import run_files, rundir, sizes
from elbo_lab.training import metrics


def complete(
    config: Config,
    workdir: str,
    dataset: Dataset,
    tensorboard: bool = True,
    overwrite: bool = False,
    replicas: Sequence[Config] | None = None,
    progress: Callable | None = None,
    placement: Placement | None = None,
    interrupt: Any = None,
) -> tuple[Path, bool]:
    """Trains, evaluates and reports, unless the directory holds the run complete already. Figures
    that a complete run has lost are drawn again.

    Args:
      config: a checked and resolved configuration.
      workdir: the run's directory.
      dataset: the config's.
      tensorboard: whether to write events too.
      overwrite: start anew.
      replicas: see `stages.Run`.
      progress: see `stages.Run`; what a person watches if not given.
      placement: see `stages.Run`.
      interrupt: a `progress.Interrupt`; see `stages.Run`.

    Returns:
      The directory, and whether it was complete before.

    Raises:
      UserError: the directory is not this run's, the run is too large, or the disk refuses.
      stages.StoppedError: after a signal.
      stages.DivergedError: nothing is left to train.
    """
    digest = data.digest(dataset)
    distributed.check_same(f"{__version__} {config} {placement} {digest}")

    def claim():
        return rundir.claim(workdir, config, digest, overwrite, replicas)

    if not rundir.is_complete(Path(workdir).expanduser()):
        spec = data.spec_of(dataset, config.binarization)
        sizes.check(config, spec, len(dataset.x_train) - config.held_out)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(distributed.held_by_first(claim)) or Path(workdir)
        has_numbers, has_all = distributed.on_first(lambda: _state(path, config))
        if has_all:
            return path, True
        # Not sooner: JAX's settings are made before these are imported.
        from elbo_lab.runs import reporting, stages

        watch = stack.enter_context(distributed.held_by_first(lambda: rundir.Watch(path)))
        shown = progress or stages.Progress
        run = stages.Run(
            config, path, dataset, tensorboard, replicas, shown, placement, interrupt, watch
        )
        if has_numbers and not stages.load(run):
            distributed.on_first(lambda: _warn_of_figures(path))
            return path, True
        if not has_numbers:
            stages.train(run)
        evaluations = stages.evaluate(run)
        write = reporting.draw if has_numbers else reporting.report
        distributed.on_first(lambda: write(run, evaluations))
        return path, has_numbers


def _state(path: Path, config: Config) -> tuple[bool, bool]:
    """Whether a run has its numbers, and whether it has all that can be had."""
    if not is_complete(path):
        return False, False
    say_lost_metrics(path, config)
    figures = [f"{name}.png" for name in run_files.read_summary(path)["figures"]]
    has_figures = all((path / rundir.FIGURES / name).exists() for name in figures)
    return True, has_figures or rundir.is_read_only(path)


def say_lost_metrics(path: Path, config: Config) -> None:
    """Says of a complete run which metrics it has lost since."""
    summary = run_files.read_summary(path)
    call = max(1, training.steps_per_call(config, summary["data"]["train_images"]))
    names = (*summary["terms"], *run_files.METRIC_NAMES)
    records = metrics.read_metrics(path, names)
    missing = metrics.missing_steps(records, summary["steps"], call)
    if missing and [list(steps) for steps in missing] != summary.get("lost_metrics"):
        metrics.warn_of_missing(path, missing)


def _warn_of_figures(path: Path) -> None:
    warnings.warn(
        f"{path / rundir.FIGURES} lacks figures, which cannot be drawn again without a checkpoint "
        "of the last step",
        DamageWarning,
        stacklevel=1,
    )


def is_complete(path: Path) -> bool:
    """Whether the run has its summary, and the values per test image that it was made of; where
    these are lost or damaged they are computed again.
    """
    if not rundir.is_complete(path):
        return False
    try:
        summary = run_files.read_summary(path)
    except UserError as error:
        warnings.warn(f"{error}; it is made anew", DamageWarning, stacklevel=1)
        return False
    sound = {int(r) for r, step in summary["failed_at"].items() if step < 0}
    if not sound <= set(stored_evaluations(path, summary)):
        warnings.warn(
            f"{path / rundir.EVALUATION} is damaged or lost; it is computed again",
            DamageWarning,
            stacklevel=1,
        )
        return False
    return True


def stored_evaluations(path: Path, summary: dict[str, Any]) -> dict[int, Any]:
    """The evaluations of a complete run by replicate, without those that lack something which its
    summary, from `run_files.read_summary`, says was measured.
    """
    from elbo_lab import evaluation

    shapes = {name: tuple(shape) for name, shape in summary["measured"].items()}
    number = summary["data"]["test_images"]
    return evaluation.read_evaluations(path / rundir.EVALUATION, number, shapes)
