"""Studies without processes: cells, reports, and the rows of Table 1."""

import json
import re
import xml.dom.minidom

import numpy as np
import pytest

from elbo_lab import configs, files, options, training
from elbo_lab.cli import grid_flags, study_flags
from elbo_lab.cli.protocols import PROTOCOLS
from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.reports import svg_figures, sweep_figures
from elbo_lab.runs import rundir
from elbo_lab.studies import ablate_protocol, study_reporting, table1, table1_results
from elbo_lab.studies.registry import STUDIES
from elbo_lab.studies.study import Choice, Study, crossed, flag_axis
from elbo_lab.sweeps import grid, sweep_folder, sweep_results
from tests.sweeps import made_sweeps
from tools.make_results_tables import RESULTS

DIGESTS = {"blobs.npz": made_sweeps.DIGEST}
BURDA = {"protocol": "burda2015_code", "budget": "0.1"}


def cells_of(study: Study, **given: str) -> list[grid.Cell]:
    settings = study.settings | given
    return study_flags.cells(study, settings, study.choices(settings, config_of))


def sweep_of(folder, cells: list[grid.Cell]) -> dict:
    store = sweep_folder.read(folder, DIGESTS)
    return sweep_results.collect(
        cells, 0, store, {}, "python -m experiments.study x --k=1 --workdir=/a", 1
    )


def test_crossed_varies_the_last_axis_fastest():
    layers = {"one": {"latent_dims": "3"}, "two": {"latent_dims": "3,2"}}
    assert crossed({"layers": layers, "k": flag_axis("k", "1", "5")}) == [
        Choice({"layers": "one", "k": "1"}, {"latent_dims": "3", "k": "1"}),
        Choice({"layers": "one", "k": "5"}, {"latent_dims": "3", "k": "5"}),
        Choice({"layers": "two", "k": "1"}, {"latent_dims": "3,2", "k": "1"}),
        Choice({"layers": "two", "k": "5"}, {"latent_dims": "3,2", "k": "5"}),
    ]


@pytest.mark.parametrize("name", [n for n, s in STUDIES.items() if s.computation is None])
def test_every_study_asks_a_question_and_all_its_cells_can_be_trained(name):
    study = STUDIES[name]
    assert study.name == name and study.question.endswith("?")
    assert study.halving or study.caption.endswith(".")
    cells = cells_of(study)
    assert [cell.reason for cell in cells] == [""] * len(cells)
    assert len({cell.name for cell in cells}) == len({c.config for c in cells}) == len(cells) > 1


def test_every_computed_study_asks_a_question_and_its_settings_are_flags():
    studies = [study for study in STUDIES.values() if study.computation is not None]
    assert studies
    for study in studies:
        assert study.question.endswith("?") and study.caption.endswith(".")
        study.computation.check(config_of(study.settings))


def test_flags_apply_to_all_cells_unless_the_cells_differ_in_them():
    study = STUDIES["tighter_bounds"]
    cells = cells_of(study, epochs="3", eval_k="60")
    assert {(c.config.epochs, c.config.eval_k) for c in cells} == {(3, 60)}
    with pytest.raises(UserError, match="^--k differs between the cells of the study tighter_b"):
        cells_of(study, k="7")
    # With 20 draws of the log-likelihood no cell of K = 50 can be evaluated.
    with pytest.raises(UserError, match="--eval_k must be at least --k, 50"):
        cells_of(study, eval_k="20")
    with pytest.raises(UserError, match="--batch_size must be at least 1; got 0"):
        cells_of(study, batch_size="0")


def test_the_cells_of_table_1_are_those_whose_results_are_stored():
    stored = [json.loads(file.read_text()) for file in RESULTS.glob("table1-*.json")]
    assert stored
    for row in stored:
        settings = {"protocol": row["protocol"], "budget": str(row["budget"])}
        if start := row["config"].get("init_from"):
            settings["init_from"] = start
        values = {name: str(row[name]) for name in ("data", "layers", "model", "k")}
        choices = table1.choices(settings, config_of, *([value] for value in values.values()))
        (cell,) = study_flags.cells(table1.STUDY, settings, choices)
        assert cell.values == values
        assert cell.config == configs.from_dict(row["config"])
        assert (RESULTS / f"table1-{table1_results.slug(row)}.json").exists()


def test_one_draw_of_iwae_is_the_vae_and_omniglot_has_its_own_validation_images():
    choices = table1.choices(BURDA, config_of, ["mnist", "omniglot"], ["2"], ["iwae"], ["1", "5"])
    assert [tuple(choice.values.values()) for choice in choices] == [
        ("mnist", "2", "vae", "1"),
        ("mnist", "2", "iwae", "5"),
        ("omniglot", "2", "vae", "1"),
        ("omniglot", "2", "iwae", "5"),
    ]
    cells = [grid_flags.checked(BURDA | choice.settings) for choice in choices]
    assert [c.objective for c in cells] == ["elbo", "iwae"] * 2
    # The code of the paper holds out 400 of MNIST's training images, and 1,345 of Omniglot's.
    assert [c.held_out for c in cells] == [400, 400, 1345, 1345]
    assert [configs.to_dict(c)["latent_dims"] for c in cells] == [[100, 50]] * 4
    paper = {"protocol": "burda2015_paper"}
    assert "held_out" not in table1.study(["omniglot"]).choices(paper, config_of)[0].settings


