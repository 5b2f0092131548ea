"""Time to quality without processes: thresholds, stored runs, those of another program."""

import json
import xml.dom.minidom

import pytest

from elbo_lab import files
from elbo_lab.cli.protocols import PROTOCOLS
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.studies import time_to_nll, time_to_nll_results
from elbo_lab.sweeps import grid, sweep_folder, sweep_results
from tests.sweeps import made_sweeps


def row(protocol="fast", budget=0.1, seconds=600.0, nll=88.0, **changes):
    fields = {"protocol": protocol, "budget": budget, "train_seconds": seconds, "nll": nll}
    fields |= {"steps": 1000, "standard_error": 0.25, "over": "images", "eval_k": 5000}
    return fields | {"replicates": 1, "seed": 0, "device": "cpu, 1 core"} | changes


def test_the_time_to_a_threshold_is_that_of_the_cheapest_run_which_passes_it():
    # The longer run is worse than the shorter one, as another seed may be.
    rows = [row(seconds=60.0, nll=91.0), row(seconds=300.0, nll=88.5), row(seconds=900.0, nll=88.7)]
    at = {nll: time_to_nll_results.seconds_to(rows, nll) for nll in (95.0, 90.0, 88.7, 88.5, 88.4)}
    assert at == {95.0: 60.0, 90.0: 300.0, 88.7: 300.0, 88.5: 300.0, 88.4: None}
    head, body = time_to_nll_results.times([*rows, row("other", seconds=36_000.0, nll=85.54)])
    assert head == ("protocol", "90", "88.5", "87.5", "86.5", "86", "85.54")
    # 300 seconds are five minutes.
    assert body == [("fast", "5.0", "5.0", "-", "-", "-", "-"), ("other", *["600"] * 6)]
    # Another seed, or a mean over replicates, is not the same protocol's cheapest run.
    others = [row(nll=85.0, seed=1), row(nll=85.0, replicates=3), row(nll=85.0, seed=1)]
    names = [name for name, *_ in time_to_nll_results.times([*rows, *others])[1]]
    assert names == ["fast", "fast, seed 1", "fast, 3 replicates"]


def test_stored_runs_are_read_back_beside_those_of_another_program(tmp_path):
    for own in (row(budget=0.1), row(budget=0.01, seconds=30.0, nll=92.0)):
        time_to_nll_results.write(tmp_path, own)
    first = (tmp_path / "time_to_nll-fast-0.1-s0-r1.json").stat().st_mtime_ns
    time_to_nll_results.write(tmp_path, row(budget=0.1, date="later"))  # the same numbers
    assert (tmp_path / "time_to_nll-fast-0.1-s0-r1.json").stat().st_mtime_ns == first
    points = [
        {"steps": 20, "train_seconds": 90.0, "nll": 89.0, "standard_error": 0.2},
        {"steps": 10, "train_seconds": 6.0, "nll": 99.0, "standard_error": None},
    ]
    outside = {"name": "PyTorch, eager", "device": "cpu, 1 core", "eval_k": 100, "points": points}
    (tmp_path / time_to_nll_results.OUTSIDE).write_text(json.dumps(outside))
    (tmp_path / "time_to_nll-damaged.json").write_text("{")
    with pytest.warns(DamageWarning, match="time_to_nll-damaged.json"):
        rows = time_to_nll_results.read(tmp_path)
    assert time_to_nll_results.runs(rows) == [
        ("fast", "0.01", "1,000", "0.50", "92.00 +- 0.25"),
        ("fast", "0.1", "1,000", "10", "88.00 +- 0.25"),
        ("PyTorch, eager", "-", "10", "0.10", "99.00"),
        ("PyTorch, eager", "-", "20", "1.5", "89.00 +- 0.20"),
    ]
    text, markdown = time_to_nll_results.text(rows), time_to_nll_results.markdown(rows)
    assert "NLL: nats per test image by L_100 or L_5000;" in text
    assert "PyTorch, eager: one training at a constant learning rate" in text
    assert "constant learning rate" not in time_to_nll_results.text(rows[:2])
    assert "PyTorch, eager  1.5" in text and "| PyTorch, eager | 1.5 | - |" in markdown
    figure = time_to_nll_results.figure(rows)
    assert xml.dom.minidom.parseString(figure).documentElement.tagName == "svg"
    assert "PyTorch, eager" in figure and "published 85.54" in figure
    assert time_to_nll_results.text([]) == time_to_nll_results.markdown([])


