"""Run directories that are damaged, moved, read-only, or on another system."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.runs import run_files, rundir
from elbo_lab.training import checkpoint

DATA = "0123"
MOVE = "move it away."
DEFAULT = Config()


def claim(path, config: Config = DEFAULT, overwrite: bool = False) -> None:
    with rundir.claim(str(path), config, DATA, overwrite):
        pass


def refusal(path, config: Config = DEFAULT, overwrite: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        claim(path, config, overwrite)
    assert "\n" not in str(caught.value)
    return str(caught.value)


DAMAGED = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "emptied": lambda path: path.write_text(""),
    "lost": Path.unlink,
    "no digest": lambda path: path.write_text(json.dumps({"config": {}})),
    "other types": lambda path: path.write_text(
        json.dumps({"config": {"k": "five"}, "data_sha256": DATA})
    ),
    "nested": lambda path: path.write_text("[" * 900 + "]" * 900),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with a checkpoint, whose note has a copy of config.json."""
    path = tmp_path_factory.mktemp("saved")
    with rundir.claim(str(path), DEFAULT, DATA, False), rundir.Watch(path) as watch:
        note = {**watch.config, "seconds": 1.5}
        checkpoint.save(path / "checkpoints", 1, np.zeros(1, np.float32), note=note)
    return path


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_configuration_that_is_damaged_is_restored_from_the_checkpoint(tmp_path, saved, kind):
    shutil.copytree(saved, tmp_path / "run")
    stored = (saved / "config.json").read_text()
    DAMAGED[kind](tmp_path / "run" / "config.json")
    # A sweep reads runs without claiming them.
    assert rundir.stored_replicas(tmp_path / "run") == rundir.stored_replicas(saved)
    with pytest.warns(DamageWarning, match="config.json.*; restored from a checkpoint"):
        claim(tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == stored
    claim(tmp_path / "run")
    DAMAGED[kind](tmp_path / "run" / "config.json")
    with pytest.warns(DamageWarning):
        assert "k: 7 here, 5 there" in refusal(tmp_path / "run", Config(k=7))
    DAMAGED[kind](tmp_path / "run" / "config.json")
    claim(tmp_path / "run", Config(k=7), overwrite=True)
    left = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert left == [".lock", "config.json"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["k"] == 7


def test_replicates_are_restored_too(tmp_path):
    runs = [Config(seed=seed) for seed in (9, 4)]
    shared = Config(seed=9, replicates=2)

    def claimed():
        return rundir.claim(str(tmp_path), shared, DATA, False, runs)

    with claimed(), rundir.Watch(tmp_path) as watch:
        state = np.zeros(1, np.float32)
        checkpoint.save(tmp_path / "checkpoints", 1, state, note={**watch.config, "seconds": 1.5})
    before = rundir.stored_replicas(tmp_path)
    (tmp_path / "config.json").unlink()
    assert rundir.stored_replicas(tmp_path) == before
    assert [configs.from_dict(fields) for fields in before[0]] == runs
    with pytest.warns(DamageWarning), claimed():
        assert rundir.stored_replicas(tmp_path) == before


def test_another_programs_configuration_in_place_of_the_runs_is_kept(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.warns(DamageWarning, match="config is missing"):
        claim(tmp_path / "run")
    assert (tmp_path / "run" / "config.json.damaged").read_text() == '{"model_type": "bert"}'


def test_a_damaged_file_that_cannot_be_set_aside_is_one_sentence(tmp_path, saved):
    path = tmp_path / "run"
    shutil.copytree(saved, path)
    (path / "config.json").write_text("{")
    (path / "config.json.damaged" / "other").mkdir(parents=True)
    assert refusal(path) == f"{path / 'config.json'} is damaged; move it away (Is a directory)."


LINE = {"step": 6, "bound": -1.0, "kl": 1.0, "reconstruction": -2.0, "seconds": 1.0}


@pytest.mark.parametrize("name", ["summary.json", "evaluation.npz", "metrics.jsonl"])
def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path, name):
    claim(tmp_path)
    (tmp_path / name).mkdir()
    assert refusal(tmp_path) == f"{tmp_path / name} is a folder where the run has a file; " + MOVE


@pytest.mark.parametrize("name", ["figures", "tensorboard", "checkpoints"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path, name):
    claim(tmp_path)
    (tmp_path / name).write_text("")
    assert refusal(tmp_path) == f"{tmp_path / name} is a file where the run has a folder; " + MOVE


@pytest.mark.parametrize("left", ["metrics.jsonl", "checkpoints"])
def test_a_damaged_run_without_a_copy_can_be_overwritten(tmp_path, left):
    path = tmp_path / "run"
    claim(path)
    if left == "metrics.jsonl":
        (path / left).write_text(json.dumps(LINE) + "\n")
    else:  # of a version that kept no notes
        checkpoint.save(path / left, 1, np.zeros(1, np.float32))
    (path / "config.json").write_text("{")
    message = refusal(path)
    assert "config.json is not valid JSON" in message
    assert "no checkpoint has a copy of it; --overwrite starts the run anew" in message
    claim(path, overwrite=True)
    assert sorted(p.name for p in path.iterdir()) == [".lock", "config.json"]


def test_a_directory_that_is_moved_or_removed_is_noticed(tmp_path):
    path = tmp_path / "run"
    with rundir.claim(str(path), DEFAULT, DATA, False), rundir.Watch(path) as watch:
        watch.check()
        path.rename(tmp_path / "moved")
        with pytest.raises(UserError, match="was moved or removed while its run was writing"):
            watch.check()
        # It explains other errors.
        with (
            pytest.raises(UserError, match="was moved or removed"),
            rundir.Watch(tmp_path / "moved") as other,
        ):
            other.path = path
            raise UserError("cannot write metrics.jsonl: No such file or directory")
        (tmp_path / "moved").rename(path)
        watch.check()
        shutil.rmtree(path)
        claim(path)  # another run in its place
        with pytest.raises(UserError, match="was moved or removed"):
            watch.check()


@pytest.fixture
def read_only(monkeypatch):
    """Files cannot be opened for writing; permissions do not stop root."""

    def refuse(file, mode="r", *args, **kwargs):
        if mode[0] in "wax":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))
        return open(file, mode, *args, **kwargs)

    def apply():
        monkeypatch.setattr(rundir, "open", refuse, raising=False)

    return apply


def test_a_complete_run_on_a_read_only_disk_can_be_read(tmp_path, read_only):
    claim(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    read_only()
    assert rundir.is_read_only(tmp_path)
    claim(tmp_path)
    assert "k: 7 here, 5 there" in refusal(tmp_path, Config(k=7))
    assert "cannot be written: Read-only file system" in refusal(tmp_path, overwrite=True)
    (tmp_path / "summary.json").unlink()
    assert "cannot be written: Read-only file system" in refusal(tmp_path)


WITHOUT_FCNTL = """
import subprocess, sys, types  # before the false msvcrt, which subprocess would import
held = []
def locking(descriptor, mode, size):
    if held:
        raise PermissionError(13, "Permission denied")
    held.append((mode, size))
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
from elbo_lab.runs import rundir
with rundir.locked(sys.argv[1]):
    print(held)
    try:
        with rundir.locked(sys.argv[1]):
            print("twice")
    except ValueError as error:
        print(error)
"""


def test_windows_locks_with_msvcrt(tmp_path):
    command = [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "[(2, 1)]",
        f"--workdir={tmp_path} is in use by another process.",
    ], done.stderr


ROW = {
    **{"symbol": "", "standard_error": None, "over": None, "unit": "s", "bound": None},
    **{"k": None, "split": None, "count": None},
}
SUMMARY = {
    **{"elbo_lab": "1", "jax": "1", "device": "cpu", "steps": 12},
    "config": configs.to_dict(Config(replicates=2)),
    "data": {
        **{"name": "blobs", "binarization": "none", "image_shape": [8, 8]},
        **{"train_images": 60, "test_images": 23, "kind": "image"},
    },
    **{"terms": ["bound"], "headline": "elbo", "figures": ["samples"]},
    "measured": {"elbo": [23], "means_1": [23, 50]},
    "failed_at": {"0": -1, "1": 7},
    "failed_replicates": [1],
    "replicas": [configs.to_dict(Config(seed=seed)) for seed in (0, 1)],
    "results": [ROW | {"name": name, "value": None} for name in ("wall time of training", "speed")],
}


def test_a_valid_summary(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    assert run_files.read_summary(tmp_path) == SUMMARY
    assert all(map(math.isnan, run_files.timing(SUMMARY)))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("results", None, "results must be a list; got null"),
        ("results", [], "results lack wall time of training"),
        ("results", [{}], "results.0.name is missing"),
        ("results", [SUMMARY["results"][0] | {"value": "fast"}], "results.0.value must be a"),
        ("data", {}, "data.name is missing"),
        ("failed_at", None, "failed_at must be an object"),
        ("failed_at", {"0": -1}, "it is not of 2 replicates"),
        ("failed_at", {"0": -1, "x": 3}, "it is not of 2 replicates"),
        ("replicas", [{}], "it is not of 2 replicates"),
        ("config", {}, "config.replicates is missing"),
        ("steps", "12", "steps must be a whole number"),
        ("terms", "bound", "terms must be a list"),
        ("measured", {"elbo": 23}, "measured.elbo must be a list"),
        ("figures", [1], "figures.0 must be a string"),
    ],
)
def test_an_invalid_summary_is_one_sentence(tmp_path, name, value, words):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | {name: value}))
    with pytest.raises(UserError, match=words) as caught:
        run_files.read_summary(tmp_path)
    assert f"{tmp_path / 'summary.json'} is damaged: " in str(caught.value)
