"""Sweeps without processes: the folder, what is missing in it, the numbers and the page."""

import contextlib
import json
import re

import numpy as np
import pytest
from scipy import stats

from elbo_lab import configs, training
from elbo_lab.cli import grid_flags, run_flags
from elbo_lab.configs import Config
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.reports import html_page
from elbo_lab.runs import progress, rundir
from elbo_lab.sweeps import grid, sweep_folder, sweep_jobs, sweep_reporting, sweep_results
from tests.sweeps import made_sweeps
from tests.sweeps.collecting import DIGESTS, Page, collected, means

AXES = {"objective": ["elbo", "iwae"], "k": ["1", "5"], "estimator": ["reparam", "vimco"]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    cells = made_sweeps.cells(AXES, replicates=3)
    return made_sweeps.fill(folder, cells), collected(folder, cells)


@pytest.fixture(scope="module")
def page(sweep):
    """The page, which takes a second to draw."""
    return html_page.page(sweep[1])


def numbers(text):
    return [float(n) for n in re.findall(r"[-+]?[\d.]+", text.replace("\N{MINUS SIGN}", "-"))]


def test_the_numbers_are_those_of_the_images(sweep):
    values, content = sweep
    assert content["complete"] and content["baseline"] == "objective=elbo, k=1, estimator=reparam"
    for cell in content["cells"]:
        if cell["status"] == "skipped":
            continue
        for name in made_sweeps.MEASURED:
            own = means(values, cell["name"], name)
            stored = cell["results"][name]
            assert stored["mean"] == pytest.approx(own.mean())
            assert stored["standard_error"] == pytest.approx(stats.sem(own))
        own, base = (means(values, name) for name in (cell["name"], content["baseline"]))
        if cell["name"] == content["baseline"]:
            assert cell["difference"] == {"reason": "the baseline"}
        else:
            low, high = stats.ttest_rel(own, base).confidence_interval()
            stored = cell["difference"]["headline"]
            assert (stored["low"], stored["high"]) == pytest.approx((low, high))
        # Three replicates in one program, which trained for five seconds.
        assert cell["training_seconds"] == pytest.approx(5 / 3)
        # 12 steps at 2 steps per second of a program of three replicates.
        assert cell["steps"] == 12 and cell["compiled_seconds"] == pytest.approx(12 / 2 / 3)
        counts = [
            np.sum(np.var(values[cell["name"], s]["means_1"], axis=0) > 0.01) for s in range(3)
        ]
        assert cell["active_units"][0]["mean"] == pytest.approx(np.mean(counts))


def test_the_page_is_whole_and_loads_nothing(page):
    text, page = page, Page(page)
    assert len(page.ids) == len(set(page.ids))
    assert all(a.startswith("#") or a == "data:," for a in page.addresses)
    assert not re.search(r"url\((?!#)|@import|<script", text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == 1 and tags.count("caption") == tags.count("table") == 2
    assert dict(page.tags)["html"]["lang"] == "en"
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(pictures) == tags.count("figcaption") == 5
    assert all(p["role"] == "img" and len(p["aria-label"]) > 50 for p in pictures)
    assert "<b>&" in page.text and "<b>&" not in text
    for words in (
        "nats",
        "dynamic",
        "cpu, 1 core of each process, 2 at a time",
        "JAX",
        "2 skipped",
    ):
        assert words in page.text
    assert f"log-likelihood, L_5000 with {Config().eval_k:,} draws per image" in page.text
    assert re.search(r"date\s*\d{4}-\d\d-\d\d", page.text)


def test_the_page_shows_the_numbers(sweep, page):
    values, content = sweep
    rows = Page(page).rows
    assert rows[0] == ["cell", "L5000, nats", "minus baseline, nats"]
    names = [c["name"] for c in content["cells"] if c["status"] == "done"]
    base = means(values, content["baseline"])
    for name, row in zip(names, rows[1 : 1 + len(names)], strict=True):
        own = means(values, name)
        value, error = numbers(row[1])
        assert value == pytest.approx(own.mean(), abs=0.6 * 10 ** -_decimals(row[1]))
        assert error == pytest.approx(stats.sem(own), rel=0.06)
        if name == content["baseline"]:
            assert row[2] == "the baseline"
            continue
        low, high = stats.ttest_rel(own, base).confidence_interval()
        shown = numbers(row[2])
        assert shown == pytest.approx([np.mean(own - base), low, high], abs=0.06 * (high - low))


def _decimals(text):
    return len(re.search(r"\.(\d+)", text)[1])


def test_the_printed_table(sweep):
    values, content = sweep
    lines = sweep_reporting.table(content).splitlines()
    assert lines[0].split()[:5] == ["objective", "k", "estimator", "runs", "L_5000"]
    assert lines[1].startswith("elbo       1  reparam    3     -")
    assert "the baseline" in lines[1]
    assert any("does not cover the choice of test images" in line for line in lines)
    assert sum(line.startswith("skipped: ") for line in lines) == 2


def test_one_replicate_is_compared_by_images_and_the_table_states_it(tmp_path):
    cells = made_sweeps.cells({"k": ["1", "5"]}, replicates=1)
    values = made_sweeps.fill(tmp_path, cells)
    content = collected(tmp_path, cells, baseline=1)
    own, base = (values[f"k={k}", 0]["log_likelihood"] for k in (1, 5))
    low, high = stats.ttest_rel(own, base).confidence_interval()
    stored = content["cells"][0]["difference"]["headline"]
    assert (stored["low"], stored["high"]) == pytest.approx((low, high))
    assert "does not cover what another seed would change" in sweep_reporting.table(content)


def test_failed_replicates_are_left_out_and_named(tmp_path):
    cells = made_sweeps.cells({"k": ["1", "5", "50"]}, replicates=3)
    rng = np.random.default_rng(0)
    first = list(training.replicas(cells[0].config))
    own = {r: made_sweeps.evaluation(rng, -90.0) for r in (0, 2)}
    made_sweeps.write_run(tmp_path, first, own, {"0": -1, "1": 17, "2": -1})
    killed = grid.group(training.replicas(cells[1].config))
    content = collected(tmp_path, cells, failed={killed: "its process was ended by <signal> 9"})
    assert [c["status"] for c in content["cells"]] == ["partly", "failed", "waiting"]
    assert not content["complete"]
    assert content["cells"][0]["replicates"] == 2
    text = Page(html_page.page(content)).text
    assert "seed 1: training diverged: not finite at step 17" in text
    assert "seeds 0, 1, 2: its process was ended by <signal> 9" in text
    assert "seed 1: training diverged" in sweep_reporting.table(content)
    # If the baseline has no results, no cell has a difference.
    other = collected(tmp_path, cells, baseline=1)
    assert "difference" not in other["cells"][0]
    assert "no baseline" in sweep_reporting.table(other)


def test_replicates_of_values_that_are_not_finite_are_left_out_and_named(tmp_path):
    cells = made_sweeps.cells({"k": ["1", "5"]}, replicates=2)
    values = made_sweeps.fill(tmp_path, cells)
    first = {r: values["k=1", r] for r in (0, 1)}
    for r in first:
        first[r]["log_likelihood"][3:5] = -np.inf
        made_sweeps.write_run(tmp_path, list(training.replicas(cells[0].config)), first)
        content = collected(tmp_path, cells, baseline=1)
        text = Page(html_page.page(content)).text
        assert "not finite: log_likelihood on 2 test images" in text
        assert "not finite: log_likelihood on 2 test images" in sweep_reporting.table(content)
        assert content["cells"][0]["status"] == ("partly", "failed")[r]


def test_cells_of_other_test_images_are_not_compared(tmp_path):
    cells = made_sweeps.cells({"binarization": ["dynamic", "fixed", "threshold"]}, replicates=2)
    made_sweeps.fill(tmp_path, cells)
    _, fixed, threshold = collected(tmp_path, cells)["cells"]
    assert "headline" in fixed["difference"]  # both have the same test images
    assert threshold["difference"] == {"reason": "other test images or another likelihood"}
    assert collected(tmp_path, cells)["best"] is None


def test_what_is_missing_from_a_folder(tmp_path):
    small, large = (made_sweeps.cells({"k": ["1", "5"]}, replicates=r) for r in (2, 3))
    made_sweeps.fill(tmp_path, small[:1])
    begun = grid.group(training.replicas(small[1].config))
    path = tmp_path / "runs" / begun.name
    with rundir.claim(str(path), begun.config, made_sweeps.DIGEST, False, begun.replicas):
        pass
    store = sweep_folder.read(tmp_path, DIGESTS)
    wanted = [r for cell in large for r in training.replicas(cell.config)]
    assert sweep_folder.missing(store, wanted) == ([begun], [wanted[2], wanted[5]])
    # A stopped run with replicates that a smaller grid does not want is not resumed.
    assert sweep_folder.missing(store, wanted[3:4]) == ([], wanted[3:4])
    with pytest.raises(UserError, match="have changed since"):
        sweep_folder.read(tmp_path, {"blobs.npz": "another"})


def test_a_run_that_has_lost_its_values_is_evaluated_again(tmp_path):
    (cell,) = made_sweeps.cells({}, replicates=2)
    made_sweeps.fill(tmp_path, [cell])
    assert not sweep_folder.read(tmp_path, DIGESTS).begun
    values = next(tmp_path.glob("runs/*/evaluation.npz"))
    values.write_bytes(values.read_bytes()[:300])
    for _ in ("damaged", "lost"):
        with pytest.warns(DamageWarning, match="damaged or lost; it is computed again"):
            store = sweep_folder.read(tmp_path, DIGESTS)
        assert not store.done and store.begun[0].replicas == training.replicas(cell.config)
        values.unlink(missing_ok=True)


def test_other_folders_are_refused_and_overwriting_keeps_other_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a sweep's folder"):
        with sweep_folder.claim(str(tmp_path / "a"), True):
            pass
    made_sweeps.fill(tmp_path / "b", made_sweeps.cells({}, replicates=2))
    (tmp_path / "b" / "sweep.json").write_text(json.dumps({"grid": {}}))
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with sweep_folder.claim(str(tmp_path / "b"), False) as path:
        assert len(list(path.glob("runs/*"))) == 1
        with pytest.raises(UserError, match="in use"), sweep_folder.claim(str(path), False):
            pass
    with sweep_folder.claim(str(tmp_path / "b"), True) as path:
        assert sorted(p.name for p in path.iterdir()) == [".lock", "notes.txt"]


@pytest.mark.parametrize("damage", ['{"cells": []', "null", '{"grid": {}, "jobs": "x"}', None])
def test_a_damaged_sweep_json_is_made_again_from_the_runs(tmp_path, damage):
    path = tmp_path / "sweep.json"
    made_sweeps.fill(tmp_path, made_sweeps.cells({}, replicates=2))
    for overwrite in (False, True):
        path.unlink(missing_ok=True)
        if damage:
            path.write_text(damage)
        with contextlib.ExitStack() as stack:
            if not overwrite:
                stack.enter_context(pytest.warns(DamageWarning, match="made anew from the runs"))
            stack.enter_context(sweep_folder.claim(str(tmp_path), overwrite))
        assert not path.exists()
        assert bool(list(tmp_path.glob("runs/*"))) == (not overwrite)
    if damage:  # without runs it may be a file of another program
        path.write_text(damage)
        with pytest.raises(UserError, match="not a sweep's folder"):
            with sweep_folder.claim(str(tmp_path), True):
                pass
        assert path.read_text() == damage


def test_a_folder_of_single_runs_is_not_a_sweep(tmp_path):
    with rundir.claim(str(tmp_path / "runs" / "a"), Config(), made_sweeps.DIGEST, False):
        pass
    for overwrite in (False, True):
        with pytest.raises(UserError, match="not a sweep's folder"):
            with sweep_folder.claim(str(tmp_path), overwrite):
                pass
    assert (tmp_path / "runs" / "a" / "config.json").exists()


@pytest.mark.parametrize("name", ["runs", "logs"])
def test_a_file_with_the_name_of_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=f"{name} must be a folder .File exists.; move"):
        sweep_folder.make_folders(tmp_path)


def test_lost_metrics_are_reported_and_all_other_numbers_are_kept(tmp_path):
    cells = made_sweeps.cells({"k": ["1", "5"]}, replicates=2)
    made_sweeps.fill(tmp_path, cells)
    whole = collected(tmp_path, cells)
    first, second = sorted(tmp_path.glob("runs/*/metrics.jsonl"))
    first.unlink()
    second.write_text(second.read_text().splitlines()[1] + "\n")
    with pytest.warns(DamageWarning, match="has lost the lines of steps 1 to ") as caught:
        content = collected(tmp_path, cells)
    assert sorted(re.search("steps (.*):", str(w.message))[1] for w in caught) == [
        "1 to 12",
        "1 to 6",
    ]
    for cell, before in zip(content["cells"], whole["cells"], strict=True):
        curve = cell.pop("curve")
        assert len(curve["seconds"]) == len(curve["values"]) < 2
        before.pop("curve")
        assert cell == before
        cell["curve"] = curve
    assert "training" in html_page.page(content)


def test_the_command_of_a_cell_gives_its_config():
    config = made_sweeps.config({"objective": "renyi", "k": "7"}, seed=3)
    config = configs.replace(config, alpha=-float("inf"), estimator=None, shuffle=False)
    config = configs.replace(config, latent_dims=(4, 2), batch_size=9)
    words = sweep_results.command_of(config).split()
    texts = dict(word.removeprefix("--").split("=", 1) for word in words[3:])
    assert run_flags.config_of(texts) == config


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("k", "1,5, 50,5", ["1", "5", "50"]),
        ("latent_dims", "100,50", ["100,50"]),
        ("latent_dims", "50;100,50", ["50", "100,50"]),
        ("dataset", "a,b.npz;c.npz", ["a,b.npz", "c.npz"]),
        ("beta", "1,linear:0:1:5000", ["1", "linear:0:1:5000"]),
    ],
)
def test_values_of_an_axis(name, text, parts):
    assert grid_flags.split(name, text) == parts


