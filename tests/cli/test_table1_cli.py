"""Table 1's script on tiny data: cells, results, going on, and its refusals."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow
# The script, with a signal that comes after a cell's end.
SIGNAL = """
import os, signal
from elbo_lab.cli import run_flags
from elbo_lab.runs import completing
from experiments import table1
complete = completing.complete
def then_a_signal(*args, **kwargs):
    found = complete(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGTERM)
    return found
completing.complete = then_a_signal
table1.define()
run_flags.run(table1.main, table1.__doc__)
"""


@pytest.fixture(scope="module")
def table1(quick):
    workdir = quick.folder / "table1"

    def run(*flags: str, status: int = 0, script: tuple = ("-m", "experiments.table1")):
        command = [sys.executable, *script, f"--data={quick.data}"]
        command += ["--k=1,2", "--budget=0.0003", "--eval_k=20", f"--workdir={workdir}"]
        command += [f"--compilation_cache_dir={quick.folder / 'cache'}", *flags]
        done = subprocess.run(
            command,
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
            env=quick.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return workdir, run


def test_cells_results_and_going_on(table1):
    workdir, run = table1
    flags = ("--protocol=rainforth2018", "--replicates=2")
    first = run(*flags)
    files = sorted(workdir.glob("table1-*.json"))
    # IWAE of one draw is the VAE of one draw.
    rows = [json.loads(file.read_text()) for file in files]
    assert sorted((r["model"], r["k"]) for r in rows) == [("iwae", 2), ("vae", 1), ("vae", 2)]
    for row, file in zip(rows, files, strict=True):
        folder = workdir / file.stem.removeprefix("table1-")
        with np.load(folder / "evaluation.npz") as arrays:
            nll = [-np.mean(arrays[f"log_likelihood_{r}"], dtype=np.float64) for r in (0, 1)]
        np.testing.assert_allclose(row["nll"], nll, rtol=1e-12)
        assert row["seeds"] == [0, 1] and row["test_images"] == 23 and row["budget"] == 0.0003
        assert row["config"]["objective"] == ("elbo" if row["model"] == "vae" else "iwae")
        assert row["command"].startswith("python -m experiments.table1 --")
        assert "--budget=0.0003" in row["command"] and "workdir" not in row["command"]
        assert f"{np.mean(nll):.2f} +- " in first.stdout
    written = [file.stat().st_mtime_ns for file in files]
    again = run(*flags)
    assert again.stdout == first.stdout and "training" not in again.stderr
    assert [file.stat().st_mtime_ns for file in files] == written
    # Values that are damaged are computed again, to the same numbers.
    damaged = workdir / files[0].stem.removeprefix("table1-") / "evaluation.npz"
    damaged.write_bytes(damaged.read_bytes()[:300])
    again = run(*flags)
    assert again.stdout == first.stdout and "evaluation" in again.stderr
    assert "training" not in again.stderr


def test_a_signal_between_two_cells_stops_with_a_table(table1, tmp_path):
    _, run = table1
    flags = ("--protocol=rainforth2018", "--models=vae", f"--workdir={tmp_path}")
    stopped = run(*flags, status=128 + signal.SIGTERM, script=("-c", SIGNAL))
    assert "Stopped after 1 cells. The same command goes on." in stopped.stderr
    assert len(list(tmp_path.glob("table1-*.json"))) == 1
    assert "rainforth2018" in stopped.stdout


def test_data_that_are_missing_are_said_before_anything_is_trained(table1, tmp_path):
    workdir, run = table1
    # The first cell's data are there.
    data = f"--data={workdir.parent / 'blobs.npz'},missing.npz"
    flags = (data, f"--workdir={tmp_path}")
    refused = run("--protocol=rainforth2018", *flags, status=2)
    assert "missing.npz" in refused.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_where_results_go_is_looked_at_before_anything_is_trained(table1, tmp_path):
    workdir, run = table1
    (tmp_path / "file").write_text("x")
    flags = ("--protocol=rainforth2018", f"--workdir={tmp_path / 'runs'}")
    refused = run(*flags, f"--results_dir={tmp_path / 'file' / 'results'}", status=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: --results_dir=") and "cannot be written" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--data=", "--data must be names of data sets, separated by commas; got ''."),
        (
            "--eval_k=1",
            "--eval_k must be at least --k, 2, so that the test set's IWAE-k bound can be "
            "evaluated; got 1.",
        ),
        ("--workdir=", "--workdir must be a folder; got ''."),
        ("--protocol=", "--protocol must be one of burda2015_paper, "),
        ("--protocol=x", "--protocol must be one of burda2015_paper, "),
        ("--layers=3", "--layers must be of 1, 2, separated by commas; got '3'."),
        ("--k=0", "--k must be whole numbers of at least 1, separated by commas; got '0'."),
        ("--models=gan", "--models must be of vae, iwae; got 'gan'."),
        ("--budget=0", "--budget must be above 0 and at most 1000; got 0.0."),
        ("--protocol=burda2015_code", "--held_out must be below the number of training images"),
    ],
)
def test_refusals(table1, flag, sentence):
    _, run = table1
    lines = run("--protocol=rainforth2018", flag, status=2).stderr.splitlines()
    assert lines[-1].startswith(f"Error: {sentence}")
    assert "sets --k" not in lines[-1]  # which are this script's
