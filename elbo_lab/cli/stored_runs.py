"""Loads the run that a command line names."""

from pathlib import Path

from absl import flags

from elbo_lab.cli import folders
from elbo_lab.devices import setup
from elbo_lab.errors import UserError


def set_up() -> None:
    """Sets up the device for one run, by --platform and --compilation_cache_dir."""
    values = flags.FLAGS
    cache_dir_given = values["compilation_cache_dir"].present > 0
    setup.set_up(values.platform, 1, values.compilation_cache_dir, cache_dir_given)


def load(path: str | None, replicate: int = 0):
    """Loads the run that --run names; its data come from --data_dir or --manual_dir if given.

    Args:
      path: the value of --run.
      replicate: index of the replicate.

    Raises:
      UserError: there is no such run, or it cannot be loaded. The message names the flag.
    """
    if not path:
        raise UserError("--run must name a run's directory.")
    return load_from(path, replicate, flags.FLAGS.data_dir, flags.FLAGS.manual_dir)


def load_from(
    path: str | Path, replicate: int = 0, data_dir: str | None = None, manual_dir: str | None = None
):
    """`load` with the flags of the data as arguments."""
    from elbo_lab.runs import derived  # imported late: JAX is configured first

    folders.check(data_dir=data_dir, manual_dir=manual_dir)
    try:
        return derived.load_run(path, replicate, data_dir, manual_dir)
    except UserError as error:
        raise UserError(f"--run={error}") from error
