"""elbo_lab: variational bounds, their gradient estimators, and a laboratory around them.

Import the part you need, e.g. `from elbo_lab import losses`; nothing is imported eagerly. A trained
run is given back by `elbo_lab.load("runs/X")`.
"""

__version__ = "0.1.0"


def load(path, replicate: int = 0, data_dir=None, manual_dir=None):
    """A trained run: its configuration, data, method, parameters and stats; see `runs.loading`.

    Raises:
      UserError: no run, no checkpoint, damage, or one made of other data or by another version.
    """
    from elbo_lab.runs import derived

    return derived.load_run(path, replicate, data_dir, manual_dir)