def test_vaes_of_the_fast_protocol_have_a_kl_warm_up():
    by_name = {
        tuple(choice.values.values()): choice.settings
        for choice in table1.study(ks=["1", "5"]).choices({"protocol": "fast"}, config_of)
    }
    assert list(by_name) == [
        ("mnist", "1", "vae", "1"),
        ("mnist", "1", "vae", "5"),
        ("mnist", "1", "iwae", "5"),
    ]
    for k in ("1", "5"):
        config = grid_flags.checked({"protocol": "fast"} | by_name["mnist", "1", "vae", k])
        options = config.objective_options
        assert (config.objective, config.k, config.estimator) == ("beta_vae", int(k), "stl")
        assert (options.beta, options.kl) == ("linear:0:1:20%", "mc")
    iwae = grid_flags.checked({"protocol": "fast"} | by_name["mnist", "1", "iwae", "5"])
    assert iwae == configs.resolved(PROTOCOLS["fast"])


def test_protocols_that_do_not_differ_have_no_ablation():
    with pytest.raises(UserError, match="--towards=fast_adam do not differ in training"):
        ablate_protocol.choices({"protocol": "fast_adam"}, config_of, "fast_adam")
    settings = {"protocol": "rainforth2018", "k": "8"}  # it differs from the paper in K alone
    with pytest.raises(UserError, match="do not differ"):
        ablate_protocol.choices(settings, config_of, "burda2015_paper")


def test_epochs_are_one_change_and_shown_with_the_budget():
    settings = {"protocol": "burda2015_paper", "budget": "0.01"}
    choices = ablate_protocol.choices(settings, config_of, "fast_adam")
    by_change = {choice.values["change"]: choice.settings for choice in choices}
    # A hundredth of 1640 epochs is shown. The paper has no estimator: the default one is shown.
    assert by_change["epochs 16"] == {"epochs": "1640"}
    assert by_change["estimator dreg"] == {"estimator": "dreg"}
    back = ablate_protocol.choices(
        {"protocol": "fast_adam", "objective": "iwae"}, config_of, "burda2015_paper"
    )
    assert Choice({"change": "estimator reparam"}, {"estimator": ""}) in back
    assert grid_flags.checked(settings | by_change["epochs 16"]).epochs == 16
    last = grid_flags.checked(settings | choices[-1].settings)
    fast = configs.replace(PROTOCOLS["fast_adam"], epochs=16)
    assert last == configs.resolved(fast)


