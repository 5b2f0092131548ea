"""Trains one model by one objective, evaluates it on the whole test split, and reports.

    python -m experiments.run --objective=iwae --k=5

The same command goes on with a run that was stopped, and prints the result of one that is complete.
"""

import json
import sys

from absl import flags

from elbo_lab import config as configs
from elbo_lab import data, device, rundir, validation
from experiments import flags as run_flags


def main() -> int:
    """Flags -> config -> data -> train -> evaluate -> report. Returns the exit status."""
    config = run_flags.config_from_flags()
    validation.check(config)
    config = validation.resolved(config)
    if flags.FLAGS.print_config:
        print(json.dumps(configs.to_dict(config), indent=2))
        return 0
    values = flags.FLAGS
    dataset = data.load(config.dataset, values.data_dir, values.manual_dir)
    validation.check_data(config, dataset)
    device.set_up(
        values.platform,
        config.replicates,
        values.compilation_cache_dir,
        cache_dir_given=values["compilation_cache_dir"].present > 0,
    )
    workdir = values.workdir or rundir.default_name(config)
    with rundir.claim(workdir, config, data.digest(dataset), values.overwrite) as path:
        from experiments import reporting, stages

        if rundir.is_complete(path):
            print(f"This run is complete ({path}); --overwrite starts it anew.\n")
            print(reporting.stored_table(path))
            return 0
        run = stages.Run(config, path, dataset, values.tensorboard)
        try:
            stages.train(run)
            evaluations = stages.evaluate(run)
            print("\n" + reporting.report(run, evaluations))
        except stages.StoppedError as stopped:
            but = " without --overwrite" if values.overwrite else ""
            print(f"{stopped} The same command{but} goes on ({path}).", file=sys.stderr)
            return run.interrupt.status()
        except stages.DivergedError as diverged:
            print(f"Error: {diverged}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    run_flags.define()
    run_flags.run(main, __doc__)
