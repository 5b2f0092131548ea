"""Sets of tensorflow-datasets whose factors are known, which have one split.

The stock builders read files that the tests made, with the arrays of the official ones.
"""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from elbo_lab.cli import validation
from elbo_lab.configs import Config
from elbo_lab.data import hold_out, image_sets, load, tfds, tfds_builders
from elbo_lab.errors import UserError
from tests.data import tfds_files
from tests.data.npz_files import refusal

CACHE = "elbo_lab_images.npz"


@pytest.fixture
def dsprites(tmp_path, monkeypatch):
    """(data_dir, manual_dir, arrays) of a small dSprites."""
    arrays = tfds_files.write_dsprites(tmp_path)
    tfds_files.install_h5py(monkeypatch)
    tfds_files.register("dsprites", tmp_path, monkeypatch)
    monkeypatch.setitem(tfds_builders.HDF5_IMAGES, "dsprites", len(arrays["imgs"]))
    return str(tmp_path / "prepared"), str(tmp_path), arrays


def check_dsprites(dataset, arrays) -> None:
    """Checks images and factors in the file's order; the one orientation is no factor."""
    assert dataset.name == "dsprites" and dataset.image_shape == (64, 64)
    np.testing.assert_array_equal(dataset.x_train, 255 * arrays["imgs"].reshape(-1, 64 * 64))
    assert dataset.x_train.dtype == np.uint8 and dataset.x_test.shape == (0, 64 * 64)
    assert dataset.factors.names == ("shape", "scale", "x_position", "y_position")
    np.testing.assert_array_equal(dataset.factors.train, arrays["latents_classes"][:, [1, 2, 4, 5]])
    assert dataset.factors.train.dtype == np.int32 and dataset.factors.test.shape == (0, 4)
    np.testing.assert_array_equal(dataset.y_train, arrays["latents_classes"][:, 1])
    assert dataset.y_test is None


def test_dsprites_in_the_order_of_its_file(dsprites, no_network, monkeypatch):
    data_dir, manual_dir, arrays = dsprites
    monkeypatch.setattr(tfds, "BLOCK", 7)
    check_dsprites(load("dsprites", data_dir, manual_dir), arrays)
    assert (Path(data_dir) / "dsprites" / "2.0.0" / CACHE).exists()
    check_dsprites(load("dsprites", data_dir), arrays)  # from the cache
    assert no_network == [] and "tensorflow" not in sys.modules


def test_dsprites_is_split_as_its_npz_file(dsprites, tmp_path):
    data_dir, manual_dir, arrays = dsprites
    own = hold_out(load("dsprites", data_dir, manual_dir), 7)
    np.savez(tmp_path / "file.npz", **arrays)
    other = hold_out(load(str(tmp_path / "file.npz")), 7)
    for name in ("x_train", "x_test", "y_train", "y_test", "image_shape"):
        np.testing.assert_array_equal(getattr(own, name), getattr(other, name))
    for split in ("train", "test"):
        factors = getattr(other.factors, split)[:, [0, 1, 3, 4]]
        np.testing.assert_array_equal(getattr(own.factors, split), factors)
    assert own.notes == ("7 of its 24 images, drawn once, are the test images",)


def test_one_split_needs_to_hold_out_images(dsprites):
    dataset = load("dsprites", *dsprites[:2])
    with pytest.raises(
        UserError, match="--held_out must be at least 1 for dsprites, .* of its 24 images"
    ):
        validation.check_data(Config(batch_size=2), dataset)
    validation.check_data(Config(batch_size=2, held_out=7), dataset)


def test_shapes3d_has_colours_and_factors(tmp_path, monkeypatch):
    arrays = tfds_files.write_shapes3d(tmp_path)
    tfds_files.install_h5py(monkeypatch)
    tfds_files.register("shapes3d", tmp_path, monkeypatch)
    monkeypatch.setitem(tfds_builders.HDF5_IMAGES, "shapes3d", len(arrays["images"]))
    dataset = load("shapes3d", str(tmp_path / "prepared"), str(tmp_path))
    assert dataset.image_shape == (64, 64, 3)
    np.testing.assert_array_equal(dataset.x_train, arrays["images"].reshape(12, -1))
    assert dataset.factors.names == ("floor_hue", "object_hue", "shape")
    np.testing.assert_array_equal(dataset.factors.train, arrays["classes"][:, [0, 2, 4]])
    np.testing.assert_array_equal(dataset.y_train, arrays["classes"][:, 4])


