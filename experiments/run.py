"""Trains one model by one objective, evaluates it on the whole test split, and reports.

    python -m experiments.run --objective=iwae --k=5

The same command resumes a run that was stopped, and prints the results of a complete one.
"""

import json
import sys

from absl import flags

from elbo_lab import configs, data
from elbo_lab.cli import run_flags, validation
from elbo_lab.devices import distributed, setup
from elbo_lab.runs import completing, rundir


def main() -> int:
    """Trains, evaluates and reports the run that the flags describe. Returns the exit status."""
    config = run_flags.config_from_flags()
    validation.check(config)
    config = configs.resolved(config)
    if flags.FLAGS.print_config:
        print(json.dumps(configs.to_dict(config), indent=2))
        return 0
    values = flags.FLAGS
    placement = run_flags.placement_from_flags()
    if run_flags.connect_from_flags():
        _set_up(1)
        # If loading fails in one process, `on_all` raises in every process.
        dataset = distributed.on_all(lambda: _load(config, placement))
    else:
        dataset = _load(config, placement)
        _set_up(config.replicates)
    workdir = values.workdir or rundir.default_name(config)
    from elbo_lab.runs import reporting, stages  # imported late: JAX is configured first

    first = distributed.is_first()
    try:
        path, was_complete = completing.complete(
            config, workdir, dataset, values.tensorboard, values.overwrite, placement=placement
        )
    except stages.StoppedError as stopped:
        but = " without --overwrite" if values.overwrite else ""
        if first:
            print(f"{stopped} The same command{but} goes on ({workdir}).", file=sys.stderr)
        return stopped.status
    except stages.DivergedError as diverged:
        if first:
            print(f"Error: {diverged}", file=sys.stderr)
        return 1
    if first and was_complete:
        print(f"This run is complete ({path}); --overwrite starts it again.")
    if first:
        print("\n" + reporting.stored_table(path))
    return 0


def _load(config: configs.Config, placement: setup.Placement) -> data.Dataset:
    """Loads the data set, and checks that it fits the configuration."""
    in_file = bool(placement.stream)
    dataset = run_flags.load_data("dataset", config.dataset, in_file)
    validation.check_data(config, dataset)
    return dataset


def _set_up(replicates: int) -> None:
    values = flags.FLAGS
    setup.set_up(
        values.platform,
        replicates,
        values.compilation_cache_dir,
        cache_dir_given=values["compilation_cache_dir"].present > 0,
    )


if __name__ == "__main__":
    run_flags.define()
    run_flags.run(main, __doc__)
