"""`experiments.run` as a user runs it: new and complete runs, other models, wrong flags."""

import dataclasses
import json
import os
import pty
import subprocess
import termios
from pathlib import Path

import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.objective_options import OBJECTIVE_OPTIONS
from tests.cli.conftest import sentence_of

FIGURES = ["active_units.png", "learning_curves.png", "reconstructions.png", "samples.png"]
RESULTS = {
    # name -> symbol, unit, K, for k = 5 and eval_k = 20
    "training bound": ("L_5", "nats per image", 5),
    "ELBO": ("ELBO", "nats per image", 1),
    "IWAE bound": ("L_5", "nats per image", 5),
    "log-likelihood": ("L_20", "nats per image", 20),
    "KL(q(z|x) || p(z))": ("KL", "nats per image", None),
    "reconstruction": ("E_q log p(x|z)", "nats per image", None),
    "effective sample size": ("ESS of 20", "draws", None),
    "active units of 3": ("AU", "units", None),
    "wall time of training": ("", "s", None),
    "speed": ("", "steps/s", None),
}


def summary_of(path) -> dict:
    return json.loads((path / "summary.json").read_text())


def assert_png(path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert path.stat().st_size > 2000


# A fresh run


def test_a_fresh_run_leaves_everything_in_its_directory(fresh, read):
    path, _ = fresh
    left = {p.name for p in path.iterdir()} - {".lock"}
    assert left == {
        "checkpoints",
        "config.json",
        "evaluation.npz",
        "figures",
        "metrics.jsonl",
        "summary.json",
        "tensorboard",
    }
    assert sorted(p.name for p in (path / "figures").iterdir()) == FIGURES
    for name in FIGURES:
        assert_png(path / "figures" / name)
    (events,) = (path / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents.")
    assert events.stat().st_size > 500
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6, read["steps"] + 1, 6))
    assert set(lines[0]) == {"step", "bound", "kl", "reconstruction", "seconds"}
    assert lines[-1]["bound"] > lines[0]["bound"] + 1
    stored = json.loads((path / "config.json").read_text())["config"]
    assert stored.keys() == configs.all_values(Config()).keys()
    assert (stored["k"], stored["latent_dims"], stored["epochs"]) == (5, [3], 20)
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == [
        "step_00000108",
        "step_00000120",
    ]


def test_the_summary_describes_each_number(fresh):
    path, _ = fresh
    summary = summary_of(path)
    results = {result["name"]: result for result in summary["results"]}
    assert results.keys() == RESULTS.keys()
    for name, (symbol, unit, k) in RESULTS.items():
        result = results[name]
        assert (result["symbol"], result["unit"], result["k"]) == (symbol, unit, k)
    lower = {name for name, result in results.items() if result["bound"]}
    assert lower == {"training bound", "ELBO", "IWAE bound", "log-likelihood"}
    assert all(results[name]["bound"] == "lower bound in expectation" for name in lower)
    assert summary["data"]["binarization"] == "dynamic"
    assert summary["data"] | {"train_images": 60, "test_images": 23} == summary["data"]
    assert summary["failed_replicates"] == []
    with np.load(path / "evaluation.npz") as file:
        values = file["log_likelihood_0"].astype(np.float64)
    likelihood = results["log-likelihood"]
    assert likelihood["value"] == pytest.approx(values.mean(), rel=1e-6)
    assert likelihood["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(23), rel=1e-6)
    assert results["ELBO"]["value"] < results["IWAE bound"]["value"] < likelihood["value"]
    assert results["ELBO"]["value"] == pytest.approx(
        results["reconstruction"]["value"] - results["KL(q(z|x) || p(z))"]["value"], abs=1e-3
    )


def test_the_table_names_everything_that_a_number_depends_on(fresh):
    path, done = fresh
    for words in (
        "iwae, k = 5, reparam estimator",
        "blobs, dynamic binarization",
        "mlp, latent dimensions 3; seed 0",
        "120 steps of 10 images",
        str(path),
        "one standard error over 23 images",
        *RESULTS,
    ):
        assert words in done.stdout
    assert "training 120/120 steps bound -" in done.stderr
    assert "evaluation 23/23 examples" in done.stderr


def test_a_complete_run_prints_the_same_table_and_changes_nothing(cli, fresh):
    path, done = fresh
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}
    again = cli.run(f"--workdir={path}")
    assert "This run is complete" in again.stdout
    assert again.stdout.endswith(done.stdout.lstrip("\n"))
    assert again.stderr == ""
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()} == before


