"""The same training in other libraries, written as a competent user of each would.

A peer's module is imported only if the peer is requested, by `worker`, in a process of its own.
"""

import importlib.metadata
import importlib.util
from typing import NamedTuple

from elbo_lab.errors import UserError


class Row(NamedTuple):
    """A row of the comparison."""

    module: str  # in this package; its `make(task, **options)` returns a `common.Peer`
    options: dict
    label: str  # in tables


# Name for --peers -> its distribution package and its rows.
PEERS = {
    "pytorch": ("torch", ("pytorch", "pytorch_compiled")),
    "pyro": ("pyro-ppl", ("pyro",)),
    "numpyro": ("numpyro", ("numpyro",)),
    "pythae": ("pythae", ("pythae",)),
    "scikit-learn": ("scikit-learn", ("scikit_learn", "scikit_learn_float32")),
}
IMPORTED_AS = {"pyro-ppl": "pyro", "scikit-learn": "sklearn"}
OURS, OURS_SPREAD = "elbo_lab", "elbo_lab_spread"
ROWS = {
    OURS: Row("ours", {}, "this library"),
    OURS_SPREAD: Row("ours", {"spread": True}, "this library, a CPU device a core"),
    "pytorch": Row("pytorch", {"compiled": False}, "PyTorch eager"),
    "pytorch_compiled": Row("pytorch", {"compiled": True}, "PyTorch, torch.compile"),
    "pytorch_systems": Row("pytorch_systems", {}, "PyTorch eager"),
    "draws": Row("our_draws", {"recomputed": False}, "this library"),
    "recomputed_draws": Row(
        "our_draws", {"recomputed": True}, "this library, the network for each value"
    ),
    "pytorch_draws": Row("pytorch_draws", {}, "PyTorch eager"),
    "pyro": Row("pyro_svi", {}, "Pyro"),
    "numpyro": Row("numpyro_svi", {}, "NumPyro, scanned"),
    "pythae": Row("pythae_trainer", {}, "pythae's trainer"),
    "scikit_learn": Row("scikit_learn", {"dtype": "float64"}, "scikit-learn, float64"),
    "scikit_learn_float32": Row("scikit_learn", {"dtype": "float32"}, "scikit-learn, float32"),
}
# The row that those with each optimizer are divided by: Adam with batches of this size.
REFERENCE, REFERENCE_BATCH = "reference", 100
# A period, in steps, that is longer than any training.
NEVER = 10**9
# This library's rows with each optimizer -> settings that replace the task's.
_SETTINGS: dict[str, dict] = {
    "adam": {"optimizer": "adam"},
    "adam_ema": {"optimizer": "adam", "ema": 0.999},
    "adamax": {"optimizer": "adamax"},
    "schedule_free": {"optimizer": "schedule_free"},
    "sgd": {"optimizer": "sgd"},
    "muon": {"optimizer": "muon"},
    "soap": {"optimizer": "soap"},
    "soap_fixed_bases": {"optimizer": "soap", "soap_frequency": NEVER},
    "soap_fixed": {"optimizer": "soap", "soap_frequency": NEVER, "soap_factor_every": NEVER},
    REFERENCE: {"optimizer": "adam", "batch_size": REFERENCE_BATCH},
}
_LABELS = {
    "adam_ema": "adam, --ema=0.999",
    "soap_fixed_bases": "soap, bases never renewed",
    "soap_fixed": "soap, factors and bases never renewed",
    REFERENCE: f"adam, B = {REFERENCE_BATCH}",
}
OPTIMIZERS = tuple(row for row in _SETTINGS if row != REFERENCE)
# Part of SOAP's step -> the row that has it, and the row that differs by it alone.
SOAP_PARTS = {
    "rotations": ("soap_fixed", "adam"),
    "factors": ("soap_fixed_bases", "soap_fixed"),
    "renewals": ("soap", "soap_fixed_bases"),
}
ROWS |= {
    row: Row("ours", {"settings": settings}, _LABELS.get(row, row))
    for row, settings in _SETTINGS.items()
}
# Row of a peer -> the row that trains the other model families, if there is one.
SYSTEM_ROWS = {"pytorch": "pytorch_systems"}
# Row of a peer -> the row that draws examples, if there is one; and our rows that do.
DRAW_ROWS = {"pytorch": "pytorch_draws"}
OUR_DRAWS, OUR_RECOMPUTED_DRAWS = "draws", "recomputed_draws"
# Rows of peers that fit mixtures, and train no networks.
MIXTURE_ROWS = ("scikit_learn", "scikit_learn_float32")


def rows(text: str) -> list[str]:
    """The rows of the peers in "pytorch,pyro".

    Raises:
      UserError: a peer is unknown or not installed.
    """
    names = text.split(",") if text else []
    for name in names:
        if name not in PEERS:
            raise UserError(f"--peers must be one or more of {', '.join(PEERS)}; got {name!r}.")
        require(PEERS[name][0], f"--peers={name}")
    return [row for name in dict.fromkeys(names) for row in PEERS[name][1]]


def require(package: str, user: str) -> None:
    """Raises a UserError if a peer's package, which `user` needs, is not installed."""
    if importlib.util.find_spec(IMPORTED_AS.get(package, package)) is None:
        raise UserError(
            f"{user} needs {package}, which is not installed; "
            'pip install -e ".[peers]" installs all peers.'
        )


def versions(row_names: list[str]) -> dict[str, str]:
    """Versions of the packages of these rows."""
    packages = {package for package, rows in PEERS.values() if set(rows) & set(row_names)}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}
