"""Table 1 of the IWAE paper (Burda et al. 2016): VAE and IWAE by data set, layers and K, with the
paper's numbers beside ours.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elbo_lab.reports import sweep_figures
from elbo_lab.studies import table1_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed, flag_axis

LAYERS = {"1": {"latent_dims": "50"}, "2": {"latent_dims": "100,50"}}
PROTOCOL = "burda2015_code"
MODELS = {"vae": {"objective": "elbo"}, "iwae": {"objective": "iwae"}}
# Protocol -> the course of beta of its VAEs: the ELBO with a KL warm-up.
WARM_UPS = {"fast": "linear:0:1:20%"}


def vae(protocol: str) -> Texts:
    """The flags of a VAE's objective: the ELBO, with the KL warm-up of the protocol if any."""
    if beta := WARM_UPS.get(protocol):
        return {"objective": "beta_vae", "kl": "mc", "beta": beta}
    return MODELS["vae"]


def choices(
    settings: Texts,
    config_of: ConfigOf,
    data: Sequence[str],
    layers: Sequence[str],
    models: Sequence[str],
    ks: Sequence[str],
) -> list[Choice]:
    """The cells of the table; IWAE with one draw is the VAE, and is listed as that once."""
    protocol = config_of({"protocol": settings["protocol"]})
    datasets = {name: {"dataset": name} for name in data}
    if "omniglot" in datasets and protocol.held_out:
        datasets["omniglot"]["held_out"] = "1345"
    settings_of_model = MODELS | {"vae": vae(settings["protocol"])}
    axes = {
        "data": datasets,
        "layers": {number: LAYERS[number] for number in layers},
        "model": {model: settings_of_model[model] for model in models},
        "k": flag_axis("k", *ks),
    }
    cells: dict[tuple[str, ...], Choice] = {}
    for values, flags in crossed(axes):
        if values["k"] == "1":
            values, flags = values | {"model": "vae"}, flags | settings_of_model["vae"]
        cells.setdefault(tuple(values.values()), Choice(values, flags))
    return list(cells.values())


def table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table of the complete cells of a sweep."""
    return table1_results.text(table1_results.rows_of_sweep(path, sweep, settings))


def kept_in(study: Study, folder: Path) -> Study:
    """The study that writes its cells into a folder, and shows all cells that the folder has."""

    def stored_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
        for row in table1_results.rows_of_sweep(path, sweep, settings):
            table1_results.write(folder, row)
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
        kept_in,
    )


STUDY = study()
