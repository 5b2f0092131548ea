"""Every kind of optimizer state, with averaged weights: killed and resumed."""

import json
import signal

import pytest

pytestmark = pytest.mark.slow

# Name -> flags, and the line of the table.
RUNS = {
    "adam": (
        ("--ema=0.9", "--warmup_steps=30"),
        "adam, learning rate 0.01, warm-up 30 steps, ema 0.9",
    ),
    "soap": (
        ("--optimizer=soap", "--ema=0.9", "--soap_frequency=5"),
        "soap, learning rate 0.01, ema 0.9",
    ),
    "muon": (("--optimizer=muon", "--clip_norm=1"), "muon, learning rate 0.01"),
    "schedule_free": (
        ("--optimizer=schedule_free", "--lr_schedule=constant", "--warmup_steps=20"),
        "schedule_free, learning rate 0.01, warm-up 20 steps",
    ),
}
FLAGS = ("--probe_every=12", "--tensorboard=false")


@pytest.fixture(scope="module", params=RUNS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def never_stopped(cli, name):
    """A run that was never stopped: its folder and its output."""
    path = cli.folder / f"never_stopped_by_{name}"
    return path, cli.run(f"--workdir={path}", *RUNS[name][0], *FLAGS)


def test_killed_and_resumed_is_never_having_stopped(cli, read, name, never_stopped, tmp_path):
    flags = (f"--workdir={tmp_path}", *RUNS[name][0], *FLAGS)
    done = cli.interrupted("step_00000060", signal.SIGKILL, *flags)
    assert done.returncode == -signal.SIGKILL
    assert read["records"](tmp_path) == 10
    cli.run(*flags)
    assert read["outcome"](tmp_path) == read["outcome"](never_stopped[0])


def test_the_table_names_the_optimizer_and_the_bound_has_risen(name, never_stopped):
    path, done = never_stopped
    assert f"optimizer  {RUNS[name][1]}\n" in done.stdout
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["bound"] > lines[0]["bound"] + 1
    assert lines[-1]["test_elbo"] > lines[1]["test_elbo"]


def test_a_run_is_not_resumed_by_another_optimizer(cli, name, never_stopped):
    path, _ = never_stopped
    own = [flag for flag in RUNS[name][0] if not flag.startswith(("--optimizer", "--soap"))]
    message = cli.refused(f"--workdir={path}", *own, *FLAGS, "--optimizer=sgd")
    assert f"optimizer: 'sgd' here, '{name}' there" in message
