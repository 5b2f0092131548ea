"""Sweeps from the command line: grids, failing cells, kills, and going on."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from elbo_lab.evaluation import read_evaluations

pytestmark = pytest.mark.slow
GRID = ("--k=1,5", "--replicates=2", "--jobs=2", "--tensorboard=false")


def runs(path: Path) -> list[Path]:
    return sorted((path / "runs").iterdir()) if (path / "runs").exists() else []


def outcomes(read, path: Path) -> dict[str, dict]:
    return {run.name: read["outcome"](run) for run in runs(path)}


def contents(path: Path) -> dict:
    return json.loads((path / "sweep.json").read_text())


@pytest.fixture(scope="module")
def fresh_sweep(sweeping):
    """A sweep that was never stopped: its folder and its output."""
    path = sweeping.folder / "fresh"
    return path, sweeping.run(f"--workdir={path}", *GRID)


def test_a_grid_ends_with_a_table_and_a_page(fresh_sweep):
    path, done = fresh_sweep
    found = contents(path)
    assert found["complete"] and len(runs(path)) == 2
    means = []
    for cell in found["cells"]:
        own = []
        for run in cell["runs"]:
            values = read_evaluations(path / run["run"] / "evaluation.npz")[run["replicate"]]
            own.append(np.mean(values.elbo, dtype=np.float64))
        assert [run["seed"] for run in cell["runs"]] == [0, 1]
        assert cell["results"]["elbo"]["mean"] == pytest.approx(np.mean(own))
        means.append(own)
    low, high = stats.ttest_rel(means[1], means[0]).confidence_interval()
    difference = found["cells"][1]["difference"]["elbo"]
    assert (difference["low"], difference["high"]) == pytest.approx((low, high))
    assert done.stdout.splitlines()[1].split()[:3] == ["k", "runs", "L_20"]
    assert str(path / "report.html") in done.stdout
    assert "sweep 100%, about 0 s left, 2 of 2 groups done" in done.stderr
    assert "<h1>Sweep over k on blobs</h1>" in (path / "report.html").read_text()


def test_a_complete_sweep_is_reported_anew_with_another_baseline(sweeping, fresh_sweep, read):
    path, _ = fresh_sweep
    before = outcomes(read, path)
    done = sweeping.run(f"--workdir={path}", *GRID, "--baseline=k=5")
    assert outcomes(read, path) == before
    assert contents(path)["baseline"] == "k=5"
    assert "sweep" not in done.stderr


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["INT", "KILL"],
)
def test_a_stopped_sweep_goes_on_to_the_same_bits(
    sweeping, fresh_sweep, read, tmp_path, number, status
):
    def begun() -> bool:
        return any(read["records"](run) >= 3 for run in runs(tmp_path))

    done = sweeping.interrupted(begun, number, f"--workdir={tmp_path}", *GRID)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if number == signal.SIGINT:
        assert "The same command goes on" in done.stderr.splitlines()[-1]
    assert not contents(tmp_path)["complete"]
    # A larger grid: what was begun is gone on with, what is new is added.
    larger = [flag.replace("replicates=2", "replicates=3") for flag in GRID]
    sweeping.run(f"--workdir={tmp_path}", *larger)
    found = outcomes(read, tmp_path)
    assert len(found) > 2
    for name, outcome in outcomes(read, fresh_sweep[0]).items():
        assert found[name] == outcome
    assert [c["results"]["replicates"] for c in contents(tmp_path)["cells"]] == [3, 3]


def workers(process) -> list[int]:
    """Processes that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        if f"PPid:\t{process.pid}\n" in status:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to find workers in")
def test_failing_cells_do_not_stop_the_rest(sweeping, read, tmp_path):
    # k = 1 diverges at one learning rate of two; the process of k = 5 is killed.
    flags = (f"--workdir={tmp_path}", "--k=1,5", "--learning_rate=0.01,1e30", "--jobs=1")
    with sweeping.start(*flags, "--estimator=reparam,vimco", "--objective=iwae") as process:
        killed = None
        while process.poll() is None:
            five = [r for r in runs(tmp_path) if r.name.startswith("iwae-k5-reparam")]
            if killed is None and five and read["records"](five[0]) >= 3:
                (killed,) = workers(process)
                os.kill(killed, signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 1, err
    assert "Traceback" not in err
    found = {cell["name"]: cell for cell in contents(tmp_path)["cells"]}
    status = {name.partition("k=")[2]: cell["status"] for name, cell in found.items()}
    assert status == {
        "1, learning_rate=0.01, estimator=reparam": "done",
        "1, learning_rate=1e30, estimator=reparam": "failed",
        "5, learning_rate=0.01, estimator=reparam": "failed",
        "5, learning_rate=1e30, estimator=reparam": "failed",
        **{f"5, learning_rate={rate}, estimator=vimco": s for rate, s in RATES.items()},
        **{f"1, learning_rate={rate}, estimator=vimco": "skipped" for rate in RATES},
    }
    assert "training diverged: not finite at step" in out
    assert "ended by signal 9" in out
    page = (tmp_path / "report.html").read_text()
    assert "Failed replicates" in page and "Skipped cells" in page
    # The same command does what was killed, and ends well but for what cannot be trained.
    sweeping.run(*flags, "--estimator=reparam,vimco", "--objective=iwae", status=1)
    cells = contents(tmp_path)["cells"]
    assert [c["status"] for c in cells].count("failed") == 3
    assert sum(c["status"] == "done" for c in cells) == 3


RATES = {"0.01": "done", "1e30": "failed"}


def test_wrong_grids_are_one_sentence(sweeping, tmp_path):
    for flags, words in [
        (["--k=1,x"], "--k must be a whole number; got 'x'."),
        (["--objective=elbo,elboo"], "got 'elboo'"),
        (["--baseline=k=7", "--k=1,5"], "--baseline=k=7 is no cell of the grid."),
        (["--replicates=1,2"], "--replicates must be one number"),
        (["--platform=abacus"], "--platform=abacus is not available"),
    ]:
        assert words in sweeping.refused(f"--workdir={tmp_path / 'none'}", *flags)


def test_the_cells_configurations_are_printed(sweeping):
    done = sweeping.run("--print_config", "--k=1,5", "--estimator=reparam,vimco", "--budget=0.5")
    first, skipped, *others = json.loads(done.stdout)
    assert first["config"]["epochs"] == 10 and first["config"]["k"] == 1
    assert "compares draws" in skipped["skipped"]
    assert [c["cell"] for c in others] == ["k=5, estimator=reparam", "k=5, estimator=vimco"]
