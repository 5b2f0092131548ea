"""The study features from the command line, at a tiny size: killed, resumed, refused."""

import json
import signal

import numpy as np
import pytest

from elbo_lab.studies.feature_analysis import METHODS
from tests.cli.conftest import CommandLine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studying(tmp_path_factory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("features"), "study", quick=True)


def test_a_study_that_was_killed_while_it_probed_goes_on(studying, read, tmp_path):
    study = tmp_path / "study"
    flags = ("features", f"--workdir={study}", f"--results_dir={tmp_path}")
    flags += ("--replicates=2", "--jobs=1", "--tensorboard=false")
    killed = studying.interrupted("probes.json.tmp", signal.SIGKILL, *flags)
    assert killed.returncode == -signal.SIGKILL
    assert not (study / "probes.json").exists()
    before = {run.name: read["outcome"](run) for run in (study / "runs").iterdir()}
    assert len(before) == 2
    done = studying.run(*flags)
    assert "probing 20/20 fits" in done.stderr
    assert {run.name: read["outcome"](run) for run in (study / "runs").iterdir()} == before
    rows = json.loads((study / "probes.json").read_text())["rows"]
    assert len(rows) == 2 * 2 * len(METHODS)  # seeds, numbers of labels
    for text in (*METHODS, "60 labels", "over 2 seeds", "answer.svg"):
        assert text in done.stdout
    assert METHODS[1] in (study / "answer.svg").read_text()
    stored = json.loads((tmp_path / "features.json").read_text())
    assert [row["seeds"] for row in stored["rows"]] == [2] * 10
    again = studying.run(*flags)
    assert again.stdout == done.stdout and "probing" not in again.stderr


def test_what_the_study_cannot_use_is_refused_before_training(studying, tmp_path):
    with np.load(studying.data) as file:
        np.savez(tmp_path / "bare.npz", x_train=file["x_train"], x_test=file["x_test"])
    bare = tmp_path / "bare.npz"
    for flags, sentence in [
        (
            ("features", f"--dataset={bare}"),
            f"--dataset={bare} has no labels, which the study features needs; give a data set with "
            "labels.",
        ),
        (
            ("features", "--model=sbn"),
            "--model must be mlp or conv in the study features, whose encoders start a classifier; "
            "got 'sbn'.",
        ),
        (
            ("features", "--objective=iwae"),
            "--objective differs between the cells of the study features; leave it out.",
        ),
    ]:
        assert studying.refused(*flags, f"--workdir={tmp_path / 'none'}") == sentence
    assert not (tmp_path / "none").exists()
