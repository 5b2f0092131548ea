"""Objectives, estimators and courses of hyper-parameters, from the command line."""

import json

import pytest

from elbo_lab import losses

ONE_PASS = ("--epochs=1", "--tensorboard=false")
NEEDED = {"miwae": ["--m=2"], "piwae": ["--m=2"], "rws": ["--phase=both"]}


def config_of(path) -> dict:
    return json.loads((path / "config.json").read_text())["config"]


# Of every kind of objective, and of every setting that the table shows; tests/test_train_step.py
# brings all of them to the loop.
SHOWN = ("elbo", "beta_vae", "piwae", "renyi", "jackknife", "tvo", "capacity_vae", "rws", "sumo")
OTHERS = ("cubo", "free_bits_batch", "wake_sleep")


@pytest.mark.slow
@pytest.mark.parametrize("objective", (*SHOWN, *OTHERS))
def test_objectives_train_and_report(quick, tmp_path, objective):
    path = tmp_path / "run"
    flags = [f"--objective={objective}", f"--workdir={path}", *NEEDED.get(objective, [])]
    done = quick.run(*flags, *ONE_PASS)
    assert f"objective  {objective}, k = 5" in done.stdout
    stored = config_of(path)
    assert stored["objective"] == objective
    # The table shows the settings that were used, given or not.
    for name in ("beta", "alpha", "power", "order", "partition", "phase", "gamma", "min_kl"):
        if stored[name] is not None:
            assert f"{name} = {stored[name]}".removesuffix(".0") in done.stdout
    assert bool(stored["estimator"]) == bool(losses.CATALOGUE[objective].estimators)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["stl", "vimco", "wake_dreg"])
def test_estimators_train_two_layers(quick, tmp_path, estimator):
    path = tmp_path / "run"
    flags = [f"--estimator={estimator}", "--latent_dims=3,2", f"--workdir={path}"]
    done = quick.run(*flags, *ONE_PASS)
    assert f"iwae, k = 5, {estimator} estimator" in done.stdout


@pytest.mark.slow
def test_a_hyper_parameter_follows_its_course(quick, tmp_path):
    # log_every=6 is a pass: the mean of beta * KL rises as beta does.
    course = "linear:0:50:120"
    path = tmp_path / "run"
    flags = ["--objective=beta_vae", f"--beta={course}", f"--workdir={path}"]
    done = quick.run(*flags, "--tensorboard=false")
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
