"""Studies with rungs without processes: who goes on, equal cost, and the report."""

import json
import math
import xml.dom.minidom

import pytest

from elbo_lab.cli import halving_flags
from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.files import jsonable
from elbo_lab.reports import compute_figures
from elbo_lab.runs import rundir
from elbo_lab.studies import (
    fast_protocol,
    halving,
    halving_reporting,
    halving_running,
    halving_table,
)
from elbo_lab.studies.halving import Candidate
from elbo_lab.studies.study import Choice, Halving, Rung, Study
from elbo_lab.sweeps import grid, sweep_results
from tests.sweeps.collecting import Page

RESULT = {"standard_error": 0.5, "over": "images", "symbol": "L_20", "title": "log-likelihood"}
RESULT |= {"unit": "nats per image", "better": "higher"}


def cell(name, mean=None, failures=None, reason="", **result):
    """A cell of sweep.json: with results if it has a mean, skipped if it has a reason."""
    fields = {"name": f"candidate={name}", "values": {"candidate": name}}
    if reason:
        return fields | {"status": "skipped", "reason": reason}
    fields |= {"failures": failures or {}, "status": "failed" if failures else "done"}
    if mean is None:
        return fields
    fields |= {"headline": "log_likelihood", "results": {"log_likelihood": RESULT | result}}
    fields["results"]["log_likelihood"]["mean"] = mean
    return fields | {"steps": 8, "training_seconds": 9.0, "compiled_seconds": 4.0}


def sweep(*cells):
    data = {"name": "training:blobs", "train_images": 40, "test_images": 20}
    return jsonable(
        {"cells": cells, "elbo_lab": "1", "jax": "2", "date": "today", "jobs": 2, "data": [data]}
        | {"devices": ["cpu, 1 core"]}
    )


def study(*rungs):
    return Study("x", "Is <a> best?", {}, None, halving=Halving(rungs, lambda settings: 1.0))


def test_the_best_go_on_and_of_equal_ones_the_first():
    values = sweep(cell("a", -3.0), cell("b", -1.0), cell("c", -2.0), cell("d", -1.0))
    assert [halving.survivors(values, keep) for keep in (1, 2, 3, 9)] == [
        [1],
        [1, 3],
        [1, 2, 3],
        [0, 1, 2, 3],
    ]
    tied = sweep(cell("a", -1.0), cell("b", -1.0))
    assert halving.survivors(tied, 1) == [0]
    errors = sweep(*(cell(n, v, better="lower") for n, v in [("a", 3.0), ("b", 1.0), ("c", 2.0)]))
    assert halving.survivors(errors, 2) == [1, 2]


def test_failed_skipped_and_infinite_candidates_never_go_on():
    values = sweep(
        cell("a", reason="no such setting"),
        cell("b", failures={"0": "training diverged", "1": "training diverged"}),
        cell("c", -1.0, failures={"1": "out of memory"}),  # one of two seeds
        cell("d", math.nan),
        cell("e", -5.0),
        cell("f", -0.5, symbol="L_7"),
    )
    # The first cell with results decides the quantity, whether it goes on or not.
    assert halving.survivors(values, 6) == [4]
    reasons = [entry["failure"] for entry in halving.measured(values, [1.0] * 6)]
    assert reasons[:2] == [
        "no such setting",
        "seed 0: training diverged; seed 1: training diverged",
    ]
    assert reasons[2:] == [
        "seed 1: out of memory",
        "its L_20 is not finite",
        "",
        "it is measured by L_7, not by L_20",
    ]
    assert halving.survivors(sweep(cell("a", failures={"0": "x"})), 3) == []


def test_a_rung_with_untrained_replicates_is_not_complete():
    waiting = {"0": sweep_results.WAITING}
    assert not halving.is_complete(sweep(cell("a", -1.0), cell("b", failures=waiting)))
    assert halving.is_complete(sweep(cell("a", -1.0), cell("b", failures={"0": "diverged"})))


def test_a_candidate_that_waits_has_not_failed():
    waiting = {"0": sweep_results.WAITING}
    begun = sweep(
        cell("a", -1.0),
        cell("b", failures=waiting),
        cell("c", failures=waiting | {"1": "out of memory"}),
    )
    candidates = [Candidate(name, {}, (), (9.0,)) for name in "abc"]
    content = halving.content(study(Rung(10.0, 1)), candidates, [begun], [[0, 1, 2]], "x")
    rows = halving_table.rows(content)[1]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("a", "-1.00 +- 0.50", "not yet"),
        ("b", "-", "not yet"),
        ("c", "failed", "not yet"),
    ]


def test_a_study_whose_candidates_are_all_refused_has_the_reason():
    refused = grid.Cell({"candidate": "a"}, None, "--k must be at least 1; got 0.")
    candidates = [Candidate("a", {}, (refused,), (0.0,))]
    with pytest.raises(UserError, match="^--k must be at least 1; got 0.$"):
        halving_running.conduct(study(Rung(10.0, 1)), candidates, None)


def test_epochs_follow_from_the_cost_of_a_step():
    # 3,000 reference steps are 3,000 / 2.3 steps of 2.3 each, of which 200 are an epoch: 6.52.
    assert halving.epochs(3_000, 2.3, 200) == 7
    assert halving.epochs(3_000, 1.0, 500) == 6
    assert halving.epochs(3_000, 10.0, 500) == 1  # 0.6 is at least one
    assert halving.epochs(30_000, 8.5, 50) == 71  # 70.6


