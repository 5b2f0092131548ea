"""`experiments.table1` on tiny data: cells, results, resuming, and wrong flags."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli import forking
from tests.cli.conftest import sentence_of

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
PROTOCOL = "--protocol=rainforth2018"


def slug_of(data: Path) -> str:
    """The name of a data file in the name of a cell's directory."""
    return f"{data.stem}_{hashlib.sha256(str(data).encode()).hexdigest()[:6]}"


def arguments(cli, *flags: str, data: str = "data") -> list[str]:
    return [
        *(f"--{data}={cli.data}", "--budget=0.0003", "--eval_k=20"),
        *(f"--workdir={cli.folder / 'table1'}", f"--compilation_cache_dir={cli.cache}"),
        *flags,
    ]


@pytest.fixture(scope="module")
def table1(cli):
    def start(*flags: str, script: str = "table1", data: str = "data", env=cli.environment):
        command = [sys.executable, "-m", f"experiments.{script}"]
        command += arguments(cli, *flags, data=data)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=REPOSITORY, env=env, **streams)

    def run(*flags: str, status: int = 0, **options):
        if "script" not in options:
            flags = ("--k=1,2", *flags)
        with start(*flags, **options) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == status, err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(process.args, status, out, err)

    run.stem = slug_of(cli.data)
    return cli.folder / "table1", run


def evaluations(workdir: Path, row: dict) -> list[tuple[Path, int]]:
    """The file of values of each replicate of a row, and its index in the file."""
    cells = json.loads((workdir / "sweep" / "sweep.json").read_text())["cells"]
    (cell,) = (c for c in cells if c["config"] == row["config"])
    return [
        (workdir / "sweep" / run["run"] / "evaluation.npz", run["replicate"])
        for run in cell["runs"]
    ]


def test_cells_results_and_running_again(table1):
    workdir, run = table1
    flags = (PROTOCOL, "--replicates=2")
    first = run(*flags)
    files = sorted(workdir.glob("table1-*.json"))
    # IWAE with one draw is the VAE with one draw.
    rows = [json.loads(file.read_text()) for file in files]
    assert sorted((r["model"], r["k"]) for r in rows) == [("iwae", 2), ("vae", 1), ("vae", 2)]
    for row in rows:
        nll = []
        for path, r in evaluations(workdir, row):
            with np.load(path) as arrays:
                nll.append(-np.mean(arrays[f"log_likelihood_{r}"], dtype=np.float64))
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
    # A damaged evaluation is computed again, with the same results.
    damaged, _ = evaluations(workdir, rows[0])[0]
    damaged.write_bytes(damaged.read_bytes()[:300])
    again = run(*flags)
    assert again.stdout == first.stdout and "evaluation" in again.stderr
    assert "training" not in again.stderr


def test_a_signal_stops_with_a_table_of_what_is_complete(cli, table1, tmp_path):
    _, run = table1
    flags = (PROTOCOL, "--models=vae", f"--workdir={tmp_path}", "--jobs=1")
    # At the start of the second run, when the first is complete.
    environment = cli.signalling("config.json.tmp", signal.SIGTERM, to="parent", nth=2)
    done = run(*flags, status=128 + signal.SIGTERM, env=environment)
    assert "Stopped; 1 of 2 replicates are not complete. The same command goes on" in done.stderr
    assert len(list(tmp_path.glob("table1-*.json"))) == 1
    assert "rainforth2018" in done.stdout


def test_runs_of_an_earlier_version_are_moved_and_resumed(table1, tmp_path):
    # That version trained each cell as experiments.run does, in a directory named after the cell.
    _, run = table1
    name = f"{run.stem}-1-{{}}-k2-rainforth2018-0.0003-s0-r2-L20"
    paths = [tmp_path / name.format(model) for model in ("vae", "iwae")]
    for path, objective in zip(paths, ("elbo", "iwae"), strict=True):
        flags = (PROTOCOL, "--k=2", "--replicates=2", f"--objective={objective}")
        run(*flags, f"--workdir={path}", script="run", data="dataset")
    values = [dict(np.load(path / "evaluation.npz")) for path in paths]
    # The second run becomes one that was stopped before its evaluation.
    for left in ("summary.json", "evaluation.npz"):
        (paths[1] / left).unlink()
    done = run(PROTOCOL, "--replicates=2", "--k=2", f"--workdir={tmp_path}")
    assert not any(path.exists() for path in paths)
    assert "training" not in done.stderr
    rows = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("table1-*.json"))]
    assert [row["model"] for row in rows] == ["iwae", "vae"]
    for row, before in zip(rows, values[::-1], strict=True):
        places = evaluations(tmp_path, row)
        assert [r for _, r in places] == [0, 1]
        with np.load(places[0][0]) as arrays:
            assert arrays.keys() == before.keys()
            for key in arrays:  # the number of cores changes the rounding of sums
                np.testing.assert_allclose(arrays[key], before[key], rtol=1e-4, atol=1e-5)


def test_missing_data_are_reported_before_anything_is_trained(table1, tmp_path):
    workdir, run = table1
    # The data of the first cell exist.
    data = f"--data={workdir.parent / 'blobs.npz'},missing.npz"
    flags = (data, f"--workdir={tmp_path}")
    refused = run(PROTOCOL, *flags, status=2)
    assert "missing.npz" in refused.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_the_folder_of_results_is_checked_before_anything_is_trained(table1, tmp_path):
    workdir, run = table1
    (tmp_path / "file").write_text("x")
    flags = (PROTOCOL, f"--workdir={tmp_path / 'runs'}")
    refused = run(*flags, f"--results_dir={tmp_path / 'file' / 'results'}", status=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: --results_dir=") and "cannot be written" in line
    assert not (tmp_path / "runs").exists()


# flag -> the start of its message
REFUSALS = {
    "--data=": "--data must be names, separated by commas; got ''.",
    "--eval_k=1": "--eval_k must be at least --k, 2, so that the test set's IWAE-k bound can be "
    "evaluated; got 1.",
    "--workdir=": "--workdir must be a folder; got ''.",
    "--protocol=": "--protocol must be one of burda2015_paper, ",
    "--protocol=x": "--protocol must be one of burda2015_paper, ",
    "--layers=3": "--layers must be one or more of 1, 2, separated by commas; got '3'.",
    "--k=0": "--k must be whole numbers of at least 1, separated by commas; got '0'.",
    "--models=gan": "--models must be one or more of vae, iwae, separated by commas; got 'gan'.",
    "--budget=0": "--budget must be above 0 and at most 1000; got 0.0.",
    "--protocol=burda2015_code": "--held_out must be below the number of training images",
}


@pytest.fixture(scope="module")
def refused(cli, tmp_path_factory) -> dict[str, tuple[str, str, str]]:
    """Flag -> exit status, standard output and standard error."""
    common = ["table1", *arguments(cli, "--k=1,2", PROTOCOL)]
    commands = {str(number): [*common, flag] for number, flag in enumerate(REFUSALS)}
    outputs = forking.run_all(commands, tmp_path_factory.mktemp("refused"), cli.environment)
    return dict(zip(REFUSALS, outputs.values(), strict=True))


@pytest.mark.parametrize("flag", REFUSALS)
def test_refusals(refused, flag):
    sentence = sentence_of(*refused[flag])
    assert sentence.startswith(REFUSALS[flag])
    assert "sets --k" not in sentence  # --k is this script's own flag
