"""A run from wherever it stopped to its summary: what run, sweep and table1 share."""

from collections.abc import Callable, Sequence
from pathlib import Path

from elbo_lab import data, rundir
from elbo_lab.config import Config
from elbo_lab.data import Dataset


def complete(
    config: Config,
    workdir: str,
    dataset: Dataset,
    tensorboard: bool = True,
    overwrite: bool = False,
    replicas: Sequence[Config] | None = None,
    progress: Callable | None = None,
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

    Returns:
      The directory, and whether it was complete before.

    Raises:
      UserError: the directory is not this run's, or the disk refuses.
      stages.StoppedError: after a signal.
      stages.DivergedError: nothing is left to train.
    """
    with rundir.claim(workdir, config, data.digest(dataset), overwrite, replicas) as path:
        if rundir.is_complete(path):
            return path, True
        # Not sooner: JAX's settings are made before these are imported.
        from experiments import reporting, stages

        run = stages.Run(config, path, dataset, tensorboard, replicas, progress or stages.Progress)
        stages.train(run)
        reporting.report(run, stages.evaluate(run))
        return path, False
