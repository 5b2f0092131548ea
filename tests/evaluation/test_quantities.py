"""Descriptions of measured quantities, and their order."""

import numpy as np
import pytest

from elbo_lab.evaluation import quantities
from tests.training.toys import MEASURED


def test_quantities_that_are_there_come_in_the_order_of_tables():
    shuffled = {name: np.zeros(2) for name in sorted(MEASURED)} | {"means_1": np.zeros((2, 3))}
    in_order = "elbo iwae log_likelihood kl reconstruction effective_sample_size"
    assert list(quantities.present(shuffled)) == in_order.split()
    assert list(quantities.present({"codes": np.zeros((2, 4)), "kl": np.zeros(2)})) == ["kl"]


@pytest.mark.parametrize(
    ("name", "symbol", "draws"),
    [
        ("elbo", "ELBO", 1),
        ("iwae", "L_3", 3),
        ("log_likelihood", "L_70", 70),
        ("log_px", "log p(x)", None),
    ],
)
def test_symbols_have_the_numbers_of_draws_of_the_run(name, symbol, draws):
    quantity, settings = quantities.QUANTITIES[name], {"k": 3, "eval_k": 70}
    assert quantities.symbol(quantity, settings) == symbol
    assert quantities.num_draws(quantity, settings) == draws


def test_layers_come_in_their_order_and_each_split_has_its_own():
    evaluation = {f"means_{i}": np.full((2, i), i) for i in (2, 10, 1)} | {"elbo": np.zeros(2)}
    assert [int(a[0, 0]) for a in quantities.layers(evaluation)] == [1, 2, 10]
    assert quantities.layers(evaluation, "train") == []
    evaluation["train_means_1"] = np.full((5, 1), 7)
    assert [a.shape for a in quantities.layers(evaluation, "train")] == [(5, 1)]
    assert len(quantities.layers(evaluation)) == 3


def test_terms_of_a_density_are_marked_but_for_the_kl():
    titles = [quantities.term(n, density=True).title for n in ("bound", "kl", "code_book")]
    assert titles == ["training bound, density", "KL term", "code book, density"]
    assert quantities.term("reconstruction").title == "reconstruction term"


def test_terms_of_a_level_of_codes_have_its_number():
    for name, level in (("perplexity_2", 2), ("restarts_10", 10)):
        term = quantities.term(name)
        assert term.title == f"{quantities.term(name.split('_')[0]).title}, level {level}"
        assert term.unit == "codes"


def test_the_density_of_codes_says_so():
    log_px = quantities.QUANTITIES["log_px"]
    assert quantities.of_codes(log_px, given_above=False).symbol == "log p(codes)"
    assert quantities.of_codes(log_px, given_above=True).symbol == "log p(codes|codes above)"
    of_labels = quantities.described(log_px, conditional=True)
    assert quantities.of_codes(of_labels, given_above=False).symbol == "log p(codes|y)"
    for name in ("pair_bound", "log_px_code", "log_pz_above"):
        quantity = quantities.QUANTITIES[name]
        assert quantities.of_codes(quantity, given_above=True) == quantity


def test_quantities_of_a_conditional_model_have_y_and_another_target():
    def described(name: str, **law) -> tuple[str, str]:
        quantity = quantities.described(quantities.QUANTITIES[name], **law)
        return quantity.title, quantity.symbol

    assert described("log_px") == ("log-likelihood", "log p(x)")
    assert described("log_px", conditional=True) == ("log-likelihood given y", "log p(x|y)")
    assert described("kl", density=True, conditional=True) == ("KL(q(z|x, y) || p(z))", "KL")
    assert described("reconstruction", density=True, conditional=True) == (
        "reconstruction given y, density",
        "E_q log p(x|y, z)",
    )
    summed = described("log_likelihood_summed", conditional=True)
    assert summed == ("log-likelihood, classes summed", "log sum_y p(x, y)")
    assert quantities.term("bound", conditional=True).title == "training bound given y"
    assert quantities.term("kl", conditional=True).title == "KL term"
    log_px = quantities.QUANTITIES["log_px"]
    targets = [quantities.target(log_px, False, conditional) for conditional in (False, True)]
    assert targets == ["log p(x)", "log p(x|y)"]
