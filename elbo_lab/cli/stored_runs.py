"""Runs that a command line names."""

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
    from elbo_lab.runs import derived

    if not path:
        raise UserError("--run must name a run's directory.")
    values = flags.FLAGS
    folders.check(data_dir=values.data_dir, manual_dir=values.manual_dir)
    try:
        return derived.load_run(path, replicate, values.data_dir, values.manual_dir)
    except UserError as error:
        raise UserError(f"--run={error}") from error
