"""The study discrete without processes: its cells, its table, its file and its figure."""

import xml.dom.minidom
from types import SimpleNamespace

import pytest

from elbo_lab import configs, losses
from elbo_lab.cli import grid_flags
from elbo_lab.errors import UserError
from elbo_lab.evaluation.gradients.exact_gradients import Quality
from elbo_lab.reports import discrete_figures
from elbo_lab.studies import discrete, discrete_analysis, discrete_results, stored_results
from elbo_lab.studies.discrete_analysis import Analysis

SBN = {"model": "sbn", "latent_dims": (3,)}


def test_every_way_is_a_valid_configuration():
    for name, settings in discrete.WAYS.items():
        if settings.get("estimator", "score") in losses.ESTIMATORS:
            config = grid_flags.checked(discrete.STUDY.settings | settings)
            assert (config.model, config.objective) == ("sbn", settings["objective"]), name


def test_iwae_is_compared_with_the_elbo_and_the_wake_phase_with_nothing():
    vimco = configs.resolved(configs.make(**SBN, objective="iwae", k=5))
    assert vimco.estimator == "vimco"
    assert discrete_analysis.of_elbo(vimco) == configs.replace(vimco, objective="elbo")
    assert discrete_analysis.of_elbo(vimco).estimator == "vimco"
    score = configs.resolved(configs.make(**SBN, objective="elbo", k=1))
    assert discrete_analysis.of_elbo(score) == score
    wake = configs.make(**SBN, objective="iwae", estimator="wake")
    rws = configs.resolved(configs.make(**SBN, objective="rws"))
    assert [discrete_analysis.has_other_target(c) for c in (vimco, score, wake, rws)] == [
        *(False, False, True, True)
    ]


def cell(name, test, difference=None, **config):
    config = configs.resolved(configs.make(**SBN, batch_size=100, **config))
    return {
        "values": {"estimator": name},
        "config": configs.to_dict(config),
        "results": {
            "log_px": {"mean": test, "standard_error": 0.21, "over": "replicates"},
            "elbo": {"mean": test - 2.5},
        },
        "headline": "log_px",
        "failures": {},
        "difference": {"headline": difference} if difference else {},
        **{"steps": 2000, "compiled_seconds": 3.0, "replicates": 2},
    }


EXACT = {"objective": "elbo", "k": 1, "estimator": "enumerate"}
SCORE = EXACT | {"estimator": "score"}
SWEEP = {
    **dict.fromkeys(("elbo_lab", "jax", "date"), "x"),
    "devices": ["cpu"],
    "command": "python -m experiments.study discrete --workdir=/a",
    "cells": [
        cell("enumerate", -120.0, **EXACT),
        cell(
            "score",
            -125.25,
            {"mean": -5.25, "low": -5.75, "high": -4.75, "kind": "x"},
            **SCORE,
        ),
        cell("straight_through", -130.0, **SCORE),
        cell("rws", -121.0, objective="rws", k=5),
        {"values": {"estimator": "rebar"}, "status": "skipped", "reason": "x"},
    ],
}
ANALYSIS = Analysis(
    train_log_px={
        **{"enumerate": [-118.0, -119.0], "score": [-124.0]},
        **{"straight_through": [-129.0], "rws": [-120.0]},
    },
    num_train=10_000,
    gradients={
        "score": Quality(1234.5, 0.02, 0.99, False, 0.1),
        "straight_through": Quality(0.5, 0.34, 0.95, True, 0.01),
        "rws": Quality(2.0, 0.9, 0.4, True, 0.01),
    },
    batch_size=100,
)


def test_the_table_is_made_of_the_stored_file_and_names_what_was_found(tmp_path):
    assert discrete_results.markdown(discrete_results.read(tmp_path)) == "No study is stored yet."
    content = discrete_results.content(SWEEP, ANALYSIS)
    stored_results.write(tmp_path / discrete_results.FILE, content)
    text = discrete_results.markdown(discrete_results.read(tmp_path))
    for line in (
        "| enumerate | elbo, 1 | -120.00 +- 0.21 | - | -118.50 | 2.50 | 0 | exact | 1.5 |",
        "| score | elbo, 1 | -125.25 +- 0.21 | -5.25 (-5.75, -4.75) | -124.00 | 2.50 | 1,234 | "
        "none found | 1.5 |",
        "| straight_through | elbo, 1 | -130.00 +- 0.21 | - | -129.00 | 2.50 | 0.5 | "
        "0.34 (cosine 0.95) | 1.5 |",
        "| rws | rws, 5 | -121.00 +- 0.21 | - | -120.00 | 2.50 | 2 | another target | 1.5 |",
    ):
        assert line in text
    assert "--workdir" not in content["command"] and "rebar" not in text
    (tmp_path / discrete_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        discrete_results.read(tmp_path)


def test_gradients_that_were_not_measured_are_left_out():
    content = discrete_results.content(SWEEP, ANALYSIS._replace(gradients={}))
    rows = discrete_results.rows(content)
    assert [row[-3:-1] for row in rows] == [("0", "exact"), *[("-", "-")] * 3]
    svg = discrete_figures.figure(content["rows"])
    assert "standard deviation" not in svg


def test_the_figure_has_a_row_for_each_way():
    svg = discrete_figures.figure(discrete_results.content(SWEEP, ANALYSIS)["rows"])
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
    for text in ("enumerate", "straight_through", "test images", "standard deviation", "bias"):
        assert text in svg


def test_the_analysis_is_kept_until_a_run_is_trained_again(tmp_path, monkeypatch):
    noiseless = {"rebar": Quality(0.0, 0.0, 1.0, False, float("inf"))}
    analysis = ANALYSIS._replace(gradients=ANALYSIS.gradients | noiseless)
    analysed = []

    def of_runs(runs):
        analysed.append(list(runs))
        return analysis

    monkeypatch.setattr(discrete_analysis, "_of_runs", of_runs)
    runs = [{"run": "runs/x", "replicate": 0}]
    sweep = {"cells": [cell("score", -1.0, **SCORE) | {"runs": runs}, SWEEP["cells"][-1]]}
    for digest, times in (("first", 1), ("first", 1), ("second", 2)):
        loaded = SimpleNamespace(digest=digest)
        discrete_analysis.compute(tmp_path, sweep, lambda path, replicate, run=loaded: run)
        assert analysed == [["score"]] * times
    assert discrete_analysis.read(tmp_path) == analysis


def test_nothing_is_computed_while_a_cell_waits(tmp_path):
    waiting = {"values": {"estimator": "vimco"}, "failures": {"0": "not trained yet"}}
    sweep = SWEEP | {"cells": [*SWEEP["cells"], waiting]}
    discrete_analysis.compute(tmp_path, sweep, load=None)
    assert discrete_analysis.read(tmp_path) is None
    assert discrete.drawing(tmp_path, sweep) == ""
