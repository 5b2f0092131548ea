"""The study labels from the command line, at a tiny size: killed, resumed, kept."""

import json
import signal

import numpy as np
import pytest
from scipy.special import logsumexp

from elbo_lab.studies.labels import MODELS

pytestmark = pytest.mark.slow


def test_a_study_that_was_killed_while_it_classified_goes_on(studying, read, tmp_path):
    study = tmp_path / "study"
    flags = ("labels", f"--workdir={study}", f"--results_dir={tmp_path}", "--width=4")
    flags += ("--layers=2", "--output_width=4", "--jobs=1", "--tensorboard=false")
    killed = studying.interrupted("classified.json.tmp", signal.SIGKILL, *flags)
    assert killed.returncode == -signal.SIGKILL
    before = {run.name: read["outcome"](run) for run in (study / "runs").iterdir()}
    assert len(before) == 3
    done = studying.run(*flags)
    assert {run.name: read["outcome"](run) for run in (study / "runs").iterdir()} == before
    assert "classification 23/23" not in done.stderr  # it was kept
    stored = json.loads((tmp_path / "labels.json").read_text())
    assert [row["name"] for row in stored["models"]] == list(MODELS)
    assert "naive Bayes" in (study / "answer.svg").read_text()
    for text in (*MODELS, "naive Bayes", "logistic", "answer.svg"):
        assert text in done.stdout
    # log p(x) is the sum over the classes of what the runs keep, by NumPy.
    with np.load(studying.data) as file:
        label = file["y_train"]
    log_prior = np.log(np.bincount(label) / len(label))
    sums = []
    for file in (study / "runs").glob("*/evaluations/*/evaluation.npz"):
        with np.load(file) as values:
            log_px_y = next(values[name] for name in values if values[name].ndim == 2)
        sums.append(logsumexp(log_px_y + log_prior, axis=1).mean())
    rows = [row["log_px"]["mean"] for row in stored["models"] if "log_px_y" in row]
    np.testing.assert_allclose(sorted(rows), sorted(sums), rtol=1e-6)
