"""Studies that repeat a published comparison: the baseline first, and the paper's differences to it
beside ours.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elbo_lab.studies import comparison_results, published
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts

# The papers' data and L_5000, with a protocol that takes hours on two cores and not weeks.
SETTINGS = {"protocol": "fast", "budget": "0.03", "dataset": "mnist", "eval_k": "5000"}


def make(
    name: str,
    question: str,
    settings: Texts,
    choices: Callable[[Texts, ConfigOf], list[Choice]],
    baseline: str,
) -> Study:
    """The study of the cells of `published.COMPARISONS[name]`.

    Args:
      name: of the study.
      question: the title of its page.
      settings: flag -> text, what all cells share besides SETTINGS.
      choices: the cells, the baseline first; the values of a cell are its published key.
      baseline: the baseline's name, for the caption.
    """
    settings = SETTINGS | settings

    def table(path: Path, sweep: dict[str, Any], given: Texts) -> str:
        del path
        rows = comparison_results.rows_of_sweep(sweep, given, settings)
        return comparison_results.text(name, rows)

    def kept_in(study: Study, folder: Path) -> Study:
        """The study that writes its cells into a folder, and lists all that the folder has."""

        def stored_table(path: Path, sweep: dict[str, Any], given: Texts) -> str:
            del path
            for row in comparison_results.rows_of_sweep(sweep, given, settings):
                comparison_results.write(folder, name, row)
            return comparison_results.text(name, comparison_results.read(folder, name))

        return study._replace(table=stored_table)

    return Study(
        name,
        question,
        settings,
        choices,
        functools.partial(comparison_results.figure, published.COMPARISONS[name]),
        f"Test log-likelihood minus that of {baseline}, with its interval. Open: as published.",
        table,
        kept_in,
    )
