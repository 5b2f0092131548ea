"""elbo_lab: variational bounds, their gradient estimators, and a laboratory around them.

Import the part you need, e.g. `from elbo_lab import losses`; nothing is imported eagerly.
`elbo_lab.load("runs/X")` loads a trained run.
"""

__version__ = "0.1.0"


def load(path, replicate: int = 0, data_dir=None, manual_dir=None):
    """A trained run: its configuration, data, method, parameters and stats; see `runs.loading`.

    Raises:
      UserError: no run, no checkpoint, a damaged one, or one of other data or another version.
    """
    from elbo_lab.runs import derived

    return derived.load_run(path, replicate, data_dir, manual_dir)
