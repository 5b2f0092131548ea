"""A run from wherever it stopped to its summary: what run, sweep and table1 share."""

from collections.abc import Callable, Sequence
from pathlib import Path

from elbo_lab import __version__, data, distributed, rundir
from elbo_lab.config import Config
from elbo_lab.data import Dataset
from elbo_lab.device import Placement


def complete(
    config: Config,
    workdir: str,
    dataset: Dataset,
    tensorboard: bool = True,
    overwrite: bool = False,
    replicas: Sequence[Config] | None = None,
    progress: Callable | None = None,
    placement: Placement | None = None,
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

    Returns:
      The directory, and whether it was complete before.

    Raises:
      UserError: the directory is not this run's, or the disk refuses.
      stages.StoppedError: after a signal.
      stages.DivergedError: nothing is left to train.
    """
    digest = data.digest(dataset)
    distributed.check_same(f"{__version__} {config} {placement} {digest}")

    def claim():
        return rundir.claim(workdir, config, digest, overwrite, replicas)

    with distributed.held_by_first(claim) as path:
        path = path or Path(workdir)
        if distributed.on_first(lambda: rundir.is_complete(path)):
            return path, True
        # Not sooner: JAX's settings are made before these are imported.
        from experiments import reporting, stages

        shown = progress or stages.Progress
        run = stages.Run(config, path, dataset, tensorboard, replicas, shown, placement)
        stages.train(run)
        evaluations = stages.evaluate(run)
        distributed.on_first(lambda: reporting.report(run, evaluations))
        return path, False