def test_baselines_by_name():
    cells = made_sweeps.cells({"objective": ["elbo", "iwae"], "k": ["1", "5"]})
    assert grid_flags.baseline(cells, None) == 0
    gan = grid.Cell({"objective": "gan", "k": "-"}, configs.make(objective="gan"))
    assert grid_flags.baseline([gan, cells[0]], None) == 1  # a GAN has nothing to compare by
    assert grid_flags.baseline([gan], None) == 0
    assert grid_flags.baseline(cells, "objective=iwae,k=5") == 3
    assert grid_flags.baseline(cells, "--k=5; objective=elbo") == 1
    with pytest.raises(UserError, match="of the form objective=elbo,k=1"):
        grid_flags.baseline(cells, "iwae")


def test_a_value_of_the_wrong_kind_is_one_sentence():
    with pytest.raises(UserError, match="--k must be a whole number; got 'five'."):
        run_flags.config_of({"k": "five"})


def test_shares_of_the_cores(monkeypatch):
    monkeypatch.setattr(
        sweep_jobs.os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False
    )
    assert sweep_jobs.core_shares(1) == [None]
    assert sweep_jobs.core_shares(1, one_core=True) == [[0]]
    assert sweep_jobs.core_shares(2, one_core=True) == [[0], [1]]
    assert sweep_jobs.core_shares(2) == [[0, 1], [2, 3, 4]]
    assert sweep_jobs.core_shares(7) == [[0], [1], [2], [3], [4], [0], [1]]
    assert sweep_jobs.default_jobs(True, 3) == 3
    assert sweep_jobs.default_jobs(True, 30) == 5
    assert sweep_jobs.default_jobs(False, 30) == 1


def test_durations():
    shown = [progress.duration(s) for s in (40, 119, 700, 11_100, 3600 * 51)]
    assert shown == ["40 s", "2 min", "12 min", "3 h 5 min", "2 d 3 h"]
