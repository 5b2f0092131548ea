"""A study: a question, what answers it (a grid of runs or a computation), and the figure that shows
the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.runs.loading import Trained
from elbo_lab.sweeps import sweep_reporting

Texts = dict[str, str]  # flag -> the text of its value
ConfigOf = Callable[[Texts], Config]  # the config of these flags; UserError if there is none
Load = Callable[[Path, int], Trained]  # (a run's directory, its replicate) -> the trained run
# (the sweep's folder, the content of its sweep.json, the reader of runs) -> None: computes from
# trained runs what table and drawing need, and keeps what takes long in a file of the folder;
# UserError if a run cannot be loaded, or the file cannot be written
AfterTraining = Callable[[Path, dict[str, Any], Load], None]


class Choice(NamedTuple):
    """One cell of a study's grid."""

    values: Texts  # axis -> text; names the cell
    settings: Texts  # flag -> text, besides what all cells share


class Rung(NamedTuple):
    """A round of successive halving."""

    budget: float  # compute of training a candidate, in reference steps
    keep: int  # number of candidates that go on; after the last rung, that are left


class Halving(NamedTuple):
    """Successive halving of a study's cells, its candidates (Jamieson and Talwalkar 2016).

    In each rung the candidates that are left are trained from the start with the rung's compute.
    The best by the headline quantity go on. A reference step is a unit of compute: one step costs
    `cost` of them, so that candidates are compared at equal cost and not at equal steps.
    """

    rungs: tuple[Rung, ...]
    cost: Callable[[Texts], float]  # flags of a candidate -> the cost of one of its steps


class Computation(NamedTuple):
    """The answer of a study that trains nothing, in one process and a few minutes.

    After a kill it begins anew; once it is complete, its results are read from its folder.
    """

    # (the config of the settings, a function of the part that is done) -> results, JSON-ready
    results: Callable[[Config, Callable[[float], None]], dict[str, Any]]
    table: Callable[[dict[str, Any]], str]  # results -> text for a terminal
    figure: Callable[[dict[str, Any]], str]  # results -> SVG
    kind: Any  # of stored results, as `json_files` checks them
    # raises a UserError for settings without an answer
    check: Callable[[Config], None]


def check_shared(name: str, settings: Texts, choices: Sequence[Choice]) -> None:
    """Raises a UserError if `settings`, which all cells of the study `name` share, has a flag that
    a cell sets.
    """
    for choice in choices:
        for flag in choice.settings:
            if flag in settings:
                raise UserError(
                    f"--{flag} differs between the cells of the study {name}; leave it out."
                )


def sweep_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table of a sweep's cells, which a study has by default."""
    del path, settings
    return sweep_reporting.table(sweep)


class Study(NamedTuple):
    """A question with a grid, or with a computation.

    Flags of the command line replace entries of `settings`, except those in which cells differ. A
    study with a computation takes no other flags of a configuration.
    """

    name: str
    question: str  # the title of its page
    settings: Texts  # flag -> text, what all cells share by default
    # (settings after replacement, the reader of flags) -> the cells; None: there is a computation
    choices: Callable[[Texts, ConfigOf], list[Choice]] | None = None
    # cells of sweep.json with results -> SVG; a study with rungs has its own, without a caption,
    # and one with a `drawing` has none
    figure: Callable[[Sequence[dict[str, Any]]], str] | None = None
    caption: str = ""  # of the figure
    # (the sweep's folder, the content of its sweep.json, the settings) -> text
    table: Callable[[Path, dict[str, Any], Texts], str] = sweep_table
    # (the study, a folder) -> the study that keeps its results there, and shows all that it has
    kept_in: Callable[[Study, Path], Study] | None = None
    halving: Halving | None = None  # the cells are candidates; None: an ordinary grid
    # (the sweep's folder, the content of its sweep.json) -> SVG, for a figure that needs the runs
    drawing: Callable[[Path, dict[str, Any]], str] | None = None
    one_core: bool = False  # bind each process to a single core, on a CPU
    after_training: AfterTraining | None = None
    needs_labels: bool = False  # data without labels are refused
    computation: Computation | None = None  # in place of a grid


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
