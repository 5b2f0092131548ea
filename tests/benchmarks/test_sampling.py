"""The benchmark of sampling: that all rows draw from the same model, and its figures. No time is
asserted.
"""

import importlib

import numpy as np
import pytest

from benchmarks import merging, parts, sampling, training, workers
from benchmarks.peers import DRAW_ROWS, OUR_DRAWS, OUR_RECOMPUTED_DRAWS, ROWS, common
from tools import make_performance_tables

SMALL = {"width": 4, "layers": 1, "first_kernel_size": 3, "output_width": 4}
WITH_PEERS = [name for name, sampled in sampling.SAMPLED.items() if sampled.has_peers]


def make_peer(row: str, task: common.Task) -> common.Peer:
    module = importlib.import_module(f"benchmarks.peers.{ROWS[row].module}")
    return module.make(task, **ROWS[row].options)


def task_of(name: str, batch: int) -> common.Task:
    sampled = sampling.SAMPLED[name]
    with workers.task_folder(batch, None, 8, sampled.model, sampled.options) as folder:
        return common.read_task(folder, steps=1, replicates=1)


def bound_of(peer: common.Peer) -> list[float]:
    return training.mean_and_error([peer.bound() for _ in range(8)])


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PEERS)
def test_pytorch_draws_from_the_same_model(name):
    """Losses agree, and so do means of the drawn values, within five standard errors."""
    pytest.importorskip("torch", exc_type=ImportError)
    sampled, number = sampling.SAMPLED[name], 64
    task = task_of(name, number)
    pair = make_peer(OUR_DRAWS, task), make_peer(DRAW_ROWS["pytorch"], task)
    training.check_agreement(name, *map(bound_of, pair))
    x = [np.asarray(peer.sample(sampled.values)) for peer in pair]
    assert x[0].shape == x[1].shape == (number, task.x.shape[1])
    if sampled.values != sampled.dim:
        x = [array[:, : sampled.values] for array in x]
    values = [array.mean(1) / max(1, x[0].max()) for array in x]
    error = np.sqrt(sum(v.var(ddof=1) / number for v in values))
    assert error > 0
    assert abs(values[0].mean() - values[1].mean()) < 5 * error


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compilation")
def test_both_ways_of_drawing_are_timed():
    sampled = sampling.SAMPLED["pixelrnn_row"]
    small = sampled._replace(options=sampled.options | SMALL, values=1)
    cell = sampling.measure_sampling("pixelrnn_row", ["pytorch_draws"], 3, print, small, batch=2)
    assert (cell["model"], cell["batch"]) == ("pixelrnn_row", 2)
    # PyTorch has no PixelRNN.
    assert list(cell["rows"]) == [OUR_DRAWS, OUR_RECOMPUTED_DRAWS]
    assert all(line["ms"] > 0 for line in cell["rows"].values())
    assert cell["rows"][OUR_DRAWS]["ours_over_this"]["median"] == 1


def line_of(ms: float, ratio: float) -> dict:
    spread = {"median": ratio, "quartiles": [ratio - 0.5, ratio + 0.5]}
    return {"ms": ms, "ours_over_this": spread, "bound": [-310.125, 0.0]}


def test_models_are_measured_in_turn_printed_and_kept(monkeypatch, capsys):
    def measure(name, rows, rounds, say):
        lines = {row: line_of(2.5, 40.0) for row in (OUR_DRAWS, *rows)}
        return {"model": name, "batch": 128, "rows": lines}

    monkeypatch.setattr(sampling, "measure_sampling", measure)
    kept = []
    request = parts.Request(["sampling"], [], ["pytorch", "pyro"], 3, 0.1)
    parts.measure(request, lambda part, value: kept.append((part, [c["model"] for c in value])))
    names = list(sampling.SAMPLED)
    assert kept == [("sampling", names[: i + 1]) for i in range(len(names))]
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if line.startswith("sampling: ")]
    assert heads[0] == "sampling: PixelCNN, 128 at once" and len(heads) == len(names)
    assert "40.00 (39.50 40.50)" in lines[2] and "PyTorch" in lines[3]


def test_the_table_of_sampling():
    cell = {
        "model": "text",
        "batch": 128,
        "rows": {OUR_DRAWS: line_of(0.25, 1.0), "pytorch_draws": line_of(0.5, 2.0)},
    }
    here = {"device": "cpu, 2 cores", "processor": "a processor", "machine": "x86_64"}
    run = {"command": "a command", "date": "2026-01-02", "python": "3.11", "versions": {}}
    figures = merging.merged({}, {**here, **run, "sampling": [cell]})
    assert make_performance_tables.sampling(figures).splitlines()[2:] == [
        "| texts, position-wise | this library | 0.25 | 4,000 |  | -310.12 |",
        "|  | PyTorch eager | 0.5 | 2,000 | 2.00 (1.50, 2.50) | -310.12 |",
    ]
