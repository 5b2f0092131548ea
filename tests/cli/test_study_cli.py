"""Studies from the command line: the table, the figure and the page, also of a stopped study."""

import json
import math
import signal

import numpy as np
import pytest

from elbo_lab.runs import derived
from elbo_lab.studies.registry import STUDIES
from tests.cli import forking, small_grid
from tests.cli.conftest import CommandLine, command, sentence_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def few_cells(tmp_path_factory) -> CommandLine:
    """Trains the cells of a study that `small_grid` names."""
    return CommandLine(tmp_path_factory.mktemp("few_cells"), "tests.cli.small_grid")


def test_a_stopped_study_shows_what_is_complete_and_goes_on(studying, read, tmp_path):
    # Two cells: with these flags the protocols differ in the schedule alone.
    flags = ("ablate_protocol", "--protocol=fast_adam", "--estimator=reparam", "--adam_eps=1e-4")
    flags += (f"--workdir={tmp_path}", "--jobs=1")
    runs = tmp_path / "runs"

    # At the start of the second run, when the first is complete.
    sender = {"to": "parent", "nth": 2}
    stopped = studying.interrupted("config.json.tmp", signal.SIGINT, *flags, **sender)
    assert stopped.returncode == 130, stopped.stderr
    assert "The same command goes on" in stopped.stderr and "Traceback" not in stopped.stderr
    assert stopped.stdout.splitlines()[1].split()[:3] == ["change", "runs", "L_20"]
    before = {path.name: read["outcome"](path) for path in runs.iterdir() if complete(path)}
    assert before and not json.loads((tmp_path / "sweep.json").read_text())["complete"]
    done = studying.run(*flags)
    assert {name: read["outcome"](runs / name) for name in before} == before
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()[2:5]]
    assert rows == ["none", "lr_schedule burda", ""]
    assert done.stdout.endswith(
        f"report: {tmp_path / 'report.html'}\nfigure: {tmp_path / 'answer.svg'}\n"
    )
    assert STUDIES["ablate_protocol"].question in (tmp_path / "report.html").read_text()
    command = json.loads((tmp_path / "sweep.json").read_text())["command"]
    assert command.startswith("python -m experiments.study --") and "ablate_protocol" in command


def complete(path) -> bool:
    return (path / "summary.json").exists()


def test_a_stopped_study_of_binary_latents_goes_on_and_keeps_its_results(few_cells, tmp_path):
    path, results = tmp_path / "study", tmp_path / "results"
    flags = ("discrete", "--hidden_dims=", "--epochs=4", "--replicates=1")
    flags += (f"--workdir={path}", f"--results_dir={results}")
    sender = {"to": "parent", "nth": 2}
    stopped = few_cells.interrupted("config.json.tmp", signal.SIGINT, *flags, **sender)
    assert stopped.returncode == 130, stopped.stderr
    assert not (results / "discrete.json").exists()
    done = few_cells.run(*flags)
    stored = json.loads((results / "discrete.json").read_text())
    rows = {row["name"]: row for row in stored["rows"]}
    assert "\nway to train " in done.stdout
    assert set(rows) == {cell["estimator"] for cell in small_grid.CELLS["discrete"]}
    verdicts = {name: row["gradient"]["verdict"] for name, row in rows.items()}
    assert verdicts["enumerate"] == "exact" and verdicts["rws"] == "another target"
    for name in ("score", "score, learned baseline", "vimco"):
        assert verdicts[name] == "none found"
    # The bounds are those of log p(x) of 64 pixels.
    assert all(-90 < row["test"] < -5 and row["gap"] > 0 for row in rows.values())
    assert (path / "answer.svg").read_text().startswith("<svg")


def test_studies_are_listed_and_wrong_ones_are_one_sentence(studying, tmp_path):
    assert list(STUDIES) == [
        line for line in studying.run("--list").stdout.splitlines() if not line.startswith(" ")
    ]
    cases = [
        ((), "Give the name of a study, one of table1, "),
        (("table2",), "got 'table2'."),
        (("table1", "twice"), "Flags are given as --name=value; got 'twice'."),
        (("tighter_bounds", "--k=5"), "--k differs between the cells of the study tighter_bounds"),
        (("tighter_bounds", "--epochs=1,2"), "--epochs takes one value in a study; got '1,2'."),
        (("ablate_protocol", "--protocol=x"), "--protocol must be one of burda2015_paper, "),
        (("tighter_bounds", "--eval_k=50", "--dataset=missing.npz"), "missing.npz"),
        (("tighter_bounds", "--results_dir=x"), "--results_dir is for studies whose results are"),
        (("fast_protocol",), "--dataset must begin with training: in the study fast_protocol"),
        (("tighter_bounds",), "--eval_k must be at least --k, 50, so that"),
        (("likelihoods",), "has no effect in the study likelihoods, which trains nothing; it"),
        (("autoencoder", "--likelihood=bernoulli"), "--likelihood must be gaussian_fixed in "),
    ]
    commands = {str(number): flags for number, (flags, _) in enumerate(cases)}
    outputs = studying.outputs(commands, tmp_path)
    for output, (_, words) in zip(outputs.values(), cases, strict=True):
        assert words in sentence_of(*output)


