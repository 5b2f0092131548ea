"""Runs that a command line names."""

from pathlib import Path

from absl import flags

from elbo_lab.cli import folders
from elbo_lab.devices import setup
from elbo_lab.errors import UserError


def set_up() -> None:
    """Prepares the device for one run, as --platform and --compilation_cache_dir say."""
    values = flags.FLAGS
    cache_dir_given = values["compilation_cache_dir"].present > 0
    setup.set_up(values.platform, 1, values.compilation_cache_dir, cache_dir_given)


def load(path: str | None, replicate: int = 0):
    """The run that --run names, with its data as --data_dir and --manual_dir say.

    Raises:
      UserError: there is no such run, or it cannot be loaded; the sentence names the flag.
    """
    if not path:
        raise UserError("--run must name a run's directory.")
    return load_from(path, replicate, flags.FLAGS.data_dir, flags.FLAGS.manual_dir)


def load_from(
    path: str | Path, replicate: int = 0, data_dir: str | None = None, manual_dir: str | None = None
):
    """`load` with its flags as arguments."""
    from elbo_lab.runs import derived

    folders.check(data_dir=data_dir, manual_dir=manual_dir)
    try:
        return derived.load_run(path, replicate, data_dir, manual_dir)
    except UserError as error:
        raise UserError(f"--run={error}") from error
