"""What each quirk of a protocol is worth: nats per test image, quirk by quirk.

    python -m experiments.ablate_protocol --manual_dir=mnist --budget=0.01 --replicates=3
    python -m experiments.ablate_protocol --protocol=tucker2018 --towards=burda2015_paper

The baseline is --protocol. In each other cell one of the settings in which it differs from
--towards is as there, and in the last cell all are. Flags of a configuration hold for every cell,
and so do objective, K, data and layers, which a protocol leaves open, and how --protocol evaluates.
Cells are trained, resumed and reported as those of experiments.sweep are.
"""

import dataclasses

from absl import flags

from elbo_lab import configs
from elbo_lab.cli import run_flags, sweep_flags, validation
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.sweeps import grid

# Fields that change nothing of the training, and those that tables of a protocol vary.
OF_EVALUATION = ("test_draw", "au_images", "eval_k")
VARIED = ("objective", "k", "m", "dataset", "latent_dims")


def main() -> int:
    """Flags -> cells -> what a sweep does with them. Returns the exit status."""
    config = run_flags.config_from_flags()
    return sweep_flags.conduct("ablate_protocol", cells(config), baseline=0)


def cells(config: Config) -> list[grid.Cell]:
    """The protocol, each of its quirks undone, and all of them.

    Raises:
      UserError: an unknown protocol, two that do not differ, or settings that cannot work.
    """
    start, end = flags.FLAGS.protocol, flags.FLAGS.towards
    target = run_flags.within_budget(run_flags.protocol("towards", end), flags.FLAGS.budget)
    quirks = {
        field.name: getattr(target, field.name)
        for field in dataclasses.fields(Config)
        if field.name not in (*OF_EVALUATION, *VARIED)
        and not flags.FLAGS[field.name].present
        and getattr(config, field.name) != getattr(target, field.name)
    }
    if not quirks:
        raise UserError(
            f"--protocol={start} and --towards={end} do not differ in training, beside the flags."
        )
    validation.check(config)
    found = [cell({"change": "none"}, config)]
    for name, value in quirks.items():
        changed = dataclasses.replace(config, **{name: value})
        used = validation.resolved(changed)  # with the objective's own value where there is none
        shown = configs.shown(getattr(used, name)) or "not given"
        found.append(cell({"change": f"{name} {shown}"}, changed))
    if len(quirks) > 1:
        found.append(cell({"change": f"all, to {end}"}, dataclasses.replace(config, **quirks)))
    return found


def cell(values: dict[str, str], config: Config) -> grid.Cell:
    """A cell, with the reason where its settings cannot work together."""
    try:
        validation.check(config)
    except UserError as error:
        return grid.Cell(values, None, str(error))
    return grid.Cell(values, validation.resolved(config))


def define() -> None:
    """The script's flags."""
    run_flags.define(without=run_flags.DISTRIBUTED)
    flags.FLAGS.set_default("protocol", "burda2015_code")
    flags.DEFINE_string(
        "towards", "burda2015_paper", "the protocol whose settings take the quirks' places"
    )
    sweep_flags.define_jobs()


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
