"""tools/make_mnist_small.py, on tiny files in the format of the official ones."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elbo_lab.data import load
from elbo_lab.errors import UserError
from tools import make_mnist_small

ROOT = Path(__file__).parents[2]


def _idx(array):
    """Bytes of a gzipped IDX file of unsigned bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def fake_mnist(tmp_path):
    """Four tiny files in the official format: their folder, digests and arrays."""
    folder, digests, official = tmp_path / "idx", {}, {}
    folder.mkdir()
    rng = np.random.RandomState(1)
    for split, prefix, size in (("train", "train", 80), ("test", "t10k", 50)):
        x = rng.randint(0, 256, (size, 3, 2))
        y = rng.permutation(np.arange(size) % 10)
        official[split] = x, y
        for name, array in ((f"{prefix}-images-idx3", x), (f"{prefix}-labels-idx1", y)):
            data = _idx(array)
            (folder / f"{name}-ubyte.gz").write_bytes(data)
            digests[f"{name}-ubyte.gz"] = hashlib.sha256(data).hexdigest()
    return folder, digests, official


def test_script_takes_a_balanced_traceable_subset(fake_mnist, tmp_path):
    folder, digests, official = fake_mnist
    arrays = make_mnist_small.build(folder, digests, {"train": ("train", 5), "test": ("t10k", 2)})
    for split, per_class in (("train", 5), ("test", 2)):
        x, y = official[split]
        index = arrays[f"index_{split}"]
        assert len(set(index.tolist())) == 10 * per_class
        np.testing.assert_array_equal(arrays[f"x_{split}"], x[index])
        np.testing.assert_array_equal(arrays[f"y_{split}"], y[index])
        np.testing.assert_array_equal(np.bincount(y[index]), [per_class] * 10)
        assert np.any(np.diff(y[index].astype(int)) < 0)  # not sorted by digit
    path = tmp_path / "made.npz"
    path.write_bytes(make_mnist_small.to_npz(arrays))
    data = load(str(path))
    np.testing.assert_array_equal(data.x_train, arrays["x_train"].reshape(50, 6))
    np.testing.assert_array_equal(data.y_test, arrays["y_test"])


def test_script_writes_identical_bytes_twice(fake_mnist, monkeypatch):
    folder, digests, _ = fake_mnist
    splits = {"train": ("train", 5), "test": ("t10k", 2)}
    first = make_mnist_small.to_npz(make_mnist_small.build(folder, digests, splits))
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert make_mnist_small.to_npz(make_mnist_small.build(folder, digests, splits)) == first


def test_script_refuses_other_files(fake_mnist, tmp_path):
    folder, digests, _ = fake_mnist
    with pytest.raises(UserError, match="train-images.* is not the official file: its sha256 is"):
        make_mnist_small.build(folder)
    with pytest.raises(UserError, match="There are 5 examples of 0, but 6 are needed"):
        make_mnist_small.build(folder, digests, {"test": ("t10k", 6)})
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="lacks the official MNIST files t10k-labels-idx1"):
        make_mnist_small.build(folder, digests)
    path = tmp_path / "other.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01"))
    with pytest.raises(UserError, match="not an IDX file"):
        make_mnist_small.read_idx(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--idx_dir=/no/such/folder"], "/no/such/folder is not a folder"),
        (["--idx_dir=."], "lacks the official MNIST files"),
        ([], "--idx_dir"),
        (["folder"], "Flags are given as --name=value; got 'folder'."),
    ],
)
def test_script_refuses_in_one_sentence(tmp_path, arguments, expected):
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-m", "tools.make_mnist_small", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and result.stdout == ""
    assert expected in result.stderr and len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
