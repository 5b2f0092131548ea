"""Rows that are computed from trained runs: which runs, what is missing, what is written when."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from elbo_lab.runs import rundir
from elbo_lab.studies import analysed_runs, stored_results
from elbo_lab.studies.analysed_runs import Part
from elbo_lab.sweeps import sweep_results

ROW = {"seed": int, "source": str, "n": int}
KIND = {"rows": list[ROW], "about": str}


class Loaded(NamedTuple):
    """What is read of a trained run."""

    name: str
    dataset: list[str]
    config: Any


def load(path, replicate):
    config = SimpleNamespace(dataset="a" if path.name != "z" else "b", held_out=0)
    return Loaded(f"{path.name} {replicate}", [config.dataset], config)


def cell(name, replicates, **failures):
    runs = [{"run": f"runs/{name}", "replicate": r} for r in range(replicates)]
    return {"values": {"name": name}, "runs": runs, "failures": failures}


SKIPPED = {"values": {}, "status": "skipped"}


def test_the_runs_are_those_of_all_cells_and_hold_equal_data_once(tmp_path):
    cells = [cell("x", 2), SKIPPED, cell("y", 1), cell("z", 1)]
    runs = analysed_runs.trained_runs(tmp_path, {"cells": cells}, load)
    assert [run.trained.name for run in runs] == ["x 0", "x 1", "y 0", "z 0"]
    assert [run.place for run in runs[1:3]] == [("runs/x", 1), ("runs/y", 0)]
    assert [run.cell["values"]["name"] for run in runs] == ["x", "x", "y", "z"]
    datasets = [run.trained.dataset for run in runs]
    assert datasets[0] is datasets[1] is datasets[2] and datasets[3] == ["b"]


def test_no_run_is_loaded_while_a_cell_waits_or_for_a_folder_that_cannot_be_written(
    tmp_path, monkeypatch
):
    waiting = {"cells": [cell("x", 1), cell("y", 0, **{"0": sweep_results.WAITING})]}
    assert analysed_runs.trained_runs(tmp_path, waiting, load=None) == []
    diverged = {"cells": [cell("x", 1), cell("y", 0, **{"0": "training diverged"})]}
    assert len(analysed_runs.trained_runs(tmp_path, diverged, load)) == 1
    monkeypatch.setattr(rundir, "is_read_only", lambda path: True)
    assert analysed_runs.trained_runs(tmp_path, diverged, load=None) == []


def test_a_killed_computation_goes_on_and_rows_of_other_checkpoints_are_dropped(tmp_path, capsys):
    file, begun, fatal = tmp_path / "rows.json", [], {1}

    def part(seed, source):
        def rows():
            begun.append((seed, source))
            yield {"n": 10 * seed}
            if seed in fatal:
                raise KeyboardInterrupt
            yield {"n": 10 * seed + 1}

        return Part({"seed": seed, "source": source}, rows)

    def compute(*parts):
        content = stored_results.read_undamaged(file, KIND) or {"rows": []}
        content |= {"about": "x"}
        analysed_runs.compute_missing(file, content, parts, "numbers", "fits", each=2)

    def numbers():
        return [row["n"] for row in stored_results.read_undamaged(file, KIND)["rows"]]

    # Replicates of a run have the same checkpoint.
    parts = [part(seed, "a") for seed in (0, 1, 2)]
    with pytest.raises(KeyboardInterrupt):
        compute(*parts)
    assert numbers() == [0, 1]  # half of a part is not kept
    fatal.clear()
    capsys.readouterr()
    compute(*parts)
    assert begun == [(0, "a"), (1, "a"), (1, "a"), (2, "a")] and numbers() == [0, 1, 10, 11, 20, 21]
    assert "numbers 6/6 fits" in capsys.readouterr().err
    before = file.stat().st_mtime_ns
    compute(*parts)
    assert (capsys.readouterr().err, file.stat().st_mtime_ns, len(begun)) == ("", before, 4)
    compute(parts[0], part(1, "b"), parts[2])
    assert begun[4:] == [(1, "b")] and numbers() == [0, 1, 20, 21, 10, 11]
    file.write_text("{}")  # damaged: all is computed again
    compute(parts[0])
    assert begun[5:] == [(0, "a")] and numbers() == [0, 1]
