"""Titles, symbols, units and directions of the measured quantities.

A method's `measure` gives arrays by name. Tables, files, sweeps, pages and figures show those that
`QUANTITIES` lists, in its order. Arrays with several numbers for each example (means of layers,
codes) are representations; they are not listed.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

NATS, BITS = "nats per image", "bits per dimension"
EXACT, ESTIMATE = "exact", "estimate"
LOG_PX = "log p(x)"
# After the titles of what contains log p(x|y) for one class y, the example's own.
GIVEN_Y = " given y"
LOWER_BOUND, UPPER_BOUND = "lower bound in expectation", "upper bound in expectation"
# Names of the log-likelihoods, which masses of 256 grey levels have in bits per dimension too.
IN_BITS = ("log_px", "log_likelihood")


class Quantity(NamedTuple):
    """Description of a measured quantity."""

    title: str
    symbol: str  # "{k}" and "{eval_k}" stand for the configuration's settings
    unit: str = NATS
    # EXACT, ESTIMATE, LOWER_BOUND, UPPER_BOUND, or other words; None: no bound
    direction: str | None = None
    better: str | None = None  # "higher" or "lower"; None: neither
    draws: str | int | None = None  # K of a bound, or the name of the setting that holds it
    compared: bool = False  # True: cells of a sweep are compared by it
    # True: it contains log p(x|.), so that values for densities and for masses do not compare
    of_x: bool = False
    # True: it is of all classes y together, also where the model is conditioned on y
    of_all_classes: bool = False


QUANTITIES: dict[str, Quantity] = {
    "log_px": Quantity(
        "log-likelihood", "log p(x)", NATS, EXACT, "higher", compared=True, of_x=True
    ),
    "elbo": Quantity("ELBO", "ELBO", NATS, LOWER_BOUND, "higher", 1, compared=True, of_x=True),
    "iwae": Quantity("IWAE bound", "L_{k}", NATS, LOWER_BOUND, "higher", "k", of_x=True),
    "log_likelihood": Quantity(
        title="log-likelihood",
        symbol="L_{eval_k}",
        direction=LOWER_BOUND,
        better="higher",
        draws="eval_k",
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
    "log_pz_above": Quantity(
        "log-likelihood of the codes above", "log p(codes above)", NATS, EXACT, "higher"
    ),
    "pair_bound": Quantity(
        title="codes and their density",
        symbol="log p(x|codes) p(codes)",
        direction="lower bound",  # for every x, not only in expectation
        better="higher",
        compared=True,
        of_x=True,
    ),
    "squared_error": Quantity(
        "squared error", "|x - E[x|z]|^2 / D", "per dimension", EXACT, "lower"
    ),
    "log_px_summed": Quantity(
        title="log-likelihood, classes summed",
        symbol="log sum_y p(x, y)",
        direction=EXACT,
        better="higher",
        of_x=True,
        of_all_classes=True,
    ),
    "log_likelihood_summed": Quantity(
        title="log-likelihood, classes summed",
        symbol="log sum_y p(x, y)",
        direction=LOWER_BOUND,
        better="higher",
        draws="eval_k",
        of_x=True,
        of_all_classes=True,
    ),
    "critic_real": Quantity("discriminator at test images", "D(x)", "per image"),
    "critic_generated": Quantity("discriminator at samples", "D(G(z))", "per image"),
    "information": Quantity("mutual information, InfoNCE", "I_NCE", NATS, LOWER_BOUND),
    "information_corrected": Quantity("mutual information, corrected", "I_J", NATS, ESTIMATE),
    "information_loo": Quantity("mutual information, leave-one-out", "I_LOO", NATS, UPPER_BOUND),
    "information_rate": Quantity("mutual information, rate", "R", NATS, UPPER_BOUND),
    "model_information": Quantity("mutual information of the model", "I_BA", NATS, LOWER_BOUND),
    "aggregate_kl": Quantity("KL(q(z) || p(z))", "R - I_NCE", NATS, UPPER_BOUND),
    "aggregate_kl_corrected": Quantity("KL(q(z) || p(z)), corrected", "R - I_J", NATS, ESTIMATE),
    "effective_sample_size": Quantity("effective sample size", "ESS of {eval_k}", "draws"),
}


class Term(NamedTuple):
    """Description of a term of a loss, for the training curves."""

    title: str
    unit: str = NATS


TERMS = {
    "bound": Term("training bound"),
    "kl": Term("KL term"),
    "reconstruction": Term("reconstruction term"),
    "nll": Term("negative log-likelihood"),
    "loss": Term("training loss"),
    "baseline_loss": Term("squared error of the baseline, halved", "nats^2 per image"),
    "discriminator": Term("loss of the discriminator", "per image"),
    "generator": Term("loss of the generator", "per image"),
    "commitment": Term("commitment term"),
    "codebook": Term("codebook term"),
    "perplexity": Term("perplexity of the codes", "codes"),
    "restarts": Term("restarted codes", "codes"),
}


def term(name: str, density: bool = False, conditional: bool = False) -> Term:
    """The description of a loss's term.

    Args:
      name: of the term; one that TERMS does not list is its own title.
      density: True if p(x|z) is a density; titles of terms that contain log p(x|z) then say so.
      conditional: True if the model is p(x|y); the same titles then say that y is given.
    """
    known = TERMS.get(name, Term(name.replace("_", " ")))
    of_level, _, level = name.rpartition("_")
    if of_level in TERMS and level.isdigit():  # e.g. "perplexity_2"
        known = TERMS[of_level]._replace(title=f"{TERMS[of_level].title}, level {level}")
    if known.unit != NATS or name == "kl":
        return known
    given = GIVEN_Y if conditional else ""
    return known._replace(title=known.title + given + (", density" if density else ""))


def present(evaluation: Mapping[str, Any]) -> dict[str, Quantity]:
    """The listed quantities of an evaluation, in the order of tables."""
    return {name: quantity for name, quantity in QUANTITIES.items() if name in evaluation}


def symbol(quantity: Quantity, settings: Mapping[str, Any]) -> str:
    """The symbol with a configuration's numbers of draws; `settings` has "k" and "eval_k"."""
    return quantity.symbol.format_map(settings)


