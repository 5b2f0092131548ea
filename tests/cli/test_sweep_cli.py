"""Sweeps from the command line: grids, failing cells, and sweeps that are stopped and resumed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from elbo_lab import configs
from elbo_lab.cli.protocols import PROTOCOLS
from elbo_lab.evaluation import read_evaluations
from tests.cli.conftest import TIMEOUT, sentence_of, wait_until

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
    content = contents(path)
    assert content["complete"] and len(runs(path)) == 2
    means = []
    for cell in content["cells"]:
        own = []
        for run in cell["runs"]:
            values = read_evaluations(path / run["run"] / "evaluation.npz")[run["replicate"]]
            own.append(np.mean(values["elbo"], dtype=np.float64))
        assert [run["seed"] for run in cell["runs"]] == [0, 1]
        assert cell["results"]["elbo"]["mean"] == pytest.approx(np.mean(own))
        means.append(own)
    low, high = stats.ttest_rel(means[1], means[0]).confidence_interval()
    difference = content["cells"][1]["difference"]["elbo"]
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


def test_a_grid_of_all_families_is_one_table(sweeping, tmp_path):
    flags = ("--model=mlp,conv,pixelcnn,vqvae,sbn", "--epochs=1", "--channels=4", "--num_codes=8")
    sizes = ("--width=4", "--layers=2", "--k=2", "--tensorboard=false")
    done = sweeping.run(f"--workdir={tmp_path}", *flags, *sizes)
    content = contents(tmp_path)
    assert [(cell["headline"], cell["config"]["k"]) for cell in content["cells"]] == [
        ("log_likelihood", 2),
        ("log_likelihood", 2),
        ("log_px", None),
        ("log_px_code", None),
        ("log_px", 2),
    ]
    for cell in content["cells"]:
        (run,) = cell["runs"]
        (values,) = read_evaluations(tmp_path / run["run"] / "evaluation.npz").values()
        mean = np.mean(values[cell["headline"]], dtype=np.float64)
        assert cell["results"][cell["headline"]]["mean"] == pytest.approx(mean)
    exact = content["cells"][2]["results"]["log_px"]["mean"]
    bound = content["cells"][0]["results"]["log_likelihood"]["mean"]
    stored = content["cells"][2]["difference"]["headline"]["mean"]
    assert stored == pytest.approx(exact - bound)
    assert done.stdout.splitlines()[1].split()[:4] == ["model", "runs", "headline", "by"]
    assert "log p(x) (exact)" in (tmp_path / "report.html").read_text()


def begun(read, path: Path) -> bool:
    """Returns True once a run of the sweep trains."""
    return any(read["records"](run) >= 3 for run in runs(path))


def test_ctrl_c_ends_gently(sweeping, read, tmp_path):
    with sweeping.start(f"--workdir={tmp_path}", *GRID, "--epochs=100000") as process:
        wait_until(lambda: begun(read, tmp_path), process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("Stopped; ") and "The same command goes on" in last
    assert not contents(tmp_path)["complete"]


def test_a_killed_sweep_goes_on_to_the_same_bits_in_a_larger_grid(
    sweeping, fresh_sweep, read, tmp_path
):
    flags = (f"--workdir={tmp_path}", *GRID)
    # The second group to come this far sends the signal, so that both have begun.
    done = sweeping.interrupted("step_00000024", signal.SIGKILL, *flags, to="parent", nth=2)
    assert done.returncode == -signal.SIGKILL, done.stderr
    sweeping.run(*flags, "--replicates=3")
    resumed = outcomes(read, tmp_path)
    assert len(resumed) > 2
    for name, outcome in outcomes(read, fresh_sweep[0]).items():
        assert resumed[name] == outcome
    assert [c["replicates"] for c in contents(tmp_path)["cells"]] == [3, 3]


def test_failing_cells_do_not_stop_the_rest(sweeping, tmp_path):
    # The second learning rate diverges; the process of k = 5, the first to start, is killed.
    flags = (f"--workdir={tmp_path}", "--k=1,5", "--learning_rate=0.01,1e30", "--jobs=1")
    done = sweeping.interrupted("step_00000024", signal.SIGKILL, *flags)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert statuses(tmp_path) == ["done", "failed", "failed", "failed"]
    assert "training diverged: not finite at step" in done.stdout
    assert "ended by signal 9" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert "Failed replicates" in page and "ended by signal 9" in page
    # The same command trains the killed group; cells that diverged stay failed.
    sweeping.run(*flags, status=1)
    assert statuses(tmp_path) == ["done", "failed", "done", "failed"]


def statuses(path: Path) -> list[str]:
    return [cell["status"] for cell in contents(path)["cells"]]


def test_wrong_grids_are_one_sentence(sweeping, tmp_path):
    cases = [
        (["--k=1,x"], "--k must be a whole number; got 'x'."),
        (["--objective=elbo,elboo"], "got 'elboo'"),
        (["--baseline=k=7", "--k=1,5"], "--baseline=k=7 is not a cell of the grid."),
        (["--replicates=1,2"], "--replicates must be one number"),
        (["--platform=abacus"], "--platform=abacus is not available"),
        (
            ["--platform=cuda"],
            "--platform=cuda is not available (there is cpu; an NVIDIA GPU needs",
        ),
        (["--objective=,iwae"], "--objective=,iwae has an empty value."),
        (["--model="], "--model must be one of mlp, "),
    ]
    workdir = f"--workdir={tmp_path / 'none'}"
    commands = {str(number): (workdir, *flags) for number, (flags, _) in enumerate(cases)}
    outputs = sweeping.outputs(commands, tmp_path)
    for output, (_, words) in zip(outputs.values(), cases, strict=True):
        assert words in sentence_of(*output)


def test_an_ablation_changes_one_setting_of_the_training_at_a_time():
    command = [sys.executable, "-m", "experiments.ablate_protocol", "--print_config"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    changes = {cell["cell"]: cell["config"] for cell in json.loads(shown)}
    baseline = changes["change=none"]
    settings = ("held_out", "shuffle", "init", "lr_schedule", "batch_gradient")
    settings += ("adam_b1", "adam_eps_hat", "adam_nu_start")
    paper = configs.to_dict(PROTOCOLS["burda2015_paper"])
    assert len(changes) == len(settings) + 2
    for config in changes.values():
        # All cells have the same test images, so that they can be compared.
        assert config["test_draw"] == "by_seed" and config["au_images"] == 500
    differing = [
        {name for name in config if config[name] != baseline[name]} for config in changes.values()
    ]
    assert sorted(differing[1:-1], key=str) == sorted(({name} for name in settings), key=str)
    assert differing[-1] == set(settings)
    assert all(changes[list(changes)[-1]][name] == paper[name] for name in settings)


def test_the_cells_configurations_are_printed(sweeping):
    done = sweeping.run("--print_config", "--k=1,5", "--estimator=reparam,vimco", "--budget=0.5")
    first, skipped, *others = json.loads(done.stdout)
    assert first["config"]["epochs"] == 10 and first["config"]["k"] == 1
    assert "compares draws" in skipped["skipped"]
    assert [c["cell"] for c in others] == ["k=5, estimator=reparam", "k=5, estimator=vimco"]
