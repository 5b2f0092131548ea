"""The search for the protocol `fast`: candidates at equal cost, chosen by held-out images.

Candidates differ in the optimizer, its learning rate, the batch, the estimator and the average of
the weights. They are trained by successive halving, and compared by L_200 of 10,000 training images
that are held out: the test images play no part.
"""

from typing import NamedTuple

from elbo_lab.errors import UserError
from elbo_lab.studies.study import Choice, ConfigOf, Halving, Rung, Study, Texts

RUNGS = (Rung(3_000, 8), Rung(10_000, 3), Rung(30_000, 1))
# (optimizer, batch) -> cost of a training step of IWAE with k = 5 on one core. The unit is a
# reference step, one of Adam with batches of 100. Adam and SOAP with 100 images are measured (99
# and 47 steps a second); the others are estimates.
COSTS: dict[tuple[str, str], float] = {
    ("adam", "100"): 1.0,
    ("adam", "250"): 2.3,
    ("adam", "1000"): 8.5,
    ("adamax", "100"): 1.0,
    ("adamax", "250"): 2.3,
    ("muon", "100"): 3.0,
    ("muon", "250"): 4.3,
    ("muon", "1000"): 10.5,
    ("soap", "100"): 2.1,
    ("soap", "250"): 3.4,
    ("soap", "1000"): 9.6,
    ("schedule_free", "100"): 1.0,
    ("schedule_free", "250"): 2.3,
}


class Row(NamedTuple):
    """A candidate: the values of its flags."""

    optimizer: str
    batch_size: str
    learning_rate: str
    estimator: str
    more: Texts = {}  # further flags
    label: str = ""  # of the further flags, for the candidate's name


_EMA = {"ema": "0.999"}
_WARM_UP = {"warmup_steps": "100"}
# The settings of the protocol `fast`: factors that change faster and are updated every fifth step.
_FACTORS = {"warmup_steps": "50", "adam_b1": "0.9", "soap_decay": "0.8", "soap_factor_every": "5"}
# Muon's directions are as large as Adam's, so that Adam's learning rates apply.
_LIKE_ADAM = {"muon_rms": "0.2"}
# schedule_free averages its iterates in place of a schedule.
_FREE = {"lr_schedule": "constant"} | _WARM_UP
CANDIDATES = (
    Row("adam", "100", "0.002", "dreg"),
    Row("adam", "100", "0.004", "dreg"),
    Row("adam", "100", "0.008", "dreg"),
    Row("adam", "100", "0.004", "reparam"),
    Row("adam", "100", "0.004", "stl"),
    Row("adam", "100", "0.004", "dreg", _EMA, "ema"),
    Row("adam", "250", "0.008", "dreg"),
    Row("adam", "1000", "0.008", "dreg"),
    Row("adamax", "100", "0.004", "dreg"),
    Row("adamax", "100", "0.01", "dreg"),
    Row("adamax", "250", "0.01", "dreg"),
    Row("muon", "100", "0.002", "dreg", _LIKE_ADAM),
    Row("muon", "250", "0.004", "dreg", _LIKE_ADAM),
    Row("muon", "250", "0.008", "dreg", _LIKE_ADAM),
    Row("muon", "1000", "0.008", "dreg", _LIKE_ADAM),
    Row("soap", "100", "0.002", "dreg"),
    Row("soap", "100", "0.004", "dreg"),
    Row("soap", "100", "0.004", "dreg", _WARM_UP, "warm-up"),
    Row("soap", "100", "0.004", "reparam"),
    Row("soap", "100", "0.004", "stl"),
    Row("soap", "100", "0.004", "dreg", _EMA, "ema"),
    Row("soap", "250", "0.004", "dreg"),
    Row("soap", "250", "0.008", "dreg"),
    Row("soap", "250", "0.008", "dreg", _FACTORS, "fifth steps"),
    Row("soap", "1000", "0.008", "dreg"),
    Row("schedule_free", "100", "0.004", "dreg", _FREE),
    Row("schedule_free", "250", "0.008", "dreg", _FREE),
)


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every candidate."""
    del settings, config_of
    return [choice_of(row) for row in CANDIDATES]


def choice_of(row: Row) -> Choice:
    """A candidate with its name, "adam 0.004, B 100, dreg"."""
    label = f", {row.label}" if row.label else ""
    name = f"{row.optimizer} {row.learning_rate}, B {row.batch_size}, {row.estimator}{label}"
    settings = {
        "optimizer": row.optimizer,
        "batch_size": row.batch_size,
        "learning_rate": row.learning_rate,
        "estimator": row.estimator,
        **row.more,
    }
    return Choice({"candidate": name}, settings)


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
        **{"dataset": "training:mnist", "held_out": "10000", "objective": "iwae", "k": "5"},
        **{"adam_eps": "1e-8", "eval_k": "200"},
    },
    choices,
    halving=Halving(RUNGS, cost),
    one_core=True,
)