def described(quantity: Quantity, density: bool = False, conditional: bool = False) -> Quantity:
    """A quantity with the title and symbol that it has for one model.

    Args:
      quantity: one of QUANTITIES.
      density: True if p(x|.) is a density; the titles of what depends on it say so.
      conditional: True if the model is p(x|y); titles and symbols then have y.
    """
    words = [quantity.title, quantity.symbol]
    if conditional and not quantity.of_all_classes:
        words = [_given_y(text) for text in words]
        words[0] += GIVEN_Y if quantity.of_x else ""
    title, symbol_text = words
    if density and quantity.of_x:
        title += ", density"
    return quantity._replace(title=title, symbol=symbol_text)


def of_codes(quantity: Quantity, given_above: bool) -> Quantity:
    """A quantity of a model whose x are codes, with a symbol that says so.

    Args:
      quantity: of `described`.
      given_above: True if the codes are modelled given those of the levels above them.
    """
    own = "p(codes|codes above)" if given_above else "p(codes)"
    symbol_text = quantity.symbol.replace("p(x)", own).replace("p(x|y)", "p(codes|y)")
    return quantity._replace(symbol=symbol_text)


def _given_y(text: str) -> str:
    """A title or symbol of a model p(x) as it is of a model p(x|y)."""
    text = text.replace("p(x|", "p(x|y, ").replace("p(x)", "p(x|y)")
    return text.replace("q(z|x)", "q(z|x, y)")


def target(quantity: Quantity, density: bool = False, conditional: bool = False) -> str | None:
    """Names the number that a quantity measures, bounds or estimates.

    Quantities with the same target can be compared with each other.

    Args:
      quantity: one of QUANTITIES.
      density: True if p is a density, False if it is a mass.
      conditional: True if the model is p(x|y).

    Returns:
      LOG_PX, or "log p(x|y)", with ", density" after it for a density, if sweeps compare by the
      quantity and it has a direction, is in nats and contains log p(x|.); None for any other one.
    """
    if not (quantity.compared and quantity.of_x and quantity.direction and quantity.unit == NATS):
        return None
    log_px = _given_y(LOG_PX) if conditional else LOG_PX
    return f"{log_px}, density" if density else log_px


def num_draws(quantity: Quantity, settings: Mapping[str, Any]) -> int | None:
    """K of a bound in a configuration; None if the quantity has no K."""
    return settings[quantity.draws] if isinstance(quantity.draws, str) else quantity.draws


def layers(evaluation: Mapping[str, np.ndarray], split: str = "test") -> list[np.ndarray]:
    """E_q[z_i|x] of each stochastic layer i = 1, 2, ..., [N, L_i] over the examples of a split.

    Args:
      evaluation: name -> array; layers are "means_1", ... and "train_means_1", ...
      split: "test" or "train".

    Returns:
      The layers in their order; [] if the evaluation has none.
    """
    return numbered(evaluation, {"test": "means_", "train": "train_means_"}[split])


def numbered(evaluation: Mapping[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    """The arrays whose names are the prefix and a number, by that number."""
    by_number = {
        int(name.removeprefix(prefix)): array
        for name, array in evaluation.items()
        if name.startswith(prefix)
    }
    return [by_number[number] for number in sorted(by_number)]
