"""A study: a question, the grid of runs that answers it, and the figure that shows the answer."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab.configs import Config
from elbo_lab.sweeps import sweep_reporting

Texts = dict[str, str]  # flag -> the text of its value
ConfigOf = Callable[[Texts], Config]  # the config of these flags; UserError if there is none


class Choice(NamedTuple):
    """One cell of a study's grid."""

    values: Texts  # axis -> text; names the cell
    settings: Texts  # flag -> text, besides what all cells share


def sweep_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table of a sweep's cells, which a study has by default."""
    del path, settings
    return sweep_reporting.table(sweep)


class Study(NamedTuple):
    """A question with a grid.

    Flags of the command line replace entries of `settings`, except those in which cells differ.
    """

    name: str
    question: str  # the title of its page
    settings: Texts  # flag -> text, what all cells share by default
    # (settings after replacement, the reader of flags) -> the cells
    choices: Callable[[Texts, ConfigOf], list[Choice]]
    figure: Callable[[Sequence[dict[str, Any]]], str]  # cells of sweep.json with results -> SVG
    caption: str  # of the figure
    # (the sweep's folder, the content of its sweep.json, the settings) -> text
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
