"""A study with rungs from the command line: stopped, resumed, reported, and refused."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.cli import forking, tiny_study
from tests.cli.conftest import REPOSITORY, sentence_of

pytestmark = pytest.mark.slow
TIMEOUT = 300.0  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("halving")


def arguments(cli, folder) -> list[str]:
    return [
        *(f"--dataset=training:{cli.data}", f"--workdir={folder / 'study'}"),
        *(f"--results_dir={folder}", f"--compilation_cache_dir={cli.cache}"),
    ]


def start(cli, folder) -> subprocess.Popen:
    """Starts the study in the folder."""
    command = [sys.executable, "-m", "tests.cli.tiny_study", *arguments(cli, folder)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env=cli.environment, **streams)


def means(rung) -> dict[str, float]:
    """The mean log-likelihood of each candidate of a rung, from the values per image."""
    cells = json.loads((rung / "sweep.json").read_text())["cells"]
    values = {}
    for cell in cells:
        for run in cell.get("runs", []):
            with np.load(rung / run["run"] / "evaluation.npz") as arrays:
                log_px = arrays[f"log_likelihood_{run['replicate']}"]
            values[cell["values"]["candidate"]] = np.mean(log_px, dtype=np.float64)
            assert log_px.shape == (20,)  # the held-out images, and not the 23 test images
    return values


def test_a_stopped_study_goes_on_and_eliminates_the_worst(cli, folder):
    study = folder / "study"
    with start(cli, folder) as process:
        deadline = time.monotonic() + TIMEOUT
        while not list(study.glob("rung1/runs/*/metrics.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130 and "The same command goes on" in err, err
    assert "Traceback" not in err and "not yet" in out
    stopped = json.loads((study / "study.json").read_text())
    assert not stopped["complete"] and not (folder / "tiny.json").exists()
    assert not (study / "rung2").exists()

    with start(cli, folder) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and "Traceback" not in err, err
    content = json.loads((folder / "tiny.json").read_text())
    assert content["complete"] and "workdir" not in content["command"]
    if hasattr(os, "sched_setaffinity"):
        assert content["devices"] == ["cpu, 1 core"]
    candidates = {candidate["name"]: candidate for candidate in content["candidates"]}
    first, second = means(study / "rung1"), means(study / "rung2")
    for number, values in enumerate((first, second)):
        for name, value in values.items():
            assert candidates[name]["rungs"][number]["value"] == pytest.approx(value, rel=1e-12)
    assert set(first) == {"slow", "fast", "large"}
    assert set(second) == set(sorted(first, key=first.get)[1:])  # the better two
    winner = max(second, key=second.get)
    eliminated = {name: candidate["eliminated"] for name, candidate in candidates.items()}
    places = {name: None if name == winner else 2 if name in second else 1 for name in candidates}
    assert eliminated == places
    assert "not finite" in candidates["broken"]["reason"]
    assert "which must be at least --batch_size, 50" in candidates["refused"]["reason"]
    # 40 images in batches of 10 are 4 steps, and in batches of 20 two steps of twice the cost.
    steps = {
        name: [r["steps"] for r in c["rungs"] if "steps" in r] for name, c in candidates.items()
    }
    full = {"slow": [8, 24], "fast": [8, 24], "large": [4, 12], "broken": [], "refused": []}
    assert all(full[name][: len(own)] == own for name, own in steps.items())
    assert f"report: {study / 'report.html'}\nfigure: {study / 'answer.svg'}\n" in out
    assert tiny_study.STUDY.question in (study / "report.html").read_text()


def test_refusals_are_one_sentence(cli, folder, tmp_path):
    cases = {
        "--epochs=3": "--epochs follows from the rungs of the study tiny",
        "--learning_rate=0.1": "--learning_rate differs between the cells of the study tiny",
        "--dataset=mnist_small": "--dataset must begin with training: in the study tiny",
        "--budget=0": "--budget must be above 0 and at most 1000; got 0.0.",
        "--batch_size=0,1": "--batch_size takes one value in a study; got '0,1'.",
        f"--workdir={cli.folder}": "is not empty and not the folder of a study with rungs",
    }
    common = ["tiny_study", *arguments(cli, folder)]
    commands = {str(number): [*common, flag] for number, flag in enumerate(cases)}
    outputs = forking.run_all(commands, tmp_path, cli.environment, "tests.cli")
    for output, words in zip(outputs.values(), cases.values(), strict=True):
        assert words in sentence_of(*output)
