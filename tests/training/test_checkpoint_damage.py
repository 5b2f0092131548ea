"""Checkpoints that were damaged, or whose writing was interrupted, never give wrong values."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab.training import checkpoint

REPOSITORY = Path(checkpoint.__file__).resolve().parents[2]


def state(step: int) -> dict:
    """A state whose numbers are all the step; `restore` itself compares types and shapes."""
    return {"w": jnp.full((20, 30), step, jnp.float32), "n": jnp.full(2, step, jnp.uint32)}


def holds(got: dict, step: int) -> bool:
    return all((leaf == step).all() for leaf in got.values())


def flip(path: Path, at: float):
    data = bytearray(path.read_bytes())
    if data:
        data[int(at * (len(data) - 1))] ^= 0xFF
    path.write_bytes(data)


def change_digit(path: Path):
    # Subtler than a flipped byte: text that still parses, such as a shape or a type.
    path.write_bytes(path.read_bytes().replace(b"3", b"2").replace(b"uint", b"sint"))


DAMAGE = {
    **{f"flip {at}": lambda path, at=at: flip(path, at) for at in (0, 0.1, 0.35, 0.5, 0.75, 1)},
    "other digits": change_digit,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": os.remove,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    checkpoint.save(directory, 1, state(1))
    checkpoint.save(directory, 2, state(2))
    return directory


def restore_after_damage(directory) -> bool:
    """True if the newest checkpoint came back right; False if the one before it did."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step, got = checkpoint.restore(directory, state(0))
    assert holds(got, step)
    assert len(caught) == (step == 1)
    if step == 1:
        assert caught[0].category is checkpoint.CheckpointWarning
        assert str(directory / "step_00000002") in str(caught[0].message)
        assert sorted(os.listdir(directory)) == ["step_00000001"]
    return step == 2


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_never_gives_wrong_values(tmp_path, two_checkpoints, kind):
    newest = two_checkpoints / "step_00000002"
    files = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 5
    for number, file in enumerate(files):
        directory = tmp_path / str(number)
        shutil.copytree(two_checkpoints, directory)
        DAMAGE[kind](directory / "step_00000002" / file)
        unchanged = kind == "other digits" and same_bytes(directory, two_checkpoints, file)
        assert restore_after_damage(directory) == unchanged


def same_bytes(directory, other, file) -> bool:
    name = Path("step_00000002") / file
    return (directory / name).read_bytes() == (other / name).read_bytes()


def test_what_orbax_returns_is_verified_too(tmp_path, two_checkpoints):
    # The file's digest is made to agree, so that only the digest of the arrays shows the change.
    shutil.copytree(two_checkpoints, tmp_path / "copy")
    newest = tmp_path / "copy" / "step_00000002"
    value = np.full((20, 30), 2, np.float32).tobytes()
    (file,) = [path for path in newest.rglob("*") if path.is_file() and value in path.read_bytes()]
    changed = bytearray(file.read_bytes())
    changed[changed.index(value) + 1001] ^= 1
    file.write_bytes(changed)
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["files"][str(file.relative_to(newest))] = hashlib.sha256(changed).hexdigest()
    (newest / "manifest.json").write_text(json.dumps(manifest))
    assert not restore_after_damage(tmp_path / "copy")


@pytest.mark.parametrize("text", ["null", "[]", "{}", "[" * 900 + "]" * 900])
def test_a_manifest_of_nonsense(tmp_path, two_checkpoints, text):
    shutil.copytree(two_checkpoints, tmp_path / "copy")
    (tmp_path / "copy" / "step_00000002" / "manifest.json").write_text(text)
    assert not restore_after_damage(tmp_path / "copy")


