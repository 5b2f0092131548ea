"""The study collapse without processes: its cells, its curves, its table, its file, its figure."""

import json
import math
import xml.dom.minidom
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.cli import grid_flags
from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.reports import collapse_figures
from elbo_lab.runs import derived
from elbo_lab.studies import collapse, collapse_analysis, collapse_results, stored_results
from elbo_lab.sweeps import sweep_results
from tests.runs.test_loading import store


def test_every_remedy_changes_the_decoder_as_it_is_in_one_thing():
    configurations = {
        name: grid_flags.checked(collapse.STUDY.settings | settings)
        for name, settings in collapse.REMEDIES.items()
    }
    plain = configs.to_dict(configurations.pop("none"))
    assert (plain["objective"], plain["encoder_steps"], plain["decoder_dropout"]) == ("elbo", 1, 0)
    for name, config in configurations.items():
        values = configs.to_dict(config)
        changed = {k for k, v in values.items() if k in plain and plain[k] != v} - {"estimator"}
        assert len(changed) == 1, name


def test_labels_are_refused():
    with pytest.raises(UserError, match=r"^--condition=label does not go .* not I\(x; z \| y\)"):
        collapse.choices(collapse.STUDY.settings | {"condition": "label"}, config_of)


def cell(name: str, path: str, kl: float, difference=None):
    config = configs.make(model="pixelvae", latent_dims=(16,), batch_size=50, eval_k=20)
    return {
        "values": {"remedy": name},
        "config": configs.to_dict(config),
        "results": {
            "log_likelihood": {"mean": -95.5, "standard_error": 0.25, "over": "images"},
            "elbo": {"mean": -97.0},
            "kl": {"mean": kl},
        },
        "headline": "log_likelihood",
        "active_units": [{"mean": 3.0}],
        "failures": {},
        "difference": {"headline": difference} if difference else {},
        "runs": [{"run": path, "replicate": 1}],
        **{"steps": 400, "compiled_seconds": 31.4},
    }


@pytest.fixture
def sweep(tmp_path):
    """Two trained cells with the metrics of two replicates, the second of which is the cell's."""
    for name, values in (("a", [0.5, 0.25, 0.0]), ("b", [1.0, 2.0, 4.0])):
        (tmp_path / name).mkdir()
        records = [
            {"step": 20 * (i + 1), "seconds": 1.0, "kl": [9.0, value]}
            | ({"test_log_likelihood": [0.0, -100.0 + value]} if i else {})
            for i, value in enumerate(values)
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / name / "metrics.jsonl").write_text(lines)
    difference = {"mean": -1.5, "low": -2.0, "high": -1.0, "kind": "x"}
    return {
        **dict.fromkeys(("elbo_lab", "jax", "date"), "x"),
        "devices": ["cpu"],
        "command": "python -m experiments.study collapse --workdir=/a",
        "complete": True,
        "cells": [
            cell("none", "a", 0.0),
            cell("KL warm-up", "b", 4.0, difference),
            {"values": {"remedy": "free bits"}, "failures": {"0": "not trained yet"}},
        ],
    }


def test_the_table_and_the_curves_are_those_of_the_runs(tmp_path, sweep):
    assert collapse_results.markdown(collapse_results.read(tmp_path)) == "No study is stored yet."
    content = collapse_results.content(tmp_path, sweep)
    assert content["rows"][1]["curves"] == {
        "kl_steps": [20, 40, 60],
        "kl": [1.0, 2.0, 4.0],
        "probe_steps": [40, 60],
        "probe": [-98.0, -96.0],
    }
    stored_results.write(tmp_path / collapse_results.FILE, content)
    text = collapse_results.markdown(collapse_results.read(tmp_path))
    assert "| none | -95.50 +- 0.25 | - | -97.00 | 0.00 | - | - | 3 | 31 |" in text
    row = "| KL warm-up | -95.50 +- 0.25 | -1.50 (-2.00, -1.00) | -97.00 | 4.00 | - | - | 3 | 31 |"
    assert row in text and "test L_20" in text and "free bits" not in text
    (tmp_path / collapse_results.FILE).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        collapse_results.read(tmp_path)


def measured(name: str, information: float, source: str = "a") -> dict:
    row = {"name": name, "source": source, "examples": 50, "information": information}
    row |= {"information_error": 0.125, "aggregate_kl": 4 * information, "aggregate_kl_error": 0.5}
    return row


