"""The study labels without processes: its cells, its tables, its file and its figure."""

import json
import math

import numpy as np
import pytest

from elbo_lab.cli import study_flags
from elbo_lab.errors import UserError
from elbo_lab.evaluation import scikit_learn
from elbo_lab.reports import results
from elbo_lab.runs.evaluating import Kept
from elbo_lab.studies import label_analysis, label_results, labels, stored_results
from elbo_lab.sweeps import sweep_results

SETTINGS = labels.STUDY.settings


def test_flags_of_a_family_apply_to_its_cells():
    def configs(**changes):
        settings = SETTINGS | changes
        cells = study_flags.cells(labels.STUDY, settings, labels.choices(settings, None))
        assert not any(cell.reason for cell in cells)
        return {cell.values["model"]: cell.config for cell in cells}

    own = configs(hidden_dims="7", width="5")
    mlp, plain, pixels = own.values()
    assert (mlp.model_options.hidden_dims, mlp.objective, mlp.k) == ((7,), "elbo", 1)
    assert (pixels.model_options.width, pixels.objective) == (5, None)
    assert (mlp.model_options.condition, plain.model_options.condition) == ("label", "none")
    # A flag of no cell is refused.
    with pytest.raises(UserError, match="--components is a setting of --model=mixture"):
        configs(components="3")


def test_a_missing_scikit_learn_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(scikit_learn.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="which is not installed: pip install"):
        labels.choices(SETTINGS, None)


# Hand-made results

CURVE = {"confidence": [0.75, 0.95], "accuracy": [0.5, 1.0], "count": [20, 30]}
CONFUSION = [[20, 5], [0, 25]]


def kept(right: list[int], error: float) -> Kept:
    values = {
        "accuracy": np.array(right, float),
        "log_py": np.log([0.5, 0.25, 0.5, 0.5]),
        "log_px_summed": np.array([-10.0, -12.0, -10.0, -12.0]),
    }
    rows = results.classifier_results(
        "naive Bayes", {"accuracy": np.array([1.0, 0.0]), "log_py": np.full(2, -1.5)}, 0.2, "image"
    )
    own = {"confusion": CONFUSION, "calibration": CURVE | {"error": error}}
    naive = {"confusion": CONFUSION, "calibration": CURVE | {"error": 0.2}}
    classifiers = {"naive Bayes": naive, "the model": own}
    return Kept(None, values, rows, {"classification": {"classifiers": classifiers}})


def cell(name: str, headline: str, **config) -> dict:
    return {
        "values": {"model": name},
        "config": {"dataset": "blobs", "eval_k": 20, "batch_size": 50, "replicates": 1} | config,
        "headline": headline,
        "results": {headline: {"mean": -9.5, "standard_error": 0.25, "over": "images"}},
        "failures": {},
        "runs": [{"seed": 0, "run": f"runs/{name}", "replicate": 0}],
        **{"steps": 2000, "training_seconds": 12.4},
    }


SWEEP = {
    **dict.fromkeys(("elbo_lab", "jax", "date"), "x"),
    "devices": ["cpu"],
    "command": "python -m experiments.study labels --workdir=/a",
    "data": [{"test_images": 50}],
    "cells": [
        cell("mlp, p(x|y)", "log_likelihood", condition="label"),
        cell("mlp, p(x)", "log_likelihood", condition="none"),
        cell("pixelcnn, p(x|y)", "log_px", condition="label"),
    ],
}


@pytest.fixture
def classified(tmp_path, monkeypatch):
    """The study's folder with classified.json, of evaluations that are made by hand."""
    evaluations = {"mlp, p(x|y)": kept([1, 0, 1, 1], 0.1), "pixelcnn, p(x|y)": kept([1] * 4, 0.3)}
    monkeypatch.setattr(label_analysis, "_kept", lambda name: evaluations[name])
    label_analysis.compute(tmp_path, SWEEP, lambda path, replicate: path.name)
    return tmp_path


def test_the_tables_are_made_of_the_stored_file(classified, tmp_path):
    assert label_results.markdown(label_results.read(tmp_path)) == "No study is stored yet."
    content = labels.results(classified, SWEEP)
    stored_results.write(tmp_path / label_results.FILE, content)
    text = label_results.markdown(label_results.read(tmp_path))
    # The sample standard deviation of -10, -12, -10, -12 is 2 / sqrt(3), over sqrt(4).
    assert f"{2 / math.sqrt(3) / math.sqrt(4):.2f}" == "0.58"
    for line in (
        "| mlp, p(x\\|y) | -9.50 +- 0.25 | -11.00 +- 0.58 | L_20 | 2,000 | 12 |",
        "| mlp, p(x) | - | -9.50 +- 0.25 | L_20 | 2,000 | 12 |",
        "| pixelcnn, p(x\\|y) | -9.50 +- 0.25 | -11.00 +- 0.58 | exact | 2,000 | 12 |",
        # Three of four are right; log p(y|x) is -0.6931 three times and -1.3863 once.
        "| mlp, p(x\\|y) | 75 +- 25 | -0.87 +- 0.17 | 0.100 |",
        "| naive Bayes | 50 +- 50 | -1.500 +- 0 | 0.200 |",
    ):
        assert line in text
    assert "--workdir" not in content["command"]
    assert [row["name"] for row in content["classifiers"]] == [
        *("mlp, p(x|y)", "pixelcnn, p(x|y)", "naive Bayes")
    ]
    (tmp_path / label_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        label_results.read(tmp_path)


def test_the_figure_shows_the_model_that_is_right_most_often(classified):
    svg = labels.drawing(classified, SWEEP)
    assert "confusion of pixelcnn, p(x|y), test examples" in svg
    assert "mlp, p(x|y) (ECE 0.100)" in svg and "naive Bayes (ECE 0.200)" in svg


def test_nothing_is_shown_while_a_cell_waits(classified):
    waiting = json.loads(json.dumps(SWEEP))
    waiting["cells"][1]["failures"] = {"0": sweep_results.WAITING}
    assert labels.results(classified, waiting) is None
    assert labels.drawing(classified, waiting) == ""


def test_several_seeds_have_their_mean_and_its_error():
    seeds = {0: kept([1, 0, 1, 1], 0.1), 1: kept([1, 0, 0, 1], 0.3)}
    own = label_analysis.by_bayes("x", seeds)
    assert own["accuracy"]["mean"] == pytest.approx(0.625)
    assert own["accuracy"]["standard_error"] == pytest.approx(0.125)  # of 0.75 and 0.5
    assert own["calibration"]["error"] == pytest.approx(0.2)
    assert own["confusion"] == CONFUSION