def test_another_configuration_in_the_same_directory_is_refused(cli, fresh):
    path, _ = fresh
    message = cli.refused(f"--workdir={path}", "--k=3", "--seed=4")
    assert "k: 3 here, 5 there" in message
    assert "seed: 4 here, 0 there" in message
    assert "--overwrite" in message


def test_images_that_changed_under_the_same_name_are_refused(cli, fresh, tmp_path):
    path, _ = fresh
    with np.load(cli.data) as file:
        arrays = dict(file)
    before = cli.data.read_bytes()
    np.savez(cli.data, **arrays | {"x_test": 255 - arrays["x_test"]})
    try:
        assert "have changed" in cli.refused(f"--workdir={path}")
    finally:
        cli.data.write_bytes(before)


# Wrong flags

QUICK = [
    ("--foo=1", ["foo"]),
    ("--objective=foo", ["--objective", "'foo'", "elbo, beta_vae, iwae, miwae"]),
    ("--k=0", ["--k", "at least 1", "0"]),
    ("--k=abc", ["--k must be a whole number", "'abc'"]),
    ("--beta=2", ["--beta=2", "--objective=iwae", "beta_vae"]),
    ("--objective=elbo --estimator=ovis", ["--estimator=ovis", "elbo", "reparam, stl, dreg"]),
    ("--dataset=missing.npz", ["missing.npz", "No such file"]),
    ("--binarization=none", ["--binarization=none", "grey levels", "dynamic"]),
    ("--k=1000000000 --eval_k=1000000000", ["--k=1000000000 is too large", "GB of memory"]),
]
SLOW = [
    ("--learning_rate=x", ["--learning_rate must be a number", "'x'"]),
    ("--overwrite=maybe", ["--overwrite must be true or false", "'maybe'"]),
    ("--m=2", ["--m=2", "--objective=iwae", "miwae"]),
    ("--latent_dims=a", ["--latent_dims", "'a'"]),
    ("--k=30", ["--eval_k", "30", "20"]),
    ("--k", ["Missing value", "k"]),
    ("--dataset=nothing", ["'nothing'", "mnist_small", ".npz"]),
    ("--protocol=fast --objective=rws", ["--protocol=fast sets --estimator", "unsets it"]),
    ("--epochs=9999999999", ["--epochs must be at most 2147483647", "9999999999"]),
    ("--dataset=/tmp", ["--dataset=/tmp: '/tmp' is a folder", "mnist_small"]),
    ("--batch_size=61", ["--batch_size", "60", "61"]),
    ("--latent_dims=4,2 --objective=elbo --kl=analytic", ["--kl=mc", "one stochastic"]),
    ("--objective=rws --estimator=dreg", ["--estimator=dreg", "rws", "its own"]),
    ("--objective=beta_vae --beta=up:0:1:5", ["--beta", "'up:0:1:5'", "linear:START:END:STEPS"]),
    ("--objective=tvo --partition=a", ["--partition", "'a'", "number of steps"]),
    ("--k=1 --estimator=vimco", ["--estimator=vimco", "--k", "at least 2", "reparam"]),
    ("stray", ["'stray'", "--name=value"]),
    ("--platform=foo", ["--platform=foo is not available", "there is cpu"]),
    ("--platform=cuda", ["--platform=cuda is not available", "there is cpu", "jax[cuda13]"]),
    ("--model=", ["--model must be one of mlp, ", "''"]),
    ("--hidden_dims=1000000000", ["--hidden_dims=1000000000 is too large", "GB"]),
    ("--latent_dims=100000000", ["--latent_dims=100000000 is too large", "GB"]),
    ("--replicates=100000000", ["--replicates must be at most 10,000", "100000000"]),
    ("--objective=tvo --partition=1000000000", ["--partition must have at most 1,000", "steps"]),
    ("--objective=jackknife --k=60 --eval_k=60 --order=30", ["--order=30 with --k=60", "subsets"]),
    ("--adam_eps=1e-60", ["--adam_eps", "float32", "1e-60"]),
    ("--held_out=55", ["--held_out=55 leaves 5 of the 60", "--batch_size, 10"]),
    ("--data_dir=setup.cfg", ["--data_dir=setup.cfg is a file"]),
]


