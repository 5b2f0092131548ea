"""What each quirk of a protocol is worth: the baseline is one protocol; in each other cell one of
the settings in which it differs from another protocol is as there, and in the last cell all are.
"""

import functools
from collections.abc import Sequence
from typing import Any

from elbo_lab import configs
from elbo_lab.cli import run_flags, validation
from elbo_lab.errors import UserError
from elbo_lab.reports import html_page, sweep_cells, sweep_figures
from elbo_lab.studies.study import Choice, Study, Texts

# Settings that change nothing of the training, and those that a protocol's tables vary.
_KEPT = ("test_draw", "au_images", "eval_k", "objective", "k", "m", "dataset", "latent_dims")
START, END = "burda2015_code", "burda2015_paper"


def choices(settings: Texts, end: str) -> list[Choice]:
    """The protocol, each of its quirks undone, and all of them.

    Args:
      settings: with "protocol", the baseline; other settings hold for every cell.
      end: the protocol whose settings take the quirks' places.

    Raises:
      UserError: the two do not differ.
    """
    start, budget = settings["protocol"], settings.get("budget", "1")
    here = used(settings)
    there = used({"protocol": end, "budget": budget})
    texts = used({"protocol": end})  # a budget scales them once more
    quirks = {
        name: configs.shown(texts[name])
        for name in there
        if name not in (*_KEPT, *settings) and there[name] != here.get(name, there[name])
    }
    if not quirks:
        raise UserError(
            f"--protocol={start} and --towards={end} do not differ in training, beside the flags."
        )
    cells = [Choice({"change": "none"}, {})]
    for name, text in quirks.items():
        # With the objective's own value where there is none.
        shown = configs.shown(used(settings | {name: text}, resolve=True)[name])
        cells.append(Choice({"change": f"{name} {shown or 'not given'}"}, {name: text}))
    if len(quirks) > 1:
        cells.append(Choice({"change": f"all, to {end}"}, quirks))
    return cells


def used(settings: Texts, resolve: bool = False) -> dict[str, Any]:
    """The values by flag of a configuration, with its objective's defaults if asked."""
    config = run_flags.config_of(settings)
    return configs.to_dict(validation.resolved(config) if resolve else config)


def figure(cells: Sequence[dict[str, Any]]) -> str:
    """Differences to the protocol, where there are any."""
    compared = sweep_cells.compared(cells)
    return sweep_figures.differences(cells, html_page.LEVEL) if compared else ""


def towards(end: str) -> Study:
    """The study of what sets --protocol apart from another one."""
    return Study(
        "ablate_protocol",
        "What is each setting worth in which two protocols differ?",
        {"protocol": START},
        functools.partial(choices, end=end),
        figure,
        f"Test log-likelihood with one setting as in {end}, minus that without the change.",
    )


STUDY = towards(END)
