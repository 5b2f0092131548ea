"""Time to quality: minutes of training on one core until IWAE passes a test NLL.

The learning rate of a run falls to zero over its length. So the quality that a compute budget buys
is the final value of a run of that length, not a point on the curve of a longer run: each protocol
is trained with several budgets.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.studies import time_to_nll_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts

# Protocol -> fractions of its epochs. The first run is the baseline of the others' differences.
LADDERS: dict[str, tuple[str, ...]] = {
    "fast_adam": ("0.01", "0.03", "0.1"),
    "fast": ("0.08", "0.12", "0.13", "0.2", "0.3", "0.39", "0.5", "1"),
    "burda2015_code": ("0.03",),
}
# Flags that the name of a stored run has, besides the protocol and the budget.
_IN_NAME = ("seed", "replicates")


def choices(
    settings: Texts, config_of: ConfigOf, ladders: Mapping[str, Sequence[str]]
) -> list[Choice]:
    """Every protocol with every budget of its ladder."""
    del settings, config_of
    cells = [
        {"protocol": protocol, "budget": budget}
        for protocol, ladder in ladders.items()
        for budget in ladder
    ]
    return [Choice(dict(cell), dict(cell)) for cell in cells]


def figure(cells: Sequence[dict[str, Any]]) -> str:
    """SVG of the cells of a sweep that have results."""
    shown = [cell for cell in cells if time_to_nll_results.is_timed(cell)]
    return time_to_nll_results.figure([time_to_nll_results.row_of_cell(cell) for cell in shown])


def table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The tables of the complete cells of a sweep."""
    del path, settings
    return time_to_nll_results.text(time_to_nll_results.rows_of_sweep(sweep))


def kept_in(study: Study, folder: Path) -> Study:
    """The study that writes its runs into a folder, and shows all that the folder has.

    The names of the files have the protocol, the budget and the flags `_IN_NAME` alone. So other
    flags are refused, with which a run would take the place of the study's.
    """

    def stored_choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
        for name, text in settings.items():
            if name not in _IN_NAME and study.settings.get(name) != text:
                raise UserError(
                    f"--{name}={text} is not a setting of the study {study.name}, and "
                    "--results_dir keeps runs with its own settings; leave out one of the two."
                )
        return study.choices(settings, config_of)

    def stored_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
        del path, settings
        for row in time_to_nll_results.rows_of_sweep(sweep):
            time_to_nll_results.write(folder, row)
        return time_to_nll_results.text(time_to_nll_results.read(folder))

    def stored_figure(cells: Sequence[dict[str, Any]]) -> str:
        del cells
        return time_to_nll_results.figure(time_to_nll_results.read(folder))

    return study._replace(choices=stored_choices, table=stored_table, figure=stored_figure)


def study(ladders: Mapping[str, Sequence[str]] = LADDERS) -> Study:
    """The study of these protocols with these budgets."""
    return Study(
        "time_to_nll",
        "How many minutes of training on one core does a test NLL take?",
        {"dataset": "mnist", "objective": "iwae", "k": "5", "eval_k": "5000"},
        functools.partial(choices, ladders=ladders),
        figure,
        "Test NLL against minutes of training on one core, without compilation and evaluation. "
        "Each point of a protocol is the end of a run of its own; points far above the thresholds "
        "are cut off. "
        "Bars: one standard error. Dotted: the thresholds; dashed: the published number (Burda et "
        "al. 2016).",
        table,
        kept_in=kept_in,
        one_core=True,
    )


STUDY = study()