@pytest.mark.parametrize(
    "changed",
    [
        *({"files": files} for files in (3, {}, ["d"], {"d": 1}, {"\0": ""}, {"nothing": "0"})),
        *({"leaves": leaves} for leaves in (None, {}, ["w"], [[[[[[]]]]]], [["w", "float32"]])),
        *({"digest": digest} for digest in (None, "0")),
    ],
)
def test_a_field_of_the_manifest_of_nonsense(tmp_path, two_checkpoints, changed):
    shutil.copytree(two_checkpoints, tmp_path / "copy")
    path = tmp_path / "copy" / "step_00000002" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert not restore_after_damage(tmp_path / "copy")


def test_empty_step_folders_and_nothing_left(tmp_path):
    checkpoint.save(tmp_path, 1, state(1))
    shutil.rmtree(tmp_path / "step_00000001")
    (tmp_path / "step_00000001").mkdir()
    (tmp_path / "step_00000002").mkdir()
    with pytest.warns(checkpoint.CheckpointWarning) as caught:
        assert checkpoint.restore(tmp_path, state(0)) is None
    assert len(caught) == 2
    assert sorted(os.listdir(tmp_path)) == []


@pytest.mark.parametrize("restore_first", [True, False])
def test_saving_after_damage(tmp_path, restore_first):
    checkpoint.save(tmp_path, 1, state(1))
    checkpoint.save(tmp_path, 2, state(0))
    for path in (tmp_path / "step_00000002").rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    if restore_first:
        assert not restore_after_damage(tmp_path)
    checkpoint.save(tmp_path, 2, state(2))
    assert restore_after_damage(tmp_path)


def test_leftovers_are_ignored_and_removed(tmp_path):
    checkpoint.save(tmp_path, 1, state(1))
    shutil.copytree(
        tmp_path / "step_00000001", tmp_path / "step_00000002.saving.orbax-checkpoint-tmp"
    )
    shutil.copytree(tmp_path / "step_00000001", tmp_path / "step_00000002.saving")
    shutil.copytree(tmp_path / "step_00000001", tmp_path / "step_00000003.1.removed")
    (tmp_path / "notes").mkdir()
    (tmp_path / "config.json").touch()
    assert checkpoint.restore(tmp_path, state(0))[0] == 1
    checkpoint.save(tmp_path, 2, state(2))
    assert sorted(os.listdir(tmp_path)) == [
        "config.json",
        "notes",
        "step_00000001",
        "step_00000002",
    ]


SAVE_FOR_EVER = """
import itertools, os, sys
import numpy as np, orbax.checkpoint
from elbo_lab.training import checkpoint
for directory in sys.argv[1:]:
    if os.fork() == 0:  # Importing once is what makes this test fast.
        log = open(directory + ".log", "w", buffering=1)
        print(os.getpid(), file=log)
        for step in itertools.count(1):
            state = {str(i): np.full((100, 20), step, np.int32) for i in range(10)}
            checkpoint.save(directory, step, state)
            print(step, file=log)
for _ in sys.argv[1:]:
    print(os.wait()[0], flush=True)
sys.stdin.read()
"""


def lines(log: Path) -> list[str]:
    return log.read_text().split("\n")[:-1] if log.exists() else []


def wait_for_first_save(log: Path) -> int:
    deadline = time.monotonic() + 60
    while len(lines(log)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return int(lines(log)[0])


def test_killed_while_saving(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    like = {str(i): jax.ShapeDtypeStruct((100, 20), np.int32) for i in range(10)}
    directories = [tmp_path / str(number) for number in range(5)]
    command = [sys.executable, "-W", "ignore", "-c", SAVE_FOR_EVER, *map(str, directories)]
    parent = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        for number, directory in enumerate(directories):
            log = Path(f"{directory}.log")
            pid = wait_for_first_save(log)
            time.sleep(0.017 * number)
            os.kill(pid, signal.SIGKILL)
            assert int(parent.stdout.readline()) == pid  # it has ended
            finished = int(lines(log)[-1])
            step, got = checkpoint.restore(directory, like)
            # The last step reported as saved, or the one whose save was interrupted.
            assert step in (finished, finished + 1)
            assert holds(got, step)
            checkpoint.save(directory, step + 1, got)
            assert len(os.listdir(directory)) == 2
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()