def test_a_cache_without_factors_is_made_again(dsprites):
    data_dir, manual_dir, arrays = dsprites
    load("dsprites", data_dir, manual_dir)
    cache = Path(data_dir) / "dsprites" / "2.0.0" / CACHE
    with np.load(cache) as archive:
        images = archive["train:image"]
    with open(cache, "wb") as file:
        np.savez(file, **{"train:image": images})
    check_dsprites(load("dsprites", data_dir), arrays)
    with np.load(cache) as archive:
        assert "train:label_scale" in archive.files


def test_a_cache_of_a_set_without_factors_is_read(tmp_path, monkeypatch):
    tfds_files.write_mnist(tmp_path)
    tfds_files.register("mnist", tmp_path, monkeypatch)
    data_dir = str(tmp_path / "prepared")
    load("mnist", data_dir, str(tmp_path))
    stored = {
        f"{split}:{name}": value
        for split in ("train", "test")
        for name, value in (("image", np.full((3, 28, 28, 1), 9, np.uint8)), ("label", [1, 2, 3]))
    }
    np.savez(Path(data_dir) / "mnist" / "3.0.1" / CACHE, **stored)
    dataset = load("mnist", data_dir)
    assert np.all(dataset.x_train == 9) and list(dataset.y_test) == [1, 2, 3]
    assert dataset.factors is None


def test_sets_with_factors(tmp_path):
    """Features alone: preparing these two sets needs TensorFlow."""
    names = {}
    for name in ("smallnorb", "symmetric_solids"):
        builder = tfds_builders.builder_class_for(name)(data_dir=str(tmp_path))
        names[name] = list(tfds._integer_features(builder, "label"))
    assert names["smallnorb"] == [f"label_{n}" for n in SMALLNORB]
    assert names["symmetric_solids"] == ["label_shape"]


SMALLNORB = ("category", "elevation", "azimuth", "lighting")


def test_factors_of_two_splits():
    def arrays(number):
        values = {f"label_{n}": np.arange(number) % 3 + i for i, n in enumerate(SMALLNORB)}
        return {"image": np.full((number, 4, 4, 1), 7, np.uint8), **values}

    dataset = image_sets._dataset("smallnorb", arrays(5), arrays(2))
    assert dataset.factors.names == SMALLNORB
    np.testing.assert_array_equal(dataset.factors.test, [[0, 1, 2, 3], [1, 2, 3, 4]])
    np.testing.assert_array_equal(dataset.y_test, [0, 1])
    # One feature alone is the label.
    single = {name: arrays(5)[name] for name in ("image", "label_category")}
    dataset = image_sets._dataset("single", single)
    assert dataset.factors is None and list(dataset.y_train) == [0, 1, 2, 0, 1]


# --- refusals -----------------------------------------------------------------------------------


def test_h5py_is_not_installed(dsprites, monkeypatch):
    data_dir, manual_dir, _ = dsprites
    find = tfds_builders.importlib.util.find_spec
    monkeypatch.setattr(
        tfds_builders.importlib.util,
        "find_spec",
        lambda name: None if name == "h5py" else find(name),
    )
    message = refusal("dsprites", data_dir, manual_dir)
    assert message.startswith(f"dsprites is not prepared in --data_dir={data_dir}, and preparing ")
    assert "it needs h5py, once: pip install h5py, or give a folder in which it is" in message


def test_too_little_memory_is_found_before_the_preparation(dsprites, monkeypatch):
    data_dir, manual_dir, _ = dsprites
    monkeypatch.setitem(tfds_builders.HDF5_IMAGES, "dsprites", 737_280)
    memory = types.SimpleNamespace(available=2**32)
    monkeypatch.setattr(tfds.psutil, "virtual_memory", lambda: memory)
    message = refusal("dsprites", data_dir, manual_dir)
    # Two copies of 737,280 x 64 x 64 bytes are 5.6 GiB.
    expected = "--dataset=dsprites needs 6 GiB of memory, which is more than is available."
    assert message == expected and not (Path(data_dir) / "dsprites").exists()


def test_splits_without_a_training_split():
    info = types.SimpleNamespace(splits={"test": None, "extra": None})
    with pytest.raises(UserError, match="or the split train alone; it has test, extra.$"):
        tfds._splits(types.SimpleNamespace(name="some", info=info))
