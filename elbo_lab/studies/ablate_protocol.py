"""The effect of each setting in which two protocols differ.

The baseline is one protocol. Each other cell takes one of the differing settings from the other
protocol, and the last cell takes all of them.
"""

import functools
from collections.abc import Sequence
from typing import Any

from elbo_lab import configs
from elbo_lab.errors import UserError
from elbo_lab.options import options_of
from elbo_lab.reports import html_page, sweep_cells, sweep_figures
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts

# Settings that do not change the training, and those that a protocol leaves open.
_KEPT = ("test_draw", "au_images", "eval_k", "objective", "k", "m", "dataset", "latent_dims")
START, END = "burda2015_code", "burda2015_paper"


def choices(settings: Texts, config_of: ConfigOf, end: str) -> list[Choice]:
    """The cells: the protocol, one cell for each setting that differs, and one for all of them.

    Args:
      settings: flag -> text, of all cells; "protocol" is the baseline.
      config_of: reads flags.
      end: the protocol from which the settings are taken.

    Raises:
      UserError: the two protocols do not differ.
    """
    start, budget = settings["protocol"], settings.get("budget", "1")
    start_values = configs.to_dict(config_of(settings))
    end_values = configs.to_dict(config_of({"protocol": end, "budget": budget}))
    # A change is stated without the budget, which multiplies the epochs of every cell.
    unscaled = configs.to_dict(config_of({"protocol": end}))
    changes = {
        name: configs.flag_text(unscaled[name])
        for name, value in end_values.items()
        if name not in _KEPT and name not in settings and start_values.get(name, value) != value
    }
    optimizer = {}
    if "optimizer" in changes:
        # Another optimizer is one change, together with its own settings.
        own = options_of(config_of({"protocol": end}).optimizer_options)
        own_values = {name: configs.flag_text(unscaled[name]) for name in own}
        optimizer = {name: text for name, text in own_values.items() if name not in settings}
        changes = {name: text for name, text in changes.items() if name not in own}
    if not changes:
        raise UserError(
            f"--protocol={start} and --towards={end} do not differ in training, except in the "
            "flags that are given."
        )
    cells = [Choice({"change": "none"}, {})]
    for name, text in changes.items():
        # An estimator that the other protocol does not set is shown as the objective's default.
        change = {name: text} | (optimizer if name == "optimizer" else {})
        config = configs.resolved(config_of(settings | change))
        value = configs.flag_text(configs.to_dict(config)[name]) or "not given"
        cells.append(Choice({"change": f"{name} {value}"}, change))
    if len(changes) > 1:
        cells.append(Choice({"change": f"all, to {end}"}, changes | optimizer))
    return cells


def figure(cells: Sequence[dict[str, Any]]) -> str:
    """SVG of the differences to the baseline; "" if no cell is compared yet."""
    compared = sweep_cells.compared(cells)
    return sweep_figures.differences(cells, html_page.LEVEL) if compared else ""


def towards(end: str) -> Study:
    """The study of the settings in which --protocol differs from the protocol `end`."""
    return Study(
        "ablate_protocol",
        "What is each setting worth in which two protocols differ?",
        {"protocol": START},
        functools.partial(choices, end=end),
        figure,
        f"Test log-likelihood with one setting as in {end}, minus that without the change.",
    )


STUDY = towards(END)