def test_another_optimizer_is_one_change_with_its_settings():
    settings = {"protocol": "fast_adam"}
    choices = ablate_protocol.choices(settings, config_of, "fast")
    by_change = {choice.values["change"]: choice.settings for choice in choices}
    assert not any(name.startswith(("adam_", "soap_")) for name in by_change)
    optimizer = grid_flags.checked(settings | by_change["optimizer soap"])
    expected = configs.replace(
        PROTOCOLS["fast_adam"],
        optimizer="soap",
        **options.values_of(PROTOCOLS["fast"].optimizer_options),
    )
    assert optimizer == configs.resolved(expected)
    last = grid_flags.checked(settings | choices[-1].settings)
    assert last == configs.resolved(PROTOCOLS["fast"])
    # The optimizer as the only change is not listed a second time as all changes.
    others = {name.split()[0] for name in by_change} - {"none", "optimizer", "all,"}
    single = {name: configs.flag_text(configs.all_values(last)[name]) for name in others}
    changes = ablate_protocol.choices(settings | single, config_of, "fast")
    assert [choice.values["change"] for choice in changes] == ["none", "optimizer soap"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of Table 1's axes on made values: the folder, its cells, and the values."""
    folder = tmp_path_factory.mktemp("study")
    axes = {"data": ["blobs.npz"], "layers": ["1"], "model": ["iwae"], "k": ["1", "5"]}

    def make(values):
        return made_sweeps.config({"k": values["k"]}, replicates=2)

    cells = grid.expand(axes, make)
    return folder, cells, made_sweeps.fill(folder, cells)


def test_a_report_answers_the_question(made):
    folder, cells, _ = made
    study = Study("x", "Is <a> better?", {}, None, sweep_figures.bound_against_k, "Bounds & bars.")
    text = study_reporting.report(study, {}, folder, sweep_of(folder, cells))
    assert "blobs.npz" in text.splitlines()[1]
    assert text.endswith(f"report: {folder / 'report.html'}\nfigure: {folder / 'answer.svg'}")
    stored = json.loads((folder / "sweep.json").read_text())
    assert stored["study"] == {"name": "x", "question": "Is <a> better?"}
    page = (folder / "report.html").read_text()
    assert "<h1>Is &lt;a&gt; better?</h1>" in page and "<title>Is &lt;a&gt; better?" in page
    identifiers = re.findall(r' id="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))  # the figure is not drawn again below
    assert page.index("Bounds &amp; bars.") < page.index('id="results"')
    figure = (folder / "answer.svg").read_text()
    assert xml.dom.minidom.parseString(figure).documentElement.tagName == "svg"
    assert "var(" not in figure and svg_figures.PALETTE["series-1"] in figure
    # Without results there is no figure.
    (folder / "answer.svg").unlink()
    empty = {**sweep_of(folder, cells), "cells": []}
    assert "figure:" not in study_reporting.report(study, {}, folder, empty)
    assert not (folder / "answer.svg").exists()


def test_rows_of_table_1_are_those_of_the_values(made):
    folder, cells, values = made
    settings = {"protocol": "fast", "budget": "0.1"}
    sweep = files.jsonable(sweep_of(folder, cells))
    # A failed replicate is left out of its row. A cell with a waiting replicate has no row.
    first, second = sweep["cells"]
    first["runs"].pop(0)
    first["failures"]["0"] = "not finite"
    row, _ = table1_results.rows_of_sweep(folder, sweep, settings)
    names = ("data", "layers", "model", "k", "protocol", "budget")
    assert tuple(row[name] for name in names) == ("blobs.npz", 1, "iwae", 1, "fast", 0.1)
    images = values[cells[0].name, 1]
    assert row["nll"] == [pytest.approx(-np.mean(images["log_likelihood"], dtype=np.float64))]
    assert (row["seeds"], row["failed_replicates"]) == ([1], [0])
    assert row["training_seconds"] == 5.0 and row["steps_per_second"] == 2.0
    assert row["command"] == "python -m experiments.study x --k=1"
    assert (row["steps"], row["test_images"]) == (12, made_sweeps.IMAGES)
    # The level of this replicate is -89.7: 1 + (89 mod 4) of the latents vary.
    assert row["active_units"] == [[2]]
    second["failures"]["1"] = sweep_results.WAITING
    assert len(table1_results.rows_of_sweep(folder, sweep, settings)) == 1
    assert "blobs.npz  1" in table1.table(folder, sweep, settings)


def test_replicates_in_several_runs_make_one_row(tmp_path):
    (cell,) = grid.expand({}, lambda values: made_sweeps.config({}, replicates=2))
    rng, replicas = np.random.default_rng(0), training.replicas(cell.config)
    values = [made_sweeps.evaluation(rng, -90.0 - r) for r in (0, 1)]
    for replica, own in zip(replicas, values, strict=True):
        made_sweeps.write_run(tmp_path, [replica], {0: own})
    entry = files.jsonable(sweep_of(tmp_path, [cell]))["cells"][0]
    entry["values"] = {"data": "blobs.npz", "layers": "1", "model": "iwae", "k": "5"}
    row = table1_results.make_row(entry, tmp_path, "command", "fast", 0.1)
    expected = [-np.mean(e["log_likelihood"], dtype=np.float64) for e in values]
    np.testing.assert_allclose(row["nll"], expected, rtol=1e-12)
    assert row["seeds"] == [0, 1] and row["training_seconds"] == 2 * 5.0
    over_images = np.mean([e["log_likelihood"] for e in values], axis=0)
    error = np.std(over_images, ddof=1) / np.sqrt(made_sweeps.IMAGES)
    assert row["nll_standard_error_over_images"] == pytest.approx(error)


def test_runs_outside_of_the_folder_are_adopted_if_they_are_wanted(tmp_path):
    config = made_sweeps.config({}, replicates=2)
    other = configs.replace(config, seed=7)
    names = {"ours": config, "theirs": other}
    for name, own in names.items():  # written as by experiments.run: without "replicas"
        with rundir.claim(str(tmp_path / name), own, made_sweeps.DIGEST, False):
            (tmp_path / name / "note").write_text(name)
    (tmp_path / "empty").mkdir()
    replicas = training.replicas(config)
    with sweep_folder.claim(str(tmp_path / "sweep"), False) as path:
        runs = [tmp_path / name for name in (*names, "empty", "missing")]
        sweep_folder.adopt(path, runs, replicas)
        sweep_folder.adopt(path, runs, replicas)
        store = sweep_folder.read(path, DIGESTS)
    assert not (tmp_path / "ours").exists()
    assert (tmp_path / "theirs" / "note").exists() and (tmp_path / "empty").exists()
    group = grid.group(replicas)
    assert store.begun == [group] and not store.done
    # A worker that resumes the group takes this run as its own.
    run = tmp_path / "sweep" / "runs" / group.name
    with rundir.claim(str(run), group.config, made_sweeps.DIGEST, False, group.replicas) as run:
        assert (run / "note").read_text() == "ours"