@pytest.mark.parametrize(("flags", "words"), QUICK)
def test_wrong_flags(cli, tmp_path, flags, words):
    message = cli.refused(f"--workdir={tmp_path / 'run'}", *flags.split())
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def refused(cli, tmp_path_factory) -> dict[str, tuple[str, str, str]]:
    """Flags -> exit status, standard output and standard error."""
    folder = tmp_path_factory.mktemp("wrong_flags")
    workdir = f"--workdir={folder / 'run'}"
    commands = {str(number): (workdir, *flags.split()) for number, (flags, _) in enumerate(SLOW)}
    outputs = cli.outputs(commands, folder)
    assert not (folder / "run").exists()
    return {flags: output for (flags, _), output in zip(SLOW, outputs.values(), strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "words"), SLOW)
def test_more_wrong_flags(refused, flags, words):
    message = sentence_of(*refused[flags])
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        pytest.param("text", marks=pytest.mark.slow),
        pytest.param("pickle", marks=pytest.mark.slow),
    ],
)
def test_a_corrupt_npz(cli, tmp_path, damage):
    path = tmp_path / "bad.npz"
    if damage == "truncated":
        path.write_bytes(cli.data.read_bytes()[:2000])
    elif damage == "text":
        path.write_text("not an archive")
    else:
        np.savez(path, x_train=np.array([{}]), x_test=np.zeros((2, 4)))
    assert str(path) in cli.refused(f"--dataset={path}", f"--workdir={tmp_path / 'run'}")


@pytest.mark.parametrize("flag", ["workdir", "compilation_cache_dir"])
def test_a_folder_that_cannot_be_written(cli, tmp_path, flag):
    (tmp_path / "file").write_text("x")
    flags = [f"--workdir={tmp_path / 'run'}", f"--{flag}={tmp_path / 'file' / 'folder'}"]
    message = cli.refused(*flags)
    assert message.startswith(f"--{flag}={tmp_path / 'file' / 'folder'} cannot be written")


@pytest.mark.slow
def test_a_divergence_is_one_sentence_that_names_step_and_terms(cli, tmp_path):
    flags = [f"--workdir={tmp_path}", "--learning_rate=1e30"]
    messages = []
    for _ in range(2):  # the same command fails in the same way again
        done = cli.run(*flags, status=1)
        messages.append(done.stderr.splitlines()[-1])
        assert done.stdout == ""
    assert messages[0] == messages[1]
    assert messages[0].startswith("Error: Training diverged, not finite at step 1, seed 0: bound")
    assert "--learning_rate" in messages[0]
    assert not (tmp_path / "summary.json").exists()


