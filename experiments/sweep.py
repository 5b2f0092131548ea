"""Trains a grid of configurations, several seeds each, compares them, and writes report.html.

    python -m experiments.sweep --objective=elbo,iwae --k=1,5,50 --replicates=5

Every flag of a configuration takes several values, separated by commas; those whose values hold
commas themselves (--latent_dims, --hidden_dims, --upper_hidden_dims, --partition) by semicolons:
--latent_dims="50;100,50". Switches are written --shuffle=true,false. Combinations that do not go
together are left out and listed.

The same command goes on with a sweep that was stopped. A larger grid in the same --workdir adds
what is missing, and a smaller one reports what it has in common: replicates are looked up by their
whole configuration. --workdir is the sweep's folder; --overwrite removes what is in it first.
"""

from absl import flags

from elbo_lab.cli import grid_flags, run_flags, sweep_flags


def main() -> int:
    """Flags -> cells -> what `sweep_flags.conduct` does with them. Returns the exit status."""
    cells = grid_flags.cells()
    return sweep_flags.conduct("sweep", cells, grid_flags.baseline(cells, flags.FLAGS.baseline))


def define() -> None:
    """The script's flags."""
    run_flags.define(texts=True, without=run_flags.DISTRIBUTED)
    flags.DEFINE_string(
        "baseline",
        None,
        "the cell that others are compared with, as objective=elbo,k=1 (the first one that has "
        "these values; the grid's first if not given)",
    )
    sweep_flags.define_jobs()


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
