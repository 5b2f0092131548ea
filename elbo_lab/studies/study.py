"""What a study is: a question, the grid of runs that answers it, and the figure to look at."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab.sweeps import sweep_reporting

Texts = dict[str, str]  # by flag: the texts of a command line


class Choice(NamedTuple):
    """One cell of a study's grid."""

    values: Texts  # axis -> the text that names the cell
    settings: Texts  # flag -> text, beside what all cells share


def sweep_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table that every sweep has."""
    del path, settings
    return sweep_reporting.table(sweep)


class Study(NamedTuple):
    """A question with a grid.

    A flag that a person gives replaces one of `settings`; those in which cells differ are refused.
    """

    name: str
    question: str  # the title of its page
    settings: Texts  # flag -> text, what all cells share
    choices: Callable[[Texts], list[Choice]]  # settings with the given flags -> the cells
    figure: Callable[[Sequence[dict[str, Any]]], str]  # cells of sweep.json with results -> SVG
    caption: str  # of the figure
    # (the sweep's folder, what its sweep.json holds, the settings) -> text
    table: Callable[[Path, dict[str, Any], Texts], str] = sweep_table


def crossed(axes: Mapping[str, Mapping[str, Texts]]) -> list[Choice]:
    """Every choice of a value on each axis, the last axis varying fastest.

    Args:
      axes: axis -> value -> the flags that it sets.
    """
    cells = []
    for values in itertools.product(*axes.values()):
        settings: Texts = {}
        for axis, value in zip(axes, values, strict=True):
            settings |= axes[axis][value]
        cells.append(Choice(dict(zip(axes, values, strict=True)), settings))
    return cells


def flag_axis(flag: str, *texts: str) -> dict[str, Texts]:
    """An axis of one flag's values, for `crossed`."""
    return {text: {flag: text} for text in texts}