def test_the_cells_are_each_protocol_with_each_budget():
    settings = time_to_nll.STUDY.settings
    choices = time_to_nll.STUDY.choices(settings, None)
    assert len(choices) == sum(map(len, time_to_nll.LADDERS.values()))
    assert all(choice.values == choice.settings for choice in choices)
    assert set(time_to_nll.LADDERS) <= set(PROTOCOLS)
    small = time_to_nll.study({"fast": ["0.5"]}).choices(settings, None)
    assert [choice.values for choice in small] == [{"protocol": "fast", "budget": "0.5"}]


def test_the_report_keeps_the_runs_of_a_sweep(tmp_path):
    axes = {"protocol": ["fast", "slow"], "budget": ["0.1"]}

    def make(values):
        return made_sweeps.config({}, k=5 if values["protocol"] == "fast" else 7)

    cells = grid.expand(axes, make)
    values = made_sweeps.fill(tmp_path, cells)
    store = sweep_folder.read(tmp_path, {"blobs.npz": made_sweeps.DIGEST})
    sweep = files.jsonable(sweep_results.collect(cells, 0, store, {}, "python x --jobs=2 --k=5"))
    study = time_to_nll.kept_in(time_to_nll.STUDY, tmp_path / "results")
    text, figure = study.table(tmp_path, sweep, {}), study.figure(sweep["cells"])
    stored = json.loads((tmp_path / "results" / "time_to_nll-fast-0.1-s0-r1.json").read_text())
    images = values[cells[0].name, 0]["log_likelihood"].astype(float)
    assert stored["nll"] == pytest.approx(-images.mean())
    assert stored["standard_error"] == pytest.approx(images.std(ddof=1) / len(images) ** 0.5)
    # 12 steps at 2 steps per second; the wall time with compilation is 5 s.
    assert (stored["train_seconds"], stored["wall_seconds"]) == (6.0, 5.0)
    assert stored["command"] == "python x --k=5" and stored["device"] == "cpu, 1 core"
    assert "slow      0.1     12     0.10" in text and "slow" in figure
    # A cell with a replicate that is not trained yet is not kept.
    sweep["cells"][1]["failures"] = {"1": sweep_results.WAITING}
    assert [r["protocol"] for r in time_to_nll_results.rows_of_sweep(sweep)] == ["fast"]
    # Nor is one whose NLL is not finite or whose speed is unknown: JSON has null for both.
    slow = sweep["cells"][1] | {"failures": {}}
    result = {slow["headline"]: slow["results"][slow["headline"]] | {"mean": None}}
    for change in ({"results": result}, {"compiled_seconds": None}):
        sweep["cells"][1] = slow | change
        assert [r["protocol"] for r in time_to_nll_results.rows_of_sweep(sweep)] == ["fast"]
        assert "slow" not in time_to_nll.figure(sweep["cells"])


def test_runs_with_other_settings_are_not_kept(tmp_path):
    study = time_to_nll.STUDY
    kept = time_to_nll.kept_in(study, tmp_path)
    own = study.settings | {"seed": "1", "replicates": "2"}
    assert kept.choices(own, None) == study.choices(own, None)
    for flag, text in (("dataset", "omniglot"), ("latent_dims", "2")):
        with pytest.raises(UserError, match=f"^--{flag}={text} is not a setting of the study"):
            kept.choices(study.settings | {flag: text}, None)
