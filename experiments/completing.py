"""A run from wherever it stopped to its summary: what run, sweep and table1 share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from elbo_lab import __version__, data, distributed, rundir, sizes
from elbo_lab.config import Config
from elbo_lab.data import Dataset
from elbo_lab.device import Placement
from elbo_lab.errors import UserError
from elbo_lab.report import read_json


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
    """Trains, evaluates and reports, unless the directory holds the run complete already.

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
        sizes.check(config, dataset.x_train.shape[1], len(dataset.x_train) - config.held_out)
    with distributed.held_by_first(claim) as path:
        path = path or Path(workdir)
        if distributed.on_first(lambda: is_complete(path)):
            return path, True
        # Not sooner: JAX's settings are made before these are imported.
        from experiments import reporting, stages

        shown = progress or stages.Progress
        run = stages.Run(config, path, dataset, tensorboard, replicas, shown, placement, interrupt)
        stages.train(run)
        evaluations = stages.evaluate(run)
        distributed.on_first(lambda: reporting.report(run, evaluations))
        return path, False


def is_complete(path: Path) -> bool:
    """Whether the run has its summary, and the values per test image that it was made of; where
    these are lost or damaged they are computed again.
    """
    if not rundir.is_complete(path):
        return False
    from elbo_lab import evaluation

    try:
        summary = read_json(path / rundir.SUMMARY)
        failed = {int(r) for r, step in summary["failed_at"].items() if step >= 0}
        sound = set(range(len(summary["replicas"]))) - failed
    except (UserError, KeyError, TypeError):
        return False
    return sound <= set(evaluation.read_evaluations(path / rundir.EVALUATION))