def test_a_computed_study_is_complete_once_and_takes_its_own_flags(studying, tmp_path):
    flags = ("--k=3", "--replicates=2", f"--workdir={tmp_path / 'study'}")
    study = ("study", "likelihoods")  # It takes none of the flags of `studying`.
    first = command(studying, *study, *flags, f"--results_dir={tmp_path / 'results'}")
    rows = first.stdout.splitlines()
    assert rows[0].split("  ")[0] == "L" and rows[0].endswith("K = 3")
    assert [row.split()[0] for row in rows[1:16]] == ["2"] * 5 + ["8"] * 5 + ["32"] * 5
    assert first.stdout.endswith(
        f"report: {tmp_path / 'study/report.html'}\nfigure: {tmp_path / 'study/answer.svg'}\n"
    )
    stored = (tmp_path / "study" / "study.json").read_bytes()
    assert (tmp_path / "results" / "likelihoods.json").exists()
    again = command(studying, *study, *flags)
    assert again.stdout == first.stdout
    assert (tmp_path / "study" / "study.json").read_bytes() == stored
    cases = [
        (("--k=0",), "--k must lie in 1..10000 in the study likelihoods, which keeps all draws"),
        (("--replicates=1",), "--replicates must be at least 2 in the study likelihoods, which"),
        (("--k=1,2",), "--k takes one value in a study; got '1,2'."),
        (("--jobs=2",), "--jobs has no effect in the study likelihoods, which trains nothing; it"),
        (("--budget=0.1",), "--budget has no effect in the study likelihoods, which trains"),
        (("--k=4", *flags[1:]), "holds the study with other settings (--k=3 --replicates=2 --se"),
    ]
    commands = {str(number): [*study, *own] for number, (own, _) in enumerate(cases)}
    outputs = forking.run_all(commands, tmp_path, studying.environment)
    for output, (_, words) in zip(outputs.values(), cases, strict=True):
        assert words in sentence_of(*output)


def test_the_study_autoencoder_shows_codes_and_keeps_its_results(studying, tmp_path):
    flags = ("autoencoder", "--latent_dims=2", "--replicates=2", f"--workdir={tmp_path / 'study'}")
    done = studying.run(*flags, f"--results_dir={tmp_path / 'results'}", "--jobs=2")
    assert "codes outside 99%" in done.stdout and "|dJ - lambda dELBO| / |dJ|" in done.stdout
    figure = (tmp_path / "study" / "answer.svg").read_text()
    assert figure.startswith("<svg ") and "decoded draws from the prior" in figure
    results = json.loads((tmp_path / "results" / "autoencoder.json").read_text())
    assert [row["system"] for row in results["systems"]] == [
        "autoencoder",
        "VAE",
        "VAE by (13.28)",
    ]
    assert all(row["gradient_difference"] < 1e-4 for row in results["comparisons"])
    # Codes of three latents are measured too; they are no plane to draw.
    three = studying.run("autoencoder", "--replicates=1", f"--workdir={tmp_path / 'three'}")
    assert "codes outside 99%" in three.stdout and "figure: " not in three.stdout


def test_the_study_disentangle_scores_codes_and_keeps_its_results(few_cells, tmp_path):
    study, sizes = tmp_path / "study", ("--held_out=5500", "--epochs=1", "--latent_dims=2")
    flags = ("disentangle", "--dataset=factors", "--replicates=1", *sizes, "--tensorboard=false")
    flags += (f"--workdir={study}", f"--results_dir={tmp_path / 'results'}")
    killed = few_cells.interrupted("scores.json.tmp", signal.SIGKILL, *flags)
    assert killed.returncode == -signal.SIGKILL
    done = few_cells.run(*flags)
    assert "FactorVAE" in done.stdout and "scores 3/3 runs" in done.stderr
    assert len(json.loads((study / "scores.json").read_text())["rows"]) == 3
    rows = json.loads((tmp_path / "results" / "disentangle.json").read_text())["rows"]
    assert [row["weight"] for row in rows] == ["1", "8", "4"]
    assert rows[0]["objective"] == "beta_vae"
    for row in rows:
        scores = [row[name]["mean"] for name in ("mig", "sap", "dci_disentanglement", "beta_vae")]
        assert all(0 <= score <= 1 for score in scores)
    assert "beta_tcvae" in (study / "answer.svg").read_text()


def test_the_study_codebooks_compares_rates_and_keeps_its_results(few_cells, tmp_path):
    path = tmp_path / "study"
    flags = ("codebooks", "--hidden_dims=", "--channels=4,4", "--code_dim=4", "--epochs=2")
    flags += (f"--workdir={path}", f"--results_dir={tmp_path / 'results'}")
    done = few_cells.run(*flags)
    assert "VQ-VAE, K = 512" in done.stdout and "VAE, beta = 0.1" in done.stdout
    assert "table for each position" in (path / "answer.svg").read_text()
    rows = json.loads((tmp_path / "results" / "codebooks.json").read_text())["rows"]
    cells = json.loads((path / "sweep.json").read_text())["cells"]
    assert len(rows) == len(cells) == 3
    for row, cell in zip(rows, cells, strict=True):
        name = "log_px_code" if row["model"] == "vqvae" else "reconstruction"
        assert row["distortion"]["mean"] == pytest.approx(-cell["results"][name]["mean"])
        if row["model"] == "conv":
            assert row["bound"]["mean"] == pytest.approx(cell["results"]["elbo"]["mean"], rel=1e-5)
    # The rate of K = 8 by a count of its 2 x 2 codes, which the data set of its codes has.
    (run,) = cells[0]["runs"]
    codes = derived.load(f"codes:{path / run['run']}")
    lengths = [
        -math.log((np.sum(codes.x_train[:, m] == code) + 1) / (len(codes.x_train) + 8))
        for example in codes.x_test
        for m, code in enumerate(example)
    ]
    assert rows[0]["rate"]["mean"] == pytest.approx(sum(lengths) / len(codes.x_test))
    assert rows[0]["fixed_rate"] == pytest.approx(4 * math.log(8))
