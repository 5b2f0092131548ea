"""Trains a grid of configurations with several seeds each, compares them, and writes report.html.

    python -m experiments.sweep --objective=elbo,iwae --k=1,5,50 --replicates=5

Every flag of a configuration takes several values, separated by commas. Flags whose values contain
commas (--latent_dims, --hidden_dims, --upper_hidden_dims, --partition) take them separated by
semicolons: --latent_dims="50;100,50". Boolean flags are written --shuffle=true,false. Invalid
combinations are skipped and listed.

The same command resumes a sweep that was stopped. --workdir is the sweep's folder, in which
replicates are looked up by their whole configuration. A larger grid in the same folder trains what
is missing, and a smaller grid reports its part. --overwrite deletes the sweep in the folder first.
"""

from absl import flags

from elbo_lab.cli import grid_flags, run_flags, run_sections, sweep_flags


def main() -> int:
    """Runs the sweep that the flags describe. Returns the exit status."""
    cells = grid_flags.cells()
    return sweep_flags.conduct("sweep", cells, grid_flags.baseline(cells, flags.FLAGS.baseline))


def define() -> None:
    """Defines the script's flags."""
    run_flags.define(texts=True, without=run_sections.DISTRIBUTED)
    flags.DEFINE_string(
        "baseline",
        None,
        "the cell that the others are compared with, the first one with values such as "
        "objective=elbo,k=1 (if not given, the first cell that has a quantity to compare by)",
    )
    sweep_flags.define_jobs()


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
