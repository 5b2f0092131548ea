"""The table of explicit models without training: commands, rows of made runs, and the table."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from elbo_lab import configs
from elbo_lab.cli import grid_flags
from elbo_lab.cli.run_flags import config_of
from elbo_lab.errors import UserError
from elbo_lab.evaluation import write_evaluations
from elbo_lab.reports.tables import Result
from elbo_lab.runs import evaluating, run_files, rundir
from elbo_lab.runs.instruments import Settings
from elbo_lab.studies import explicit, explicit_results, published
from tools import make_explicit_rows

IMAGES = 120
SECONDS = 100.0
EVALUATED = [name for name, system in explicit.SYSTEMS.items() if system.draws is not None]
# What the made evaluations of some images add to the run's own bound of each.
GAINS = 0.5 + 0.1 * np.cos(np.arange(IMAGES))


def write_run(path, config, values):
    """Writes what a row needs of a complete run: its summary, and values of each test image."""
    path.mkdir(parents=True, exist_ok=True)
    write_evaluations(path / rundir.EVALUATION, {0: values})
    timing = [
        Result(run_files.WALL_TIME, "", SECONDS, unit="s")._asdict(),
        Result(run_files.SPEED, "", 2.0, unit="steps/s")._asdict(),
    ]
    summary = {
        **{"elbo_lab": "1", "jax": "1", "device": "cpu, 1 core", "steps": 1200},
        "config": configs.to_dict(config),
        "data": {
            **{"name": config.dataset, "binarization": "dynamic", "image_shape": [28, 28]},
            **{"train_images": 60, "test_images": IMAGES},
        },
        "measured": {name: [IMAGES] for name in values},
        "failed_at": {"0": -1},
        "failed_replicates": [],
        "replicas": [configs.to_dict(config)],
        "results": timing,
    }
    (path / rundir.SUMMARY).write_text(json.dumps(summary))


def write_evaluation(path, system, values):
    """Writes a system's second evaluation of a run, [N] values of all images, and two others with
    other values: by twice the draws, and of another number of images.
    """
    draws, examples = system.draws, system.examples
    others = {"twice": (2 * draws, examples), "other images": (draws, 110)}
    for name, (number, first) in {**others, "wanted": (draws, examples)}.items():
        folder = path / evaluating.FOLDER / name
        folder.mkdir(parents=True)
        shifted = values[:first] + (0.0 if name == "wanted" else 9.0)
        write_evaluations(folder / rundir.EVALUATION, {0: {system.quantity: shifted}})
        settings = Settings(eval_k=number, test_examples=first)
        summary = {"results": [], "settings": settings.stored()}
        (folder / rundir.SUMMARY).write_text(json.dumps(summary))


@pytest.fixture
def made(tmp_path):
    """A folder with complete runs of all systems, and the log-likelihoods that each reports."""
    rng, values = np.random.default_rng(0), {}
    for i, (name, system) in enumerate(explicit.SYSTEMS.items()):
        values[name] = -85.0 - i + rng.normal(size=IMAGES)
        for run, flags in explicit.stages(name).items():
            config = grid_flags.checked(flags)
            measured = {"log_px_code": values[name]} if run != name else {}
            if system.examples is not None:
                write_evaluation(tmp_path / run, system, values[name] + GAINS)
            elif system.draws is not None:
                measured = {system.quantity: values[name] - 1.0}  # of the run's fewer draws
                write_evaluation(tmp_path / run, system, values[name])
            write_run(tmp_path / run, config, measured or {system.quantity: values[name]})
    return tmp_path, values


def row_of(name, folder):
    return explicit_results.row_of_runs(name, folder, grid_flags.checked)


@pytest.mark.parametrize("name", explicit.SYSTEMS)
def test_every_command_describes_the_run_that_its_row_is_checked_against(name):
    lines, system = explicit.commands(name), explicit.SYSTEMS[name]
    if system.draws is not None:
        script, *flags = lines.pop().removeprefix("python -m experiments.").split()
        expected = {"run": f"{explicit.RUNS}/{name}", "eval_k": "5000"}
        expected |= {"test_examples": "100"} if "pixelvae" in system.flags.values() else {}
        assert script == "evaluate"
        assert dict(flag.removeprefix("--").split("=") for flag in flags) == expected
    for line, (run, flags) in zip(lines, explicit.stages(name).items(), strict=True):
        *start, workdir = line.split()
        assert start[:3] == ["python", "-m", "experiments.run"]
        assert workdir == f"--workdir={explicit.RUNS}/{run}"
        given = dict(word.removeprefix("--").split("=", 1) for word in start[3:])
        assert config_of(given) == config_of(flags)
        assert given["dataset"] == "mnist" or run == name


def test_all_systems_have_published_numbers_or_say_that_there_are_none():
    assert published.EXPLICIT.keys() == explicit.SYSTEMS.keys()
    values = [value for found in published.EXPLICIT.values() for value in found]
    assert {value.binarization for value in values} == {"dynamic", "static"}
    # Minus the ELBO is above minus the log-likelihood.
    assert all(value.bound > value.nll for value in values if value.bound)


def test_rows_have_the_numbers_of_their_runs(made):
    folder, values = made
    rows = {name: row_of(name, folder) for name in explicit.SYSTEMS}
    for name, row in rows.items():
        nll = -values[name]
        assert row["nll"] == pytest.approx(nll.mean())
        assert row["standard_error"] == pytest.approx(nll.std(ddof=1) / math.sqrt(IMAGES))
        assert row["commands"] == explicit.commands(name)
        pairs = nll + values["vae"]
        if name == "vae":
            assert "difference" not in row
            continue
        error = pairs.std(ddof=1) / math.sqrt(IMAGES)
        expected = (pairs.mean(), *stats.t.interval(0.95, IMAGES - 1, pairs.mean(), error))
        shown = [row["difference"][end] for end in ("mean", "low", "high")]
        assert shown == pytest.approx(expected)
    assert (rows["pixelcnn"]["symbol"], rows["pixelcnn"]["direction"]) == ("log p(x)", "exact")
    assert rows["vae"]["symbol"] == f"L_{explicit.SYSTEMS['vae'].draws}"
    assert rows["vlae"]["symbol"] == f"L_{rows['vlae']['config']['eval_k']}" == "L_30"
    both = rows["vqvae"]
    assert both["training_seconds"] == [SECONDS] * 2 and both["steps"] == [1200] * 2
    assert both["direction"] == "lower bound" and len(both["passes"]) == 2


def test_a_system_without_all_of_its_runs_has_no_row(made, tmp_path):
    folder, _ = made
    (folder / "vqvae-codes" / rundir.SUMMARY).unlink()
    assert row_of("vqvae", folder) is None
    (folder / "vae" / rundir.SUMMARY).unlink()
    assert row_of("vae", folder) is None
    assert "difference" not in row_of("iaf", folder)


def test_a_second_evaluation_of_some_images_is_a_gain_beside_the_nll_of_all(made):
    folder, _ = made
    for name, system in explicit.SYSTEMS.items():
        row = row_of(name, folder)
        if system.examples is None:
            assert "gain" not in row
            continue
        own = GAINS[: system.examples]
        error = own.std(ddof=1) / math.sqrt(system.examples)
        expected = {"mean": own.mean(), "standard_error": error, "test_images": 100}
        symbol = row["gain"].pop("symbol")
        assert symbol == "L_5000" and row["gain"] == pytest.approx(expected)
        assert row["test_images"] == row["difference"]["count"] == IMAGES


@pytest.mark.parametrize("name", EVALUATED)
def test_a_system_that_is_not_evaluated_by_its_draws_has_no_row(made, name):
    folder, _ = made
    (folder / name / evaluating.FOLDER / "wanted" / rundir.SUMMARY).unlink()
    assert row_of(name, folder) is None
    if name == explicit.BASELINE:
        assert "difference" not in row_of("iaf", folder)


def test_a_run_that_is_not_of_the_command_is_refused(made):
    folder, values = made
    config = dataclasses.replace(
        grid_flags.checked(explicit.stages("pixelcnn")["pixelcnn"]), seed=3
    )
    write_run(folder / "other" / "pixelcnn", config, {"log_px": values["pixelcnn"]})
    with pytest.raises(UserError, match="pixelcnn is not the run of the table's command: seed: 0"):
        row_of("pixelcnn", folder / "other")


def test_the_codes_may_lie_in_another_folder(made):
    folder, values = made
    path = folder / "vqvae" / rundir.SUMMARY
    summary = json.loads(path.read_text())
    summary["config"]["dataset"] = "codes:/elsewhere/vqvae-codes"
    path.write_text(json.dumps(summary))
    row = row_of("vqvae", folder)
    assert row["nll"] == pytest.approx(-values["vqvae"].mean())
    assert "elsewhere" not in json.dumps(row)


def test_the_table_shows_what_is_kept_beside_published_numbers(made, tmp_path):
    folder, values = made
    kept = tmp_path / "kept"
    assert explicit_results.read(kept) == []
    assert explicit_results.text([]) == "No system is complete yet."
    unwrapped = explicit_results.markdown([]).replace(" \\\n    ", " ")
    assert all(line in unwrapped for name in explicit.SYSTEMS for line in explicit.commands(name))
    for name in ("vlae", "vae", "pixelcnn"):
        explicit_results.write(kept, row_of(name, folder))
    rows = explicit_results.read(kept)
    assert [row["system"] for row in rows] == ["vae", "pixelcnn", "vlae"]
    vae, pixelcnn, vlae = (
        dict(zip(explicit_results.HEAD, explicit_results.texts_of(row), strict=True))
        for row in rows
    )
    assert vae["minus the VAE's"] == "the baseline"
    assert vae["published, dynamic"] == "81.08 (bound 84.08)" and vae["published, static"] == "-"
    assert pixelcnn["published, static"] == "81.30" and pixelcnn["published, dynamic"] == "-"
    assert vlae["published, dynamic"] == "78.53 / 78.94" and vlae["published, static"] == "79.03"
    text = explicit_results.text(rows)
    assert text.splitlines()[0].split()[:2] == ["system", "NLL"]
    # The made levels fall by one nat from system to system.
    first, second = (explicit.SYSTEMS[name].title for name in ("vae", "pixelcnn"))
    assert f"Order by our numbers: {first} < {second} < " in " ".join(text.split())
    assert f"dynamic: {explicit.SYSTEMS['vlae'].title} < {first}." in " ".join(text.split())
    assert "?:" not in text
    assert published_row(explicit_results.markdown(rows), "PixelCNN")
    nll = pixelcnn["NLL"]
    assert f"| PixelCNN | {nll} | log p(x), exact | - | 81.30 |" in explicit_results.readme(rows)
    assert vae["estimate"] == "L_5000, lower bound in expectation"
    # The standard deviation of a cosine is sqrt(1/2).
    assert vlae["estimate"] == (
        "L_30, lower bound in expectation (L_5000: 0.4996 +- 0.0071 higher, 100 images)"
    )
    assert vlae["estimate"] in explicit_results.readme(rows)
    assert any(note.startswith("In brackets:") for note in explicit_results.notes(rows))
    assert not any(note.startswith("In brackets:") for note in explicit_results.notes(rows[:2]))
    fallen = rows[2] | {"gain": rows[2]["gain"] | {"mean": -0.002, "standard_error": 0.003}}
    assert "(L_5000: 0.0020 +- 0.0030 lower, 100 images)" in explicit_results.texts_of(fallen)[2]


def published_row(document, title):
    return next(line for line in document.splitlines() if line.startswith(f"| {title} |"))


def test_numbers_that_were_not_read_in_the_paper_are_marked(made):
    folder, _ = made
    row = row_of("pixelrnn", folder)
    assert "80.54?" in explicit_results.texts_of(row)
    assert explicit_results.notes([row])[-1].startswith("?:")


def test_the_same_result_keeps_its_date(made, tmp_path):
    folder, _ = made
    kept, row = tmp_path / "kept", row_of("vae", folder)
    explicit_results.write(kept, row | {"date": "2026-01-01"})
    explicit_results.write(kept, row)
    (path,) = kept.glob("*.json")
    assert path.name == "explicit-vae.json" and json.loads(path.read_text())["date"] == "2026-01-01"
    explicit_results.write(kept, row | {"nll": 80.0})
    assert json.loads(path.read_text())["nll"] == 80.0
    path.write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        explicit_results.read(kept)


def test_the_tool_writes_the_complete_systems_and_refuses_a_folder_without_any(made, tmp_path):
    folder, _ = made
    (folder / "iaf" / rundir.SUMMARY).unlink()
    kept = tmp_path / "kept"
    table = make_explicit_rows.make(str(folder), str(kept))
    names = {path.stem.removeprefix("explicit-") for path in kept.glob("*.json")}
    assert names == explicit.SYSTEMS.keys() - {"iaf"}
    assert table == explicit_results.text(explicit_results.read(kept))
    with pytest.raises(
        UserError, match="^--runs=.*empty has no complete run of vae, iaf, pixelcnn"
    ):
        make_explicit_rows.make(str(tmp_path / "empty"), str(kept))
