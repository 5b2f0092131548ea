"""The benchmark of a step with each optimizer: its rows, its arithmetic, its tables."""

import contextlib
import os

import pytest

from benchmarks import merging, optimizers, parts, peers, workers
from benchmarks.peers import common, ours
from elbo_lab.optimizer_options import OPTIMIZER_OPTIONS
from tools import make_performance_tables

# Milliseconds of a step of each row, at a batch of 250.
MS = {
    "adam": 24.0,
    "adam_ema": 25.0,
    "adamax": 23.5,
    "schedule_free": 24.5,
    "sgd": 22.0,
    "muon": 50.0,
    "soap": 34.0,
    "soap_fixed_bases": 31.0,
    "soap_fixed": 29.0,
    "reference": 10.0,
}


class FakeWorker:
    """A worker whose steps take the milliseconds of its row."""

    def __init__(self, row: str, folder: str, steps: int, core: int | None):
        assert core == optimizers.last_core()
        self.row, self.steps = row, steps

    def ask(self, request: str, calls: int) -> dict[str, float]:
        assert request == "train"
        return {"seconds": calls * self.steps * MS[self.row] / 1e3}

    def close(self) -> None:
        pass


@pytest.fixture
def cell(monkeypatch):
    """What is measured at a batch of 250, by fake workers."""
    monkeypatch.setattr(optimizers, "task_folder", lambda *_: contextlib.nullcontext("folder"))
    monkeypatch.setattr(optimizers, "Worker", FakeWorker)
    return optimizers.measure_optimizers(250, rounds=3, burst=0.5)


def test_ratios_and_differences_are_those_of_the_steps(cell):
    assert (cell["batch"], cell["k"]) == (250, 5)
    assert set(cell["rows"]) == set(MS) - {"reference"}
    for row, line in cell["rows"].items():
        assert line["ms"] == pytest.approx(MS[row])
        assert line["over_reference"]["median"] == pytest.approx(MS[row] / 10)
        assert line["ms_beyond_gradient"]["median"] == pytest.approx(MS[row] - 22)
    parts_of_soap = {part: ms["median"] for part, ms in cell["soap_ms"].items()}
    assert parts_of_soap == pytest.approx({"rotations": 5.0, "factors": 2.0, "renewals": 3.0})


def test_batches_are_measured_in_turn_printed_and_made_a_table(cell, monkeypatch, capsys):
    def measure(batch, rounds, burst):
        return {**cell, "batch": batch}

    monkeypatch.setattr(optimizers, "measure_optimizers", measure)
    kept = []
    request = parts.Request(["optimizers"], [], [], 3, 0.1)
    parts.measure(request, lambda part, value: kept.append((part, list(value))))
    assert [(part, [c["batch"] for c in value]) for part, value in kept] == [
        ("optimizers", [100]),
        ("optimizers", [100, 250]),
        ("optimizers", [100, 250, 1000]),
    ]
    printed = " ".join(capsys.readouterr().out.split())
    assert "optimizers, B = 1000, k = 5 ms a step" in printed
    assert "adam, --ema=0.999 25.00 2.50 (2.50 2.50) 3.00 (3.00 3.00)" in printed
    assert "soap: rotations, ms 5.00 (5.00 5.00)" in printed
    run = {"device": "d", "processor": "p", "machine": "m", "command": "c", "date": "2026-01-02"}
    run |= {"python": "3.11", "versions": {}}
    figures = merging.merged({}, {**run, "optimizers": kept[1][1]})
    table = make_performance_tables.optimizers(figures).splitlines()
    assert table[0] == "| ms a step; relative | B = 100 | B = 250 |"
    assert table[2] == "| adam | 24.0; 2.40 (2.40, 2.40) | 24.0; 2.40 (2.40, 2.40) |"
    table = make_performance_tables.optimizers_alone(figures).splitlines()
    assert "| muon | 28.00 (28.00, 28.00) | 28.00 (28.00, 28.00) |" in table
    assert table[-1] == "| *soap: renewals* | 3.00 (3.00, 3.00) | 3.00 (3.00, 3.00) |"
    assert not any(line.startswith("| sgd ") for line in table)


def test_every_optimizer_has_a_row_with_its_own_settings():
    adam = (0.9, 0.999, 1e-4)
    task = common.Task(250, 5, 10, 1, "cpu", 1, 1e-3, adam, None, None, {})
    configs = {row: ours.config_of(task, **peers.ROWS[row].options) for row in MS}
    assert {config.optimizer for config in configs.values()} == set(OPTIMIZER_OPTIONS)
    assert {row for row, config in configs.items() if config.ema} == {"adam_ema"}
    batches = {row: config.batch_size for row, config in configs.items()}
    assert batches == dict.fromkeys(MS, 250) | {"reference": 100}
    periods = configs["soap_fixed"].optimizer_options
    assert periods.soap_frequency == periods.soap_factor_every == peers.NEVER


@pytest.mark.parametrize(("batch", "burst"), [(100, 0.01), (100, 0.4), (250, 1), (1000, 9)])
def test_calls_have_whole_periods_of_renewals(batch, burst):
    steps = optimizers.steps_of_call(batch, burst)
    assert steps % 10 == 0 and 10 <= steps <= common.NUM_IMAGES // batch


@pytest.mark.slow
@pytest.mark.parametrize("row", ["adam_ema", "muon", "schedule_free", "soap_fixed"])
def test_rows_train(row):
    with workers.task_folder(20, 5, num_images=100) as folder:
        task = common.read_task(folder, steps=10, replicates=1)
    peer = ours.make(task, **peers.ROWS[row].options)
    before = peer.bound()
    peer.train()  # raises if a step fails
    assert peer.bound() > before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen")
def test_workers_use_the_last_core_that_is_allowed(monkeypatch):
    assert optimizers.last_core() in os.sched_getaffinity(0)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert optimizers.last_core() is None
