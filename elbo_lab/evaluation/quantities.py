"""What the measured quantities are: their titles, symbols, units and directions.

A method's `measure` gives arrays by name; tables, files, sweeps, pages and figures iterate over
`QUANTITIES` for those that are there, in this order. Arrays of several numbers an example (means of
layers, codes) are representations, and are in no table of means.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

NATS, BITS = "nats per image", "bits per dimension"
EXACT, ESTIMATE = "exact", "estimate"
LOG_PX = "log p(x)"
LOWER_BOUND, UPPER_BOUND = "lower bound in expectation", "upper bound in expectation"
# Names of the log-likelihoods, which masses of 256 grey levels have in bits per dimension too.
IN_BITS = ("log_px", "log_likelihood")


class Quantity(NamedTuple):
    """What is known of a measured quantity."""

    title: str
    symbol: str  # "{k}" and "{eval_k}" stand for the configuration's
    unit: str = NATS
    direction: str | None = None  # EXACT, ESTIMATE, LOWER_BOUND, UPPER_BOUND; None: no bound
    better: str | None = None  # "higher" or "lower"; None: neither
    draws: str | int | None = None  # K of a bound, or the setting that holds it
    compared: bool = False  # whether the cells of a sweep are compared by it
    of_x: bool = False  # log p(x|.) is a part of it: of densities it does not compare with masses


QUANTITIES: dict[str, Quantity] = {
    "log_px": Quantity(
        "log-likelihood", "log p(x)", NATS, EXACT, "higher", compared=True, of_x=True
    ),
    "elbo": Quantity("ELBO", "ELBO", NATS, LOWER_BOUND, "higher", 1, compared=True, of_x=True),
    "iwae": Quantity("IWAE bound", "L_{k}", NATS, LOWER_BOUND, "higher", "k", of_x=True),
    "log_likelihood": Quantity(
        *("log-likelihood", "L_{eval_k}", NATS, LOWER_BOUND, "higher", "eval_k"),
        compared=True,
        of_x=True,
    ),
    "kl": Quantity("KL(q(z|x) || p(z))", "KL"),
    "reconstruction": Quantity("reconstruction", "E_q log p(x|z)", NATS, of_x=True),
    "log_px_mean": Quantity(
        "reconstruction", "log p(x|E[z])", NATS, None, "higher", compared=True, of_x=True
    ),
    "log_px_code": Quantity(
        "reconstruction", "log p(x|codes)", NATS, None, "higher", compared=True, of_x=True
    ),
    "pair_bound": Quantity(
        *("codes and their density", "log p(x|codes) p(codes)", NATS, "lower bound", "higher"),
        compared=True,
        of_x=True,
    ),
    "squared_error": Quantity(
        "squared error", "|x - E[x|z]|^2 / D", "per dimension", EXACT, "lower"
    ),
    "effective_sample_size": Quantity("effective sample size", "ESS of {eval_k}", "draws"),
}


class Term(NamedTuple):
    """A term of a loss, in the training curves."""

    title: str
    unit: str = NATS


TERMS = {
    "bound": Term("training bound"),
    "kl": Term("KL term"),
    "reconstruction": Term("reconstruction term"),
    "nll": Term("negative log-likelihood"),
    "loss": Term("training loss"),
    "commitment": Term("commitment term"),
    "codebook": Term("codebook term"),
    "perplexity": Term("perplexity of the codes", "codes"),
    "restarts": Term("restarted codes", "codes"),
}


def term(name: str, density: bool = False) -> Term:
    """A term of a loss; its title says so where log p(x|z) is that of a density."""
    found = TERMS.get(name, Term(name.replace("_", " ")))
    if density and found.unit == NATS and name != "kl":
        return found._replace(title=f"{found.title}, density")
    return found


def present(evaluation: Mapping[str, Any]) -> dict[str, Quantity]:
    """The quantities of an evaluation, in the order of tables."""
    return {name: q for name, q in QUANTITIES.items() if name in evaluation}


def symbol(quantity: Quantity, settings: Mapping[str, Any]) -> str:
    """The symbol, with the numbers of draws that it has in a configuration."""
    return quantity.symbol.format_map(settings)


def target(quantity: Quantity, density: bool = False) -> str | None:
    """What a compared quantity is the value, a bound or an estimate of: log p(x), of masses or of
    densities, in nats; None for any other quantity. Quantities of one target compare.
    """
    if not (quantity.compared and quantity.of_x and quantity.direction and quantity.unit == NATS):
        return None
    return f"{LOG_PX}, density" if density else LOG_PX


def num_draws(quantity: Quantity, settings: Mapping[str, Any]) -> int | None:
    """K of a bound, in a configuration; None where there is none."""
    return settings[quantity.draws] if isinstance(quantity.draws, str) else quantity.draws


def layers(evaluation: Mapping[str, np.ndarray], split: str = "test") -> list[np.ndarray]:
    """E_q[z_i|x] of each stochastic layer, [N, L_i], over the split's examples; [] if there are
    none.
    """
    prefix = {"test": "means_", "train": "train_means_"}[split]
    found = {int(n.removeprefix(prefix)): a for n, a in evaluation.items() if n.startswith(prefix)}
    return [found[i] for i in sorted(found)]
