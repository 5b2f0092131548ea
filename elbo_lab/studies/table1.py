"""Table 1 of the IWAE paper (Burda et al. 2016): VAE and IWAE by data set, layers and K, with the
paper's numbers beside ours.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elbo_lab import configs
from elbo_lab.cli import run_flags
from elbo_lab.configs import Config
from elbo_lab.reports import sweep_figures
from elbo_lab.studies import table1_results
from elbo_lab.studies.study import Choice, Study, Texts, crossed, flag_axis
from elbo_lab.sweeps import sweep_results

LAYERS = {"1": {"latent_dims": "50"}, "2": {"latent_dims": "100,50"}}
PROTOCOL = "burda2015_code"
MODELS = {"vae": {"objective": "elbo"}, "iwae": {"objective": "iwae"}}


def choices(
    settings: Texts,
    data: Sequence[str],
    layers: Sequence[str],
    models: Sequence[str],
    ks: Sequence[str],
) -> list[Choice]:
    """The cells of the table, each once: IWAE of one draw is VAE."""
    protocol = run_flags.config_of({"protocol": settings["protocol"]})
    sets = {name: {"dataset": name} for name in data}
    if "omniglot" in sets and configs.to_dict(protocol)["held_out"]:
        sets["omniglot"]["held_out"] = "1345"
    axes = {
        "data": sets,
        "layers": {number: LAYERS[number] for number in layers},
        "model": {model: MODELS[model] for model in models},
        "k": flag_axis("k", *ks),
    }
    cells: dict[tuple[str, ...], Choice] = {}
    for values, own in crossed(axes):
        if values["k"] == "1":
            values, own = values | {"model": "vae"}, own | MODELS["vae"]
        cells.setdefault(tuple(values.values()), Choice(values, own))
    return list(cells.values())


def table_cell(values: Texts, config: Config, settings: Texts) -> table1_results.Cell:
    """A cell of the grid as one of the table."""
    names = values["data"], int(values["layers"]), values["model"], int(values["k"])
    return table1_results.Cell(*names, settings["protocol"], float(settings["budget"]), config)


def rows(
    path: Path, sweep: dict[str, Any], settings: Texts
) -> list[tuple[table1_results.Cell, dict[str, Any]]]:
    """The cells that are complete, with what is stored of them."""
    complete = []
    for entry in sweep["cells"]:
        if "results" in entry and sweep_results.WAITING not in entry["failures"].values():
            config = configs.from_dict(entry["config"])
            cell = table_cell(entry["values"], config, settings)
            complete.append((cell, table1_results.row(cell, entry, path, sweep["command"])))
    return complete


def table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table of the folder's cells."""
    return table1_results.text([row for _, row in rows(path, sweep, settings)])


def kept_in(study: Study, folder: Path) -> Study:
    """The study with its cells written as files into a folder: the table of all that are there."""

    def stored_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
        for cell, row in rows(path, sweep, settings):
            table1_results.write(folder, cell, row)
        return table1_results.text(table1_results.read(folder))

    return study._replace(table=stored_table)


def study(
    data: Sequence[str] = ("mnist",),
    layers: Sequence[str] = ("1",),
    models: Sequence[str] = tuple(MODELS),
    ks: Sequence[str] = ("1", "5", "50"),
) -> Study:
    """The study of some of the table's cells."""
    return Study(
        "table1",
        "Does IWAE learn a better model than the VAE, the more so the more draws it is given?",
        {"protocol": PROTOCOL, "budget": "1"},
        functools.partial(choices, data=data, layers=layers, models=models, ks=ks),
        sweep_figures.bound_against_k,
        "Test bounds against K, the draws in the bound that is trained. Bars: one standard error.",
        table,
    )


STUDY = study()
