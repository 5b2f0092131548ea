"""The search for the protocol `fast`: candidates at equal cost, chosen by held-out images.

Candidates differ in the optimizer, its learning rate, the batch, the estimator and the average of
the weights. They are trained by successive halving, and compared by L_200 of 10,000 training images
that are held out: the test images play no part. (A warm-up of beta exists for the ELBO alone; see
`table1`.)
"""

from typing import NamedTuple

from elbo_lab.errors import UserError
from elbo_lab.studies.study import Choice, ConfigOf, Halving, Rung, Study, Texts

RUNGS = (Rung(3_000, 10), Rung(10_000, 4), Rung(30_000, 2), Rung(100_000, 1))
# (optimizer, batch) -> cost of a training step of IWAE with k = 5 on one core, measured once (AMD
# EPYC with AVX-512); `experiments.benchmark --parts=optimizers` measures such ratios. The unit is a
# reference step: a step of Adam with batches of 100.
COSTS: dict[tuple[str, str], float] = {
    ("adam", "100"): 1.0,
    ("adam", "250"): 2.5,
    ("adam", "1000"): 11.1,
    ("adamax", "100"): 1.0,
    ("muon", "100"): 3.5,
    ("muon", "250"): 4.9,
    ("schedule_free", "100"): 1.0,
    ("schedule_free", "250"): 2.4,
    ("soap", "100"): 1.8,
    ("soap", "250"): 3.3,
    ("soap", "500"): 6.6,
}


class Row(NamedTuple):
    """A candidate: the values of its flags, besides `OWN` of its optimizer."""

    optimizer: str
    batch_size: str
    learning_rate: str
    estimator: str
    variant: str = ""  # one of VARIANTS


# Flags of all candidates with an optimizer.
OWN: dict[str, Texts] = {
    # Muon's directions are then as large as Adam's, so that Adam's learning rates apply.
    "muon": {"muon_rms": "0.2"},
    # It averages its iterates in place of a schedule.
    "schedule_free": {"lr_schedule": "constant", "warmup_steps": "100"},
    "soap": {
        "warmup_steps": "50",
        "adam_b1": "0.9",
        "adam_b2": "0.95",
        "soap_decay": "0.8",
        "soap_factor_every": "5",
    },
}
VARIANTS: dict[str, Texts] = {
    "": {},
    "ema 0.999": {"ema": "0.999"},
    "default decays": {"adam_b1": "0.95", "soap_decay": "0.95", "soap_factor_every": "1"},
}
CANDIDATES = (
    Row("adam", "100", "0.002", "dreg"),
    Row("adam", "100", "0.004", "dreg"),
    Row("adam", "100", "0.008", "dreg"),
    Row("adam", "100", "0.004", "reparam"),
    Row("adam", "100", "0.004", "dreg", "ema 0.999"),
    Row("adam", "250", "0.006", "dreg"),
    Row("adam", "1000", "0.01", "dreg"),
    Row("adamax", "100", "0.01", "dreg"),
    Row("muon", "100", "0.004", "dreg"),
    Row("muon", "250", "0.008", "dreg"),
    Row("schedule_free", "100", "0.004", "dreg"),
    Row("schedule_free", "250", "0.008", "dreg"),
    Row("soap", "100", "0.003", "dreg"),
    Row("soap", "100", "0.004", "dreg"),
    Row("soap", "100", "0.006", "dreg"),
    Row("soap", "100", "0.006", "dreg", "default decays"),
    Row("soap", "250", "0.003", "dreg"),
    Row("soap", "250", "0.004", "dreg"),
    Row("soap", "250", "0.006", "dreg"),
    Row("soap", "250", "0.009", "dreg"),
    Row("soap", "250", "0.006", "reparam"),
    Row("soap", "250", "0.006", "stl"),
    Row("soap", "250", "0.006", "dreg", "ema 0.999"),
    Row("soap", "500", "0.008", "dreg"),
)


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every candidate."""
    del settings, config_of
    return [choice_of(row) for row in CANDIDATES]


def choice_of(row: Row) -> Choice:
    """A candidate with its name, "adam 0.004, B 100, dreg"."""
    name = f"{row.optimizer} {row.learning_rate}, B {row.batch_size}, {row.estimator}"
    settings = {
        "optimizer": row.optimizer,
        "batch_size": row.batch_size,
        "learning_rate": row.learning_rate,
        "estimator": row.estimator,
        **OWN.get(row.optimizer, {}),
        **VARIANTS[row.variant],
    }
    return Choice({"candidate": ", ".join(filter(None, [name, row.variant]))}, settings)


def cost(settings: Texts) -> float:
    """The cost of a step, in reference steps.

    Raises:
      UserError: `COSTS` has no entry for the optimizer and the batch.
    """
    key = settings["optimizer"], settings["batch_size"]
    if key not in COSTS:
        raise UserError(
            f"COSTS of elbo_lab/studies/fast_protocol.py has no step of --optimizer={key[0]} with "
            f"--batch_size={key[1]}."
        )
    return COSTS[key]


STUDY = Study(
    "fast_protocol",
    "Which training protocol of IWAE is best at equal cost on one core?",
    {
        "dataset": "training:mnist",
        "held_out": "10000",
        "objective": "iwae",
        "k": "5",
        "adam_eps": "1e-8",
        "eval_k": "200",
    },
    choices,
    halving=Halving(RUNGS, cost),
    one_core=True,
)
