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
# reference step, one of Adam with batches of 100.
COSTS: dict[tuple[str, str], float] = {
    ("adam", "100"): 1.0,
    ("adam", "250"): 2.3,
    ("adam", "1000"): 8.5,
}


class Row(NamedTuple):
    """A candidate: the values of its flags."""

    optimizer: str
    batch_size: str
    learning_rate: str
    estimator: str
    more: Texts = {}  # further flags


CANDIDATES = (
    Row("adam", "100", "0.002", "dreg"),
    Row("adam", "100", "0.004", "dreg"),
    Row("adam", "100", "0.008", "dreg"),
    Row("adam", "100", "0.004", "reparam"),
    Row("adam", "100", "0.004", "stl"),
    Row("adam", "250", "0.004", "dreg"),
    Row("adam", "250", "0.008", "dreg"),
    Row("adam", "1000", "0.008", "dreg"),
    Row("adam", "1000", "0.016", "dreg"),
)


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every candidate."""
    del settings, config_of
    return [choice_of(row) for row in CANDIDATES]


def choice_of(row: Row) -> Choice:
    """A candidate with its name, "adam 0.004, B 100, dreg"."""
    more = "".join(f", {name} {text}" for name, text in row.more.items())
    name = f"{row.optimizer} {row.learning_rate}, B {row.batch_size}, {row.estimator}{more}"
    settings = {
        "batch_size": row.batch_size,
        "learning_rate": row.learning_rate,
        "estimator": row.estimator,
        **row.more,
    }
    if row.optimizer != "adam":  # the default
        settings = {"optimizer": row.optimizer, **settings}
    return Choice({"candidate": name}, settings)


def cost(settings: Texts) -> float:
    """The cost of a step, in reference steps.

    Raises:
      UserError: `COSTS` has no entry for the optimizer and the batch.
    """
    key = settings.get("optimizer", "adam"), settings["batch_size"]
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