def test_the_measures_are_joined_to_the_rows_and_averaged_over_replicates(tmp_path, sweep):
    rows = [measured("none", 0.25), measured("KL warm-up", 2.0), measured("KL warm-up", 3.0, "b")]
    stored_results.write(tmp_path / collapse_analysis.FILE, {"rows": rows})
    content = collapse_results.content(tmp_path, sweep)
    stored_results.write(tmp_path / collapse_results.FILE, content)
    text = collapse_results.markdown(collapse_results.read(tmp_path))
    assert "| 0.00 | 0.25 +- 0.12 | 1.00 +- 0.50 | 3 | 31 |" in text
    # Two replicates 1 and 4 apart: standard errors of half of it.
    assert "| 4.00 | 2.50 +- 0.50 | 10.0 +- 2.0 | 3 | 31 |" in text
    assert f"at most log 50 = {math.log(50):.2f}" in text


class Loaded(NamedTuple):
    """What is read of a trained run."""

    digest: str
    config: SimpleNamespace
    method: None = None
    dataset: None = None


def test_a_study_that_was_stopped_between_replicates_of_a_run_goes_on(tmp_path, monkeypatch):
    own = {n: v for n, v in measured("none", 0.5).items() if n not in ("name", "source")}
    begun = []

    def rows(trained, measure):
        begun.append(trained.config.seed)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return [own]

    def load(path, replicate):
        config = SimpleNamespace(seed=5 + replicate, dataset="x", held_out=0)
        return Loaded("of both", config)

    monkeypatch.setattr(collapse_analysis, "_rows", rows)
    monkeypatch.setattr(collapse_analysis, "_inference_settings", lambda trained: "all alike")
    monkeypatch.setattr(
        collapse_analysis.aggregate_posterior, "make_measure", lambda method, with_model: None
    )
    runs = [{"run": "runs/x", "replicate": r} for r in (0, 1)]
    sweep = {"cells": [{"values": {"remedy": "none"}, "failures": {}, "runs": runs}]}
    with pytest.raises(KeyboardInterrupt):
        collapse_analysis.compute(tmp_path, sweep, load)
    collapse_analysis.compute(tmp_path, sweep, load)
    collapse_analysis.compute(tmp_path, sweep, load)
    assert begun == [5, 6, 6]
    assert [row["seed"] for row in collapse_analysis.read(tmp_path)] == [5, 6]


# The computation on two untrained runs


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_measures_wait_for_all_runs_and_are_resumed(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = {
        f"x_{s}": rng.integers(0, 256, (n, 5, 6), np.uint8) for s, n in (("train", 12), ("test", 7))
    }
    np.savez(tmp_path / "noise.npz", **images)
    settings = {"dataset": str(tmp_path / "noise.npz"), "model": "pixelvae", "latent_dims": (2,)}
    settings |= {"channels": (3,), "layers": 2, "width": 2, "output_width": 2, "kl": "analytic"}
    cells = []
    remedies = {"none": {}, "delta": {"posterior_min_kl": 0.5}, "field": {"receptive_field": 5}}
    for name, remedy in remedies.items():
        store(tmp_path / "runs" / name, **settings, **remedy)
        runs = [{"run": f"runs/{name}", "replicate": 0}]
        cells.append({"values": {"remedy": name}, "failures": {}, "runs": runs})
    waiting = {"values": {"remedy": "other"}, "failures": {"0": sweep_results.WAITING}}
    collapse_analysis.compute(tmp_path, {"cells": [*cells, waiting]}, derived.load_run)
    assert collapse_analysis.read(tmp_path) == []
    collapse_analysis.compute(tmp_path, {"cells": cells}, derived.load_run)
    rows = collapse_analysis.read(tmp_path)
    assert [(row["name"], row["examples"]) for row in rows] == [(name, 7) for name in remedies]
    assert all(row["information"] <= math.log(7) for row in rows)
    # A killed study computes what is missing, with the same numbers: the last run had shared the
    # measure of the first, and has its own now.
    before = (tmp_path / collapse_analysis.FILE).read_bytes()
    stored_results.write(tmp_path / collapse_analysis.FILE, {"rows": rows[:2]})
    capsys.readouterr()
    collapse_analysis.compute(tmp_path, {"cells": cells}, derived.load_run)
    assert "information 3/3 runs" in capsys.readouterr().err
    assert (tmp_path / collapse_analysis.FILE).read_bytes() == before
    collapse_analysis.compute(tmp_path, {"cells": cells}, derived.load_run)
    assert capsys.readouterr().err == ""


def test_the_figure_has_a_line_for_each_remedy(tmp_path, sweep):
    content = collapse_results.content(tmp_path, sweep)
    content["rows"][0]["curves"]["kl"][1] = None  # a step that was not finite
    svg = collapse_figures.figure(content["rows"], 20)
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
    for text in ("none", "KL warm-up", "KL, nats", "L_20, nats"):
        assert text in svg
    empty = sweep | {"cells": sweep["cells"][2:]}
    assert collapse.drawing(tmp_path, empty) == ""
