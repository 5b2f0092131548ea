"""The benchmark of EM: that scikit-learn does the same iterations, and its figures. No time is
asserted.
"""

import numpy as np
import pytest

from benchmarks import merging, mixtures, parts, peers, printing, training
from benchmarks.peers import OURS, common, ours
from benchmarks.workers import Failed
from tools import make_performance_tables

SMALL = mixtures.Size(300, 3, 4)
RUN = {"command": "", "date": "2026-01-02", "python": "3.11", "versions": {"jax": "1"}}
HERE = {"device": "cpu, 2 cores", "processor": "a processor", "machine": "x86_64"}


@pytest.mark.slow
def test_scikit_learn_does_the_same_iterations_and_both_go_back_to_the_start():
    from benchmarks.peers import scikit_learn

    with mixtures.task_folder(SMALL) as folder:
        tasks = [common.read_task(folder, steps=steps, replicates=1) for steps in (1, 6)]
    own = ours.make(tasks[0])
    others = [scikit_learn.make(tasks[1], dtype) for dtype in ("float64", "float32")]
    start = own.bound()
    for _ in range(6):
        own.train()
    reached = own.bound()
    assert reached > start + 0.1
    for peer in others:
        assert peer.bound() == pytest.approx(start, rel=1e-5)
        peer.train()
        assert peer.bound() == pytest.approx(reached, rel=1e-5)
    for peer in (own, *others):
        peer.restart()
        assert peer.bound() == pytest.approx(start, rel=1e-5)


def test_the_data_are_draws_of_wide_components():
    x = mixtures.draws_of_mixture(mixtures.Size(4000, 5, 2))
    assert x.shape == (4000, 5) and x.dtype == np.float32
    np.testing.assert_array_equal(x, mixtures.draws_of_mixture(mixtures.Size(4000, 5, 2)))
    # Each coordinate has a variance of 1 within a component and of 1/4 between their means.
    variances = np.var(mixtures.draws_of_mixture(mixtures.Size(4000, 40, 30)), axis=0)
    assert np.mean(variances) == pytest.approx(1.25, abs=0.05)


class FakeWorker:
    """A worker that reaches `values[1]` by training, from `values[0]`."""

    steps = 10

    def __init__(self, values):
        self.values, self.requests, self.place = values, [], 0

    def ask(self, *words):
        self.requests.append(words)
        if self.values is None:
            raise Failed("no such module")
        if words[0] != "bound":
            self.place = int(words[0] == "train")
            return {"seconds": 2.0}
        return {"values": [self.values[self.place]]}


def test_fits_are_compared_at_the_start_and_at_the_end():
    def compared(*values):
        running = dict(zip((OURS, *peers.MIXTURE_ROWS), map(FakeWorker, values), strict=False))
        lines = mixtures.compared_fits(running, said.append)
        return running, lines

    said = []
    running, lines = compared((-70.0, -60.0), (-70.0002, -59.9998), None)
    assert list(running) == [OURS, "scikit_learn"]
    assert said == ["scikit_learn_float32 does not run here: no such module"]
    assert ("train", mixtures.ITERATIONS // FakeWorker.steps) in running[OURS].requests
    assert lines["scikit_learn"] == {
        "log_px_at_start": -70.0002,
        "log_px_reached": -59.9998,
        "first_seconds": 2.0,
    }
    with pytest.raises(RuntimeError, match="scikit_learn has another .*log_px_at_start = -71"):
        compared((-70.0, -60.0), (-71.0, -60.0))
    with pytest.raises(RuntimeError, match="log_px_reached = nan; ours is -60.0"):
        compared((-70.0, -60.0), (-70.0, float("nan")))


def line(seconds: float, ratio: float) -> dict:
    """A row of the figures."""
    return {
        "seconds": seconds,
        "first_seconds": seconds + 1,
        "ours_over_this": {"median": ratio, "quartiles": [ratio - 0.1, ratio + 0.1]},
        "peak_memory_mb": 300.4,
        "log_px_at_start": -72.0,
        "log_px_reached": -61.5,
    }


def test_mixtures_are_measured_with_the_rows_that_fit_them(monkeypatch, capsys):
    def measure(rows, rounds, say):
        lines = {row: line(1.5, 1.0) for row in (OURS, *rows)}
        return {**mixtures.SIZE._asdict(), "iterations": 20, "rows": lines}

    monkeypatch.setattr(mixtures, "measure_mixtures", measure)
    kept = []
    request = parts.Request(["mixtures"], [], ["pytorch", *peers.MIXTURE_ROWS], 3, 0.1)
    assert request.network_rows == ["pytorch"]
    parts.measure(request, lambda part, value: kept.append((part, list(value["rows"]))))
    assert kept == [("mixtures", [OURS, *peers.MIXTURE_ROWS])]
    printed = capsys.readouterr().out
    assert "20 iterations of EM, 10,000 points of 50 dimensions, 20 components" in printed
    assert "scikit-learn, float64" in printed and "PyTorch" not in printed


def test_other_parts_train_no_scikit_learn(monkeypatch):
    trained = []

    def measure(batch, k, rows, *others):
        trained.extend(rows)
        return {}

    monkeypatch.setattr(training, "measure_train", measure)
    monkeypatch.setattr(printing, "print_cell", lambda cell: None)
    request = parts.Request(["train"], [(20, 1)], ["pytorch", *peers.MIXTURE_ROWS], 3, 0.1)
    parts.measure(request, lambda part, value: None)
    assert trained == ["pytorch"]


def test_the_table_of_mixtures():
    rows = {OURS: line(0.65, 1.0), "scikit_learn": line(2.5, 3.8)}
    figures = merging.merged(
        {}, {**HERE, **RUN, "mixtures": {"iterations": 20, "points": 10, "rows": rows}}
    )
    assert make_performance_tables.mixtures(figures).splitlines()[2:] == [
        "| this library | 0.65 | 1.65 |  | -72.0000, -61.5000 | 300 |",
        "| scikit-learn, float64 | 2.50 | 3.50 | 3.80 (3.70, 3.90) | -72.0000, -61.5000 | 300 |",
    ]
