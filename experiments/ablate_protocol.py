"""Measures the effect of each setting in which two protocols differ, in nats per test image.

    python -m experiments.ablate_protocol --manual_dir=mnist --budget=0.01 --replicates=3
    python -m experiments.ablate_protocol --protocol=tucker2018 --towards=burda2015_paper

The baseline is --protocol. Each other cell takes one of the differing settings from --towards, and
the last cell takes all of them. Flags of a configuration hold for every cell. So do the settings
that a protocol leaves open (objective, K, data and layers), and the evaluation of --protocol.
Cells are trained, resumed and reported as by experiments.sweep.
"""

from absl import flags

from elbo_lab.cli import run_flags, run_sections, study_flags, sweep_flags
from elbo_lab.studies import ablate_protocol


def main() -> int:
    """Runs the study of the two protocols. Returns the exit status."""
    end = flags.FLAGS.towards
    run_flags.protocol("towards", end)
    return study_flags.conduct(ablate_protocol.towards(end), "ablate_protocol")


if __name__ == "__main__":
    run_flags.define(texts=True, without=run_sections.DISTRIBUTED)
    flags.FLAGS.set_default("protocol", ablate_protocol.START)
    flags.DEFINE_string(
        "towards", ablate_protocol.END, "the protocol from which the settings are taken"
    )
    sweep_flags.define_jobs()
    run_flags.run(main, __doc__)
