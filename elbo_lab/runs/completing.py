"""Completes a run, from where it stopped to its summary; shared by run, sweep and table1."""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from elbo_lab import __version__, data, evaluation, training
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.devices import distributed
from elbo_lab.devices.setup import Placement
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.models.conditions import is_conditional
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
    """Trains, evaluates and reports, unless the directory holds the complete run already.

    Figures that a complete run has lost are drawn again.

    Args:
      config: a checked and resolved configuration.
      workdir: the run's directory.
      dataset: the config's.
      tensorboard: True to write TensorBoard events too.
      overwrite: True to remove an earlier run first.
      replicas: see `stages.Run`.
      progress: see `stages.Run`; `progress.Progress` if not given.
      placement: see `stages.Run`.
      interrupt: a `progress.Interrupt`; see `stages.Run`.

    Returns:
      The directory, and True if the run was complete before.

    Raises:
      UserError: the directory is not this run's, the run is too large, or a file cannot be written.
      stages.StoppedError: after a signal.
      stages.DivergedError: no replicate is left to train.
    """
    digest = data.digest(dataset, is_conditional(config.model_options))
    distributed.check_same(f"{__version__} {config} {placement} {digest}")

    def claim():
        return rundir.claim(workdir, config, digest, overwrite, replicas)

    start = None
    if not rundir.is_complete(Path(workdir).expanduser()):
        spec = data.spec_of(dataset, config.binarization)
        sizes.check(config, spec, len(dataset.x_train) - config.held_out)
        start = _start(config, Path(workdir).expanduser(), dataset)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(distributed.context_on_first(claim)) or Path(workdir)
        has_numbers, has_all = distributed.on_first(lambda: _state(path, config))
        if has_all:
            return path, True
        # Imported here, since JAX's settings must be made before these modules are imported.
        from elbo_lab.runs import reporting, stages, text_records

        watch = stack.enter_context(distributed.context_on_first(lambda: rundir.Watch(path)))
        run = stages.Run(
            config,
            path,
            dataset,
            tensorboard,
            replicas,
            progress=progress or stages.Progress,
            placement=placement,
            interrupt=interrupt,
            watch=watch,
            start=start,
        )
        if dataset.text is not None:
            distributed.on_first(lambda: text_records.write(path, dataset.text))
        if has_numbers and not stages.load(run):
            distributed.on_first(lambda: _warn_of_figures(path))
            return path, True
        if not has_numbers:
            stages.train(run)
        evaluations = stages.evaluate(run)
        write = reporting.draw if has_numbers else reporting.report
        distributed.on_first(lambda: write(run, evaluations))
        return path, has_numbers


def _start(config: Config, path: Path, dataset: Dataset) -> Any:
    """The method that starts a new run at the parameters of `config.init_from`; None if it starts
    at others, or has begun already.

    Raises:
      UserError: the run cannot start at them.
    """
    if config.init_from is None or (path / rundir.CHECKPOINTS).exists():
        return None
    # Imported here, since JAX's settings must be made before these modules are imported.
    from elbo_lab import methods
    from elbo_lab.runs import initial

    dataset = data.hold_out(dataset, config.held_out)
    spec = data.spec_of(dataset, config.binarization)
    method = methods.make(config, spec, len(dataset.x_train))
    return initial.started(config, method, dataset, spec)


def _state(path: Path, config: Config) -> tuple[bool, bool]:
    """Two flags: the run has its numbers, and it has its figures too or is read-only."""
    if not is_complete(path):
        return False, False
    warn_of_lost_metrics(path, config)
    figures = [f"{name}.png" for name in run_files.read_summary(path)["figures"]]
    has_figures = all((path / rundir.FIGURES / name).exists() for name in figures)
    return True, has_figures or rundir.is_read_only(path)


def warn_of_lost_metrics(path: Path, config: Config) -> None:
    """Warns of the metrics that a complete run has lost since."""
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
    """True if the run has its summary and the values per test example behind it.

    Warns of a summary or of values that are damaged or lost, which a run then makes again.
    """
    if not rundir.is_complete(path):
        return False
    try:
        summary = run_files.read_summary(path)
    except UserError as error:
        warnings.warn(f"{error}; it is made anew", DamageWarning, stacklevel=1)
        return False
    survivors = {int(r) for r, step in summary["failed_at"].items() if step < 0}
    if not survivors <= set(stored_evaluations(path, summary)):
        warnings.warn(
            f"{path / rundir.EVALUATION} is damaged or lost; it is computed again",
            DamageWarning,
            stacklevel=1,
        )
        return False
    return True


def stored_evaluations(path: Path, summary: dict[str, Any]) -> dict[int, Any]:
    """The evaluations of a complete run by replicate. Those that lack a quantity of the summary are
    left out.

    Args:
      path: the run's directory.
      summary: of `run_files.read_summary`.
    """
    shapes = {name: tuple(shape) for name, shape in summary["measured"].items()}
    number = summary["data"]["test_images"]
    return evaluation.read_evaluations(path / rundir.EVALUATION, number, shapes)
