"""The study disentangle: its cells, and its table and figure of hand-made results."""

import json
import xml.dom.minidom
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from elbo_lab.cli import study_flags
from elbo_lab.errors import UserError
from elbo_lab.reports import disentangle_figures
from elbo_lab.runs import disentangling
from elbo_lab.runs.disentangling import Scores
from elbo_lab.studies import (
    disentangle,
    disentangle_analysis,
    disentangle_results,
    stored_results,
)
from elbo_lab.sweeps import sweep_results

SETTINGS = disentangle.STUDY.settings


def row(objective, weight, error):
    values = {"reconstruction": -50.25, "kl": 12.5, "active": 7.5}
    values |= dict.fromkeys(disentangle_results.SCORES, 0.125)
    return {
        **{"objective": objective, "weight": weight, "replicates": 2},
        **{name: {"mean": v, "standard_error": error} for name, v in values.items()},
    }


RESULTS = {
    "command": "python -m experiments.study disentangle",
    "devices": ["cpu, 1 core"],
    "data": "factors",
    "epochs": 60,
    "latent_dim": 10,
    "rows": [row("beta_vae", "1", 0.5), row("beta_vae", "4", None), row("beta_tcvae", "4", 0.25)],
}


def test_the_first_cell_is_the_vae():
    cells = study_flags.cells(disentangle.STUDY, SETTINGS, disentangle.choices(SETTINGS, None))
    assert (cells[0].config.objective, cells[0].config.objective_options.beta) == ("beta_vae", 1)
    assert not any(cell.reason for cell in cells)


def test_data_without_factors_are_refused():
    with pytest.raises(UserError, match="--dataset must be factors or factors64 .* 'mnist_small'"):
        disentangle.choices(SETTINGS | {"dataset": "mnist_small"}, None)


def test_the_table_and_the_file(tmp_path):
    assert disentangle_results.read(tmp_path) is None
    stored_results.write(tmp_path / disentangle_results.FILE, RESULTS)
    results = disentangle_results.read(tmp_path)
    assert results["rows"] == json.loads(json.dumps(RESULTS["rows"]))
    text = disentangle_results.text(results)
    assert "-50.25 +- 0.50" in text and "0.125 +- 0.500" in text and "replicates: 2" in text
    assert "| beta_vae | 4 | -50.25 | 12.50 | 7.500 | 0.125 |" in disentangle_results.markdown(
        results
    )


def test_the_figure_names_the_weights():
    svg = disentangle_figures.figure(RESULTS["rows"])
    root = xml.dom.minidom.parseString(svg)
    texts = ["".join(n.data for n in e.childNodes) for e in root.getElementsByTagName("text")]
    assert texts.count("4") >= 6 and {"MIG", "beta_vae", "beta_tcvae"} <= set(texts)


def cell(objective, weight, replicates):
    runs = [{"run": f"runs/{objective}{weight}", "replicate": r} for r in range(replicates)]
    result = {"mean": -2.5, "standard_error": 0.5}
    return {
        "values": {"objective": objective, "weight": weight},
        "config": {"dataset": "factors", "epochs": 3, "latent_dims": [10]},
        "results": {"reconstruction": result, "kl": result},
        "failures": {},
        "runs": runs,
    }


class Loaded(NamedTuple):
    """What is read of a trained run."""

    name: tuple
    digest: str
    dataset: str
    config: SimpleNamespace


CELLS = [cell("beta_vae", "1", 2), cell("beta_tcvae", "4", 1)]


def test_scores_are_computed_once_and_again_for_a_run_that_was_trained_again(
    tmp_path, monkeypatch, capsys
):
    checkpoints, scored = dict.fromkeys(("beta_vae1", "beta_tcvae4"), "first"), []

    def load(path, replicate):
        name = (path.name, replicate, checkpoints[path.name])
        config = SimpleNamespace(seed=replicate, dataset="factors", held_out=0)
        return Loaded(name, checkpoints[path.name], "factors", config)

    def scores(trained, dataset, seed):
        scored.append(trained.name)
        return Scores(*[0.25 + 0.5 * seed] * len(Scores._fields))

    monkeypatch.setattr(disentangling, "scores", scores)
    waiting = {"values": {}, "failures": {"0": sweep_results.WAITING}}
    disentangle_analysis.compute(tmp_path, {"cells": [*CELLS, waiting]}, load)
    assert not scored and disentangle_analysis.read(tmp_path) == {}
    disentangle_analysis.compute(tmp_path, {"cells": CELLS}, load)
    first = [("beta_vae1", 0, "first"), ("beta_vae1", 1, "first"), ("beta_tcvae4", 0, "first")]
    assert scored == first
    capsys.readouterr()
    disentangle_analysis.compute(tmp_path, {"cells": CELLS}, load)
    assert scored == first and capsys.readouterr().err == ""
    checkpoints["beta_tcvae4"] = "second"
    disentangle_analysis.compute(tmp_path, {"cells": CELLS}, load)
    assert scored == [*first, ("beta_tcvae4", 0, "second")]
    stored = disentangle_analysis.read(tmp_path)
    assert {place: row.mig for place, row in stored.items()} == {
        ("runs/beta_vae1", 0): 0.25,
        ("runs/beta_vae1", 1): 0.75,
        ("runs/beta_tcvae4", 0): 0.25,
    }
    sweep = {"cells": CELLS, "devices": ["cpu"], "command": "python -m x --workdir=/a"}
    sweep |= dict.fromkeys(("elbo_lab", "jax", "date"), "x")
    rows = disentangle_results.content(tmp_path, sweep)["rows"]
    assert [row["replicates"] for row in rows] == [2, 1]
    error = 0.5 / np.sqrt(2) / np.sqrt(2)  # the sample standard deviation over sqrt(2)
    assert rows[0]["mig"] == {"mean": 0.5, "standard_error": pytest.approx(error)}
    assert rows[1]["mig"] == {"mean": 0.25, "standard_error": None}
    (tmp_path / disentangle_analysis.FILE).write_text("{}")
    assert disentangle_results.content(tmp_path, sweep) is None
