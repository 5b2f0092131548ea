"""The embedded dataset is what its notice says; unknown names are refused clearly."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elbo_lab.data import DATASETS, Dataset, datasets, hold_out, is_binary, load, short_name
from elbo_lab.errors import UserError
from tests.data import npz_files

ROOT = Path(__file__).parents[2]
EMBEDDED = Path(datasets.__file__).with_name("mnist_small.npz")


@pytest.fixture(scope="module")
def embedded():
    with np.load(EMBEDDED) as archive:
        return {name: archive[name] for name in archive.files}


def test_mnist_small_has_the_documented_sizes_and_balance():
    data = load("mnist_small")
    assert isinstance(data, Dataset) and "mnist_small" in DATASETS
    assert data.name == "mnist_small" and data.image_shape == (28, 28)
    assert data.x_train.shape == (10_000, 784) and data.x_test.shape == (2_000, 784)
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    assert data.x_train.flags.c_contiguous and data.x_test.flags.c_contiguous
    np.testing.assert_array_equal(np.bincount(data.y_train), [1_000] * 10)
    np.testing.assert_array_equal(np.bincount(data.y_test), [200] * 10)
    assert data.y_train.dtype == data.y_test.dtype == np.int32
    assert not is_binary(data.x_train)


def test_the_training_images_alone_are_measured_by_held_out_ones():
    whole, alone = load("mnist_small"), load("training:mnist_small")
    assert alone.name == "training:mnist_small" and short_name(alone.name) == "mnist_small"
    assert alone.x_test.shape == (0, 784) and alone.y_test is None
    parts = hold_out(alone, 1_000)
    assert len(parts.x_train) == 9_000 and len(parts.x_test) == len(parts.y_test) == 1_000
    # Every training image is in one of the two splits, and no test image is in either.
    images = [np.concatenate([parts.x_train, parts.x_test]), whole.x_train, whole.x_test]
    together, train, test = ({row.tobytes() for row in x} for x in images)
    assert together == train and not together & test
    with pytest.raises(UserError, match="^'unknown' is not a known dataset"):
        load("training:unknown")


def test_mnist_small_is_shuffled_and_traceable(embedded):
    for split, size, official in (("train", 10_000, 60_000), ("test", 2_000, 10_000)):
        index = embedded[f"index_{split}"]
        assert index.shape == (size,) and index.dtype == np.uint16
        assert len(np.unique(index)) == size and index.max() < official
        # Any tenth of shuffled data holds every digit about equally often.
        counts = np.bincount(embedded[f"y_{split}"][: size // 10], minlength=10)
        assert counts.min() > size // 200 and counts.max() < size // 50


def test_mnist_small_has_the_pixels_and_digests_of_its_notice(embedded):
    notice = EMBEDDED.with_name("NOTICE.mnist_small.md").read_text(encoding="utf-8")
    committed = dict(re.findall(r"\| `(\w+)` \| ([0-9a-f]{64}) \|", notice))
    assert committed == {
        name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in embedded.items()
    }
    assert int(embedded["x_train"].sum(dtype=np.int64)) == 261_782_327
    assert int(embedded["x_test"].sum(dtype=np.int64)) == 53_557_849
    for text in ("CC BY-SA 3.0", "Yann LeCun and Corinna Cortes", "subset"):
        assert text in notice


def test_mnist_small_has_the_bytes_that_the_script_wrote():
    digest = hashlib.sha256(EMBEDDED.read_bytes()).hexdigest()
    assert digest == "64d1b48d14ac96b74649d410099f7a7b6aa3c951259b61e3f4de47ae5fefe028"


def test_loading_does_not_import_jax():
    code = "import sys, elbo_lab.data as d; d.load('mnist_small'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("x", "binary"),
    [
        (np.array([0, 255], np.uint8), True),
        (np.array([0, 1], np.uint8), False),
        (np.array([0, 1], np.float32), True),
        (np.array([0, 0.5], np.float32), False),
        (np.array([np.nan], np.float32), False),
        (np.array([True, False]), True),
    ],
)
def test_is_binary(x, binary):
    assert is_binary(x) is binary


def test_unknown_names_list_the_choices(tmp_path):
    message = npz_files.refusal("mnist_smal")
    for text in ("'mnist_smal'", "mnist_small", "ending in .npz"):
        assert text in message
    assert "is a folder" in npz_files.refusal(tmp_path)
    assert "'' is not a known dataset" in npz_files.refusal("")


def test_the_pinwheel_is_the_same_on_every_machine():
    dataset = load("pinwheel")
    assert (dataset.kind, dataset.image_shape) == ("real", (2,))
    assert (len(dataset.x_train), len(dataset.x_test)) == (2000, 1000)
    # By the formula, from the first numbers of NumPy's legacy generator, whose stream is fixed.
    rng = np.random.RandomState(2016)
    arms, radius, offset = rng.randint(5, size=3000), rng.randn(3000), rng.randn(3000)
    points = (1 + 0.3 * radius + 0.05j * offset) * np.exp(
        2j * np.pi * arms / 5 + 0.25j * np.exp(1 + 0.3 * radius)
    )
    x = np.concatenate([dataset.x_train, dataset.x_test])
    np.testing.assert_allclose(
        x, 1.4 * np.stack([points.real, points.imag], 1), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(np.concatenate([dataset.y_train, dataset.y_test]), arms)