def test_every_candidate_of_fast_protocol_is_trained_at_the_cost_of_its_rung():
    own = fast_protocol.STUDY
    choices = own.choices(own.settings, config_of)
    candidates = [halving_flags.candidate_of(own.halving, c, own.settings, 60_000) for c in choices]
    for choice, candidate in zip(choices, candidates, strict=True):
        # Within half an epoch.
        for rung, trained, compute in zip(
            own.halving.rungs, candidate.cells, candidate.compute, strict=True
        ):
            batch = int(choice.settings["batch_size"])
            assert trained.config.batch_size == batch and trained.config.held_out == 10_000
            assert trained.config.dataset == "training:mnist" and trained.config.eval_k == 200
            epoch = 50_000 // batch * fast_protocol.COSTS[choice.settings["optimizer"], str(batch)]
            assert compute == pytest.approx(trained.config.epochs * epoch)
            assert abs(compute - rung.budget) <= epoch / 2 + 1e-9, candidate.name
    keeps = [len(choices), *(rung.keep for rung in own.halving.rungs)]
    assert keeps == sorted(keeps, reverse=True) and keeps[-1] == 1
    with pytest.raises(UserError, match="has no step of --optimizer=sgd with --batch_size=7"):
        fast_protocol.cost({"optimizer": "sgd", "batch_size": "7"})


def test_the_report_shows_the_course_of_every_candidate(tmp_path):
    own = study(Rung(10.0, 2), Rung(1000.0, 1))
    names = ["bad", "good", "<b>", "broken"]
    candidates = [Candidate(n, {"learning_rate": "0.1"}, (), (9.0, 1001.0)) for n in names]
    broken = {"0": "not finite at step 3"}
    first = sweep(
        cell("bad", -40.0), cell("good", -30.0), cell("<b>", -20.0), cell("broken", None, broken)
    )
    second = sweep(cell("good", -12.5), cell("<b>", -15.0))

    def content(sweeps, rungs_of):
        return halving.content(own, candidates, sweeps, rungs_of, "python x --workdir=/a --k=1")

    begun = content([first], [[0, 1, 2, 3]])
    assert not begun["complete"] and begun["rungs"][0]["complete"]
    whole = content([first, second], [[0, 1, 2, 3], [1, 2]])
    assert whole["complete"]
    assert [c["eliminated"] for c in whole["candidates"]] == [1, None, 2, 1]
    reasons = [c["reason"] for c in whole["candidates"]]
    assert reasons == ["place 3 of 4", "", "place 2 of 2", "seed 0: not finite at step 3"]

    text = halving_reporting.report(tmp_path, whole, tmp_path / "results")
    rows = [line.split() for line in text.splitlines()[:5]]
    assert rows[0][:4] == ["candidate", "L_20", "at", "10"]
    assert [row[0] for row in rows[1:]] == ["good", "<b>", "bad", "broken"]
    assert rows[1][1:4] == ["-30.00", "+-", "0.50"] and rows[1][-1] == "no"
    assert "failed: broken, rung 1: seed 0: not finite at step 3" in text
    kept = json.loads((tmp_path / "results" / "x.json").read_text())
    assert kept["command"] == "python x --k=1"
    assert json.loads((tmp_path / "study.json").read_text()) == json.loads(
        json.dumps(whole, sort_keys=True)
    )
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.ids) == len(set(page.ids)) and "Is <a> best?" in page.text
    assert page.rows[1][0] == "good" and page.rows[1][-1] == "no"
    assert "rung2/report.html" in page.addresses
    figure = (tmp_path / "answer.svg").read_text()
    assert xml.dom.minidom.parseString(figure).documentElement.tagName == "svg"
    # The two candidates of the last rung have names.
    assert [c["name"] for c in compute_figures.named(whole)] == ["good", "<b>"]
    assert "good" in figure and "broken" not in figure and ">bad<" not in figure


def test_a_study_without_a_result_has_a_table_and_no_figure(tmp_path):
    own = study(Rung(10.0, 1))
    candidates = [Candidate("a", {}, (), (9.0,))]
    failed = sweep(cell("a", failures={"0": "diverged"}))
    content = halving.content(own, candidates, [failed], [[0]], "c")
    assert content["complete"] and content["quantity"] is None
    text = halving_reporting.report(tmp_path, content)
    assert "failed: a, rung 1: seed 0: diverged" in text and "figure:" not in text
    assert compute_figures.candidates(content) == ""


def test_a_folder_of_something_else_is_refused_and_overwriting_clears_it(tmp_path):
    (tmp_path / "study").mkdir()
    workdir = str(tmp_path / "study")
    with halving_running.claim(workdir, False) as path:
        (path / "study.json").write_text("{}")
        run = path / "rung1" / "runs" / "r"
        run.mkdir(parents=True)
        (path / "rung1" / "sweep.json").write_text('{"grid": {}}')
        with (
            pytest.raises(UserError, match="in use by another process"),
            halving_running.claim(workdir, False),
        ):
            pass
    with halving_running.claim(workdir, True) as path:
        assert not (path / "rung1" / "sweep.json").exists()
        assert not (path / "study.json").exists()
        assert not rundir.is_read_only(path)
    (path / "thesis.tex").write_text("")
    with (
        pytest.raises(UserError, match="not the folder of a study with rungs .it holds thesis.tex"),
        halving_running.claim(workdir, True),
    ):
        pass


def test_a_candidate_that_cannot_be_configured_has_the_reason():
    rungs = Halving((Rung(10, 1), Rung(20, 1)), lambda settings: 1.0)
    choice = Choice({"candidate": "a"}, {"batch_size": "0"})
    candidate = halving_flags.candidate_of(rungs, choice, {}, 60)
    assert [c.config for c in candidate.cells] == [None, None]
    assert candidate.cells[0].reason.startswith("--batch_size must be at least 1")
