"""What each quirk of a protocol is worth: nats per test image, quirk by quirk.

    python -m experiments.ablate_protocol --manual_dir=mnist --budget=0.01 --replicates=3
    python -m experiments.ablate_protocol --protocol=tucker2018 --towards=burda2015_paper

The baseline is --protocol. In each other cell one of the settings in which it differs from
--towards is as there, and in the last cell all are. Flags of a configuration hold for every cell,
and so do objective, K, data and layers, which a protocol leaves open, and how --protocol evaluates.
Cells are trained, resumed and reported as those of experiments.sweep are.
"""

from absl import flags

from elbo_lab.cli import run_flags, study_flags, sweep_flags
from elbo_lab.studies import ablate_protocol


def main() -> int:
    """The study of the two protocols that the flags name. Returns the exit status."""
    end = flags.FLAGS.towards
    run_flags.protocol("towards", end)
    return study_flags.conduct(ablate_protocol.towards(end), "ablate_protocol")


if __name__ == "__main__":
    run_flags.define(texts=True, without=run_flags.DISTRIBUTED)
    flags.FLAGS.set_default("protocol", ablate_protocol.START)
    flags.DEFINE_string(
        "towards", ablate_protocol.END, "the protocol whose settings take the quirks' places"
    )
    sweep_flags.define_jobs()
    run_flags.run(main, __doc__)
