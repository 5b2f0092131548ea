"""The same training, written as a competent user of each library would. Nothing here is imported
unless its peer is asked for; `worker` runs one in a process of its own.
"""

import importlib.metadata
import importlib.util
from typing import NamedTuple

from elbo_lab.errors import UserError


class Row(NamedTuple):
    """A line of the comparison."""

    module: str  # in this package; its `make(task, **options)` returns a `common.Peer`
    options: dict
    says: str  # for people


# What --peers may name, its distribution package and its lines.
PEERS = {
    "pytorch": ("torch", ("pytorch", "pytorch_compiled")),
    "pyro": ("pyro-ppl", ("pyro",)),
    "numpyro": ("numpyro", ("numpyro",)),
    "pythae": ("pythae", ("pythae",)),
}
IMPORTED_AS = {"pyro-ppl": "pyro"}
OURS, OURS_SPREAD = "elbo_lab", "elbo_lab_spread"
ROWS = {
    OURS: Row("ours", {}, "this library"),
    OURS_SPREAD: Row("ours", {"spread": True}, "this library, a CPU device a core"),
    "pytorch": Row("pytorch", {"compiled": False}, "PyTorch eager"),
    "pytorch_compiled": Row("pytorch", {"compiled": True}, "PyTorch, torch.compile"),
    "pytorch_systems": Row("pytorch_systems", {}, "PyTorch eager"),
    "pyro": Row("pyro_svi", {}, "Pyro"),
    "numpyro": Row("numpyro_svi", {}, "NumPyro, scanned"),
    "pythae": Row("pythae_trainer", {}, "pythae's trainer"),
}
# Where there is one: the row of a peer that trains the other model families.
SYSTEM_ROWS = {"pytorch": "pytorch_systems"}


def rows(text: str) -> list[str]:
    """ "pytorch,pyro" as the lines of the comparison.

    Raises:
      UserError: an unknown peer, or one that is not installed.
    """
    names = text.split(",") if text else []
    for name in names:
        if name not in PEERS:
            raise UserError(f"--peers must be of {', '.join(PEERS)}; got {name!r}.")
        package = PEERS[name][0]
        if importlib.util.find_spec(IMPORTED_AS.get(package, package)) is None:
            raise UserError(
                f"--peers={name} needs {package}, which is not installed; "
                'pip install -e ".[peers]" has all peers.'
            )
    return [row for name in dict.fromkeys(names) for row in PEERS[name][1]]


def versions(row_names: list[str]) -> dict[str, str]:
    """Versions of the packages behind these lines."""
    packages = {package for package, lines in PEERS.values() if set(lines) & set(row_names)}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}
