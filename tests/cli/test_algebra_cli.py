"""Objectives, estimators and schedules of hyper-parameters, from the command line."""

import json

import pytest

from elbo_lab import losses
from elbo_lab.runs import reporting

ONE_PASS = ("--epochs=1", "--tensorboard=false")
NEEDED = {"piwae": ["--m=2"], "rws": ["--phase=both"]}


def config_of(path) -> dict:
    return json.loads((path / "config.json").read_text())["config"]


# One of every kind of objective; tests/training/test_step.py trains all of them.
KINDS = ("elbo", "piwae", "rws", "sumo", "free_bits_batch", "wake_sleep")


@pytest.mark.slow
@pytest.mark.parametrize("objective", KINDS)
def test_objectives_train_and_report(cli, tmp_path, objective):
    path = tmp_path / "run"
    flags = [f"--objective={objective}", f"--workdir={path}", *NEEDED.get(objective, [])]
    done = cli.run(*flags, *ONE_PASS)
    stored = config_of(path)
    assert stored["objective"] == objective
    # The table wraps long lines.
    assert f"objective {reporting.objective_text(stored)} data " in " ".join(done.stdout.split())
    assert bool(stored["estimator"]) == bool(losses.CATALOGUE[objective].estimators)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["vimco", "wake_dreg"])
def test_estimators_train_two_layers(cli, tmp_path, estimator):
    path = tmp_path / "run"
    flags = [f"--estimator={estimator}", "--latent_dims=3,2", f"--workdir={path}"]
    done = cli.run(*flags, *ONE_PASS)
    assert f"iwae, k = 5, {estimator} estimator" in done.stdout


@pytest.mark.slow
def test_a_hyper_parameter_follows_its_course(cli, tmp_path):
    # log_every=6 is one epoch; the mean of beta * KL rises with beta.
    course = "linear:0:50:120"
    path = tmp_path / "run"
    flags = ["--objective=beta_vae", f"--beta={course}", f"--workdir={path}"]
    done = cli.run(*flags, "--tensorboard=false")
    assert f"beta = {course}, analytic KL" in done.stdout
    assert config_of(path)["beta"] == course
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    # bound = reconstruction - beta KL on average, and beta is near its mean within a pass.
    for i, line in enumerate(lines):
        beta = 50 * (6 * i + 2.5) / 120
        assert line["reconstruction"] - line["bound"] == pytest.approx(
            beta * line["kl"], rel=0.25, abs=0.5
        )
    assert lines[-1]["kl"] < 0.5 * max(line["kl"] for line in lines)