def test_help_lists_every_flag_with_its_default_and_choices(cli):
    done = cli.run("--help")
    assert done.stderr == ""
    text = done.stdout
    for field in dataclasses.fields(Config):
        if field.name not in configs.SHARED:
            continue
        default = getattr(Config(), field.name)  # also where it is the model family's
        if isinstance(default, bool):
            default = "true" if default else "false"
        shown = f"--{field.name}" + ("" if default is None else f"={default}")
        assert f"  {shown}\n" in text
    for name in ("workdir", "overwrite=false", "compilation_cache_dir=", "tensorboard=true"):
        assert f"  --{name}" in text
    assert f"({', '.join(OBJECTIVE_OPTIONS)})" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


# Other runs


@pytest.mark.slow
def test_embedded_images_and_the_default_directory(cli, tmp_path):
    flags = ["--dataset=mnist_small", "--epochs=1", "--batch_size=100", "--k=1", "--eval_k=5"]
    environment = {**cli.environment, "PYTHONPATH": str(Path.cwd())}
    done = cli.run(*flags, "--log_every=50", "--objective=elbo", cwd=tmp_path, env=environment)
    assert "mnist_small, dynamic binarization" in done.stdout
    assert "elbo, k = 1" in done.stdout
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name.startswith("elbo-k1-mnist_small-")
    assert f"runs/{path.name}" in done.stdout
    assert summary_of(path)["data"]["test_images"] == 2000


@pytest.mark.slow
def test_flat_binary_floats_without_labels_in_two_latent_dimensions(cli, tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (40, 12)).astype(np.float32)
    np.savez(tmp_path / "flat.npz", x_train=x, x_test=x[:7])
    flags = [f"--dataset={tmp_path / 'flat.npz'}", "--binarization=none", "--latent_dims=2"]
    done = cli.run(f"--workdir={tmp_path / 'run'}", *flags, "--epochs=2", "--tensorboard=false")
    assert "flat, no binarization" in done.stdout
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert summary_of(tmp_path / "run")["data"]["image_shape"] == [1, 12]
    # With the figures of two latent dimensions.
    for name in (*FIGURES, "latent_space.png", "latent_grid.png"):
        assert_png(tmp_path / "run" / "figures" / name)


@pytest.mark.slow
def test_two_stochastic_layers(cli, tmp_path):
    done = cli.run(
        f"--workdir={tmp_path}", "--latent_dims=4,2", "--upper_hidden_dims=6", "--epochs=2"
    )
    assert "latent dimensions 4, 2" in done.stdout
    assert "active units, layer 1 of 4" in done.stdout
    assert "active units, layer 2 of 2" in done.stdout
    with np.load(tmp_path / "evaluation.npz") as file:
        assert file["means_1_0"].shape == (23, 4)
        assert file["means_2_0"].shape == (23, 2)
    assert not (tmp_path / "figures" / "latent_space.png").exists()


@pytest.mark.slow
def test_replicates_equal_runs_of_consecutive_seeds(cli, tmp_path, fresh):
    cli.run(f"--workdir={tmp_path}", "--replicates=2")
    summary = summary_of(tmp_path)
    assert summary["replicates"].keys() == {"0", "1"}
    single = {r["name"]: r["value"] for r in summary_of(fresh[0])["results"]}
    first = {r["name"]: r["value"] for r in summary["replicates"]["0"]}
    assert first["log-likelihood"] == pytest.approx(single["log-likelihood"], rel=1e-4)
    values = [
        next(r["value"] for r in own if r["name"] == "log-likelihood")
        for own in summary["replicates"].values()
    ]
    mean = next(r for r in summary["results"] if r["name"] == "log-likelihood")
    assert mean["value"] == pytest.approx(np.mean(values))
    assert mean["standard_error"] == pytest.approx(abs(values[0] - values[1]) / 2)
    assert (mean["over"], mean["count"]) == ("replicates", 2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(json.loads(lines[-1])["bound"]) == 2


@pytest.mark.slow
def test_a_terminal_sees_a_bar_with_the_bound_and_the_time_left(cli, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = cli.start(f"--workdir={tmp_path}", stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other side of the terminal is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "bound -" in text
    assert "120/120" in text
    assert "<00:" in text  # tqdm's time left
