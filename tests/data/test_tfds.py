"""Data sets of tensorflow-datasets, from tiny files in the official formats; without network."""

import json
import os
import runpy
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import requests

from elbo_lab.data import load, tfds, tfds_builders, tfds_prepare
from tests.data import tfds_files
from tests.data.npz_files import refusal

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = "elbo_lab_images.npz"


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """(data_dir, manual_dir, arrays) of a small MNIST."""
    arrays = tfds_files.write_mnist(tmp_path / "files")
    tfds_files.register("mnist", tmp_path / "files", monkeypatch)
    return str(tmp_path / "prepared"), str(tmp_path / "files"), arrays


def check_mnist(dataset, arrays) -> None:
    assert dataset.name == "mnist" and dataset.image_shape == (28, 28)
    for split in ("train", "test"):
        x, y = getattr(dataset, f"x_{split}"), getattr(dataset, f"y_{split}")
        assert x.dtype == np.uint8 and y.dtype == np.int32
        np.testing.assert_array_equal(x, arrays[f"x_{split}"].reshape(-1, 784))
        np.testing.assert_array_equal(y, arrays[f"y_{split}"])


# --- the sets -----------------------------------------------------------------------------------


def test_mnist_has_pixels_and_order_of_its_files(mnist, no_network):
    data_dir, manual_dir, arrays = mnist
    check_mnist(load("mnist", data_dir, manual_dir), arrays)
    cache = Path(data_dir) / "mnist" / "3.0.1" / CACHE
    assert cache.exists()
    check_mnist(load("mnist", data_dir), arrays)  # from the cache
    stored = cache.read_bytes()
    directory = stored.rindex(b"PK\x01\x02")  # the last entry: its flags, and its method
    encrypted, unknown = (
        stored[: directory + i] + b"\x01" + stored[directory + i + 1 :] for i in (8, 10)
    )
    # From the array_record files.
    for content in (None, b"", stored[:5000], encrypted, unknown):
        cache.unlink() if content is None else cache.write_bytes(content)
        check_mnist(load("mnist", data_dir), arrays)
    assert no_network == [] and "tensorflow" not in sys.modules


def test_the_stock_builder_reads_what_was_prepared(mnist):
    import tensorflow_datasets

    data_dir, manual_dir, arrays = mnist
    load("mnist", data_dir, manual_dir)
    source = tensorflow_datasets.data_source(
        "mnist", split="test", data_dir=data_dir, builder_kwargs={"file_format": "array_record"}
    )
    # TFDS sorts by a hash; the first pixel is the image's number.
    examples = [(example["image"][0, 0, 0], example["label"]) for example in source]
    assert sorted(examples) == [(i, i % 10) for i in range(tfds_files.TEST)]
    assert examples != sorted(examples)


def test_a_read_only_folder(mnist, monkeypatch):
    data_dir, manual_dir, arrays = mnist

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tfds.tempfile, "NamedTemporaryFile", refuse)
    check_mnist(load("mnist", data_dir, manual_dir), arrays)
    assert not (Path(data_dir) / "mnist" / "3.0.1" / CACHE).exists()


def test_binarized_mnist_ends_with_the_validation_images(tmp_path, monkeypatch):
    arrays = tfds_files.write_binarized_mnist(tmp_path)
    tfds_files.register("binarized_mnist", tmp_path, monkeypatch)
    dataset = load("binarized_mnist", str(tmp_path / "prepared"), str(tmp_path))
    train = np.concatenate([arrays["train"], arrays["valid"]])
    np.testing.assert_array_equal(dataset.x_train, 255 * train)
    np.testing.assert_array_equal(dataset.x_test, 255 * arrays["test"])
    assert dataset.y_train is None and dataset.y_test is None


def test_emnist_stands_upright(tmp_path, monkeypatch):
    arrays = tfds_files.write_emnist(tmp_path)
    tfds_files.register("emnist", tmp_path, monkeypatch)
    dataset = load("emnist/letters", str(tmp_path / "prepared"), str(tmp_path))
    for split in ("train", "test"):
        upright = arrays[split].transpose(0, 2, 1).reshape(-1, 784)
        np.testing.assert_array_equal(getattr(dataset, f"x_{split}"), upright)
    np.testing.assert_array_equal(dataset.y_test, range(4))


def test_cifar10_has_colours(tmp_path, monkeypatch):
    arrays = tfds_files.write_cifar10(tmp_path)
    tfds_files.register("cifar10", tmp_path, monkeypatch)
    dataset = load("cifar10", str(tmp_path / "prepared"), str(tmp_path))
    assert dataset.image_shape == (32, 32, 3)
    for split in ("train", "test"):
        flat = arrays[split].reshape(-1, 3072)
        np.testing.assert_array_equal(getattr(dataset, f"x_{split}"), flat)
    np.testing.assert_array_equal(dataset.y_test, range(3))


# --- refusals -----------------------------------------------------------------------------------


def test_no_network_and_nothing_prepared(mnist, no_network):
    data_dir, manual_dir, _ = mnist
    message = refusal("mnist", data_dir)
    assert message.startswith(f"mnist is not prepared in --data_dir={data_dir}, and https://")
    assert "cannot be downloaded (ConnectionError); give a folder" in message
    assert "--manual_dir" in message and "train-images-idx3-ubyte.gz" in message
    assert len(no_network) == 1 and not (Path(data_dir) / "mnist").exists()


def test_a_server_that_does_not_answer(mnist, monkeypatch):
    never = threading.Event()

    def hang(url, **options):
        never.wait(20)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", hang)
    monkeypatch.setattr(tfds_prepare, "PATIENCE", 0.05)
    assert "cannot be downloaded (no answer)" in refusal("mnist", mnist[0])
    never.set()


def test_a_folder_without_the_files(mnist, tmp_path):
    data_dir, manual_dir, _ = mnist
    assert refusal("mnist", data_dir, "/nowhere") == "--manual_dir=/nowhere is not a folder."
    (Path(manual_dir) / "t10k-labels-idx1-ubyte.gz").unlink()
    message = refusal("mnist", data_dir, manual_dir)
    assert message.startswith(f"--manual_dir={manual_dir} has no t10k-labels-idx1-ubyte.gz; it")


def test_a_data_dir_that_is_a_file(tmp_path, no_network):
    file = tmp_path / "prepared"
    file.write_text("x")
    assert refusal("mnist", str(file)) == f"--data_dir={file} is a file, not a folder."
    inside = f"--data_dir={file}/sets lies in {file}, which is a file, not a folder."
    assert refusal("mnist", f"{file}/sets") == inside
    assert no_network == []


def test_files_that_are_not_the_official_ones(mnist):
    data_dir, manual_dir, arrays = mnist
    path = Path(manual_dir) / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    message = refusal("mnist", data_dir, manual_dir)
    assert message.startswith(
        f"--manual_dir={manual_dir} holds files that differ from the official"
    )
    assert "of mnist by their checksums: train-images-idx3-ubyte.gz; they" in message
    path.write_bytes(content)
    check_mnist(load("mnist", data_dir, manual_dir), arrays)


def test_a_download_that_is_not_the_official_file(mnist, monkeypatch):
    """The files in --manual_dir are official, so that the message must not blame them."""
    data_dir, manual_dir, _ = mnist

    def refuse(*arguments, **options):
        raise tfds_prepare.NonMatchingChecksumError("checksum")

    builder_class = tfds_builders.builder_class_for("mnist")
    monkeypatch.setattr(builder_class, "download_and_prepare", refuse)
    message = refusal("mnist", data_dir, manual_dir)
    assert message.startswith("A downloaded file of mnist differs from the registered file")


def test_a_set_prepared_for_tensorflow(mnist):
    data_dir, manual_dir, _ = mnist
    load("mnist", data_dir, manual_dir)
    folder = Path(data_dir) / "mnist" / "3.0.1"
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    text = json.dumps(info).replace("array_record", "tfrecord")
    (folder / "dataset_info.json").write_text(text)
    for path in folder.glob("*array_record*"):
        path.rename(str(path).replace("array_record", "tfrecord"))
    (folder / CACHE).unlink()
    message = refusal("mnist", data_dir, manual_dir)
    assert message.startswith(f"{folder} holds mnist as tfrecord, which cannot be read without")
    assert message.endswith(
        "give another --data_dir, in which it is then prepared as array_record."
    )


def test_unknown_names(tmp_path):
    data_dir = str(tmp_path)
    message = refusal("mnits", data_dir)
    assert "'mnits' is not a known dataset; choose from" in message and "omniglot" in message
    # TFDS's other spellings of a name would be other builders in the same folder.
    assert "'MNIST' is not a known dataset" in refusal("MNIST", data_dir)
    assert "its configurations are byclass, " in refusal("emnist/latin", data_dir)
    assert "mnist has no configuration 'x'; it has none" in refusal("mnist/x", data_dir)
    assert (
        refusal("imdb_reviews", data_dir) == "--dataset=imdb_reviews is not a set of 8-bit images."
    )
    assert refusal("voc", data_dir) == "--dataset=voc holds images of different sizes."


def test_a_builder_that_needs_tensorflow(tmp_path, monkeypatch):
    find = tfds_builders.importlib.util.find_spec
    monkeypatch.setattr(
        tfds_builders.importlib.util,
        "find_spec",
        lambda name: None if name in ("tensorflow", "h5py") else find(name),
    )
    # Found in the builder's code before any download: unpacking by TFDS, and files of HDF5.
    needed = {"horses_or_humans": ["tensorflow"], "patch_camelyon": ["h5py", "tensorflow"]}
    for name, packages in needed.items():
        assert tfds_builders.missing_packages(tfds_builders.builder_class_for(name)) == packages
    message = refusal("cifar100", str(tmp_path))
    assert "preparing it needs tensorflow, once: pip install tensorflow" in message


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ModuleNotFoundError("no", name="skimage.io"), "skimage: pip install scikit-image."),
        (ImportError("libfoo.so: no such file"), "a package that is not installed (libfoo.so: "),
    ],
)
def test_a_builder_whose_packages_are_missing(mnist, monkeypatch, error, remedy):
    """The package may be missing when the builder's module is imported, in its constructor, or only
    while it prepares.
    """
    data_dir, manual_dir, _ = mnist
    builder_class = tfds_builders.builder_class_for("mnist")

    def fail(*arguments, **options):
        raise error

    def fail_on_import():
        monkeypatch.setattr(tfds_builders.tfds, "builder_cls", fail)
        tfds_builders.builder_class_for.cache_clear()

    places = [
        lambda: monkeypatch.setattr(builder_class, "_split_generators", fail),
        lambda: monkeypatch.setattr(builder_class, "__init__", fail),
        fail_on_import,
    ]
    for make_fail in places:
        make_fail()
        assert refusal("mnist", data_dir, manual_dir).startswith(f"--dataset=mnist needs {remedy}")


def test_a_set_larger_than_memory(mnist, monkeypatch):
    data_dir, manual_dir, _ = mnist
    memory = types.SimpleNamespace(available=1000)
    monkeypatch.setattr(tfds.psutil, "virtual_memory", lambda: memory)
    message = refusal("mnist", data_dir, manual_dir)
    assert message.endswith("GiB of memory, which is more than is available.")


# --- interruptions ------------------------------------------------------------------------------


def test_an_interrupted_preparation_leaves_nothing(mnist, monkeypatch):
    data_dir, manual_dir, arrays = mnist
    examples = tfds_builders._idx_examples

    def interrupted(images, labels):
        yield from list(examples(images, labels))[:5]
        raise KeyboardInterrupt

    monkeypatch.setattr(tfds_builders, "_idx_examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("mnist", data_dir, manual_dir)
    assert not list((Path(data_dir) / "mnist").iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(requests, "get", None)
    tfds_files.register("mnist", Path(manual_dir), monkeypatch)
    check_mnist(load("mnist", data_dir, manual_dir), arrays)


def test_another_process_ends_its_preparation_first(mnist, monkeypatch):
    data_dir, manual_dir, arrays = mnist
    examples = tfds_builders._idx_examples

    def overtaken(images, labels):
        yield from list(examples(images, labels))[:5]
        monkeypatch.setattr(tfds_builders, "_idx_examples", examples)
        check_mnist(load("mnist", data_dir, manual_dir), arrays)
        yield from list(examples(images, labels))[5:7]

    monkeypatch.setattr(tfds_builders, "_idx_examples", overtaken)
    check_mnist(load("mnist", data_dir, manual_dir), arrays)


def test_another_process_prepares_just_before_the_preparation(mnist, monkeypatch):
    data_dir, manual_dir, arrays = mnist
    missing = tfds_prepare._missing_urls

    def overtaken(builder, folder):
        monkeypatch.setattr(tfds_prepare, "_missing_urls", missing)
        check_mnist(load("mnist", data_dir, manual_dir), arrays)
        return missing(builder, folder)

    monkeypatch.setattr(tfds_prepare, "_missing_urls", overtaken)
    check_mnist(load("mnist", data_dir, manual_dir), arrays)


# --- as a user ----------------------------------------------------------------------------------


def test_other_sets_do_not_import_tensorflow_datasets():
    code = "import sys; from elbo_lab import data; data.load('mnist_small'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert not {"tensorflow_datasets", "requests", "PIL"} & set(done.stdout.split())


@pytest.mark.slow
def test_a_run_on_mnist(tmp_path):
    """In a subprocess that registers the small files' checksums and then runs the script."""
    files, run = tmp_path / "files", tmp_path / "run"
    arguments = [
        *("--dataset=mnist", f"--manual_dir={files}", f"--data_dir={tmp_path / 'prepared'}"),
        *(f"--workdir={run}", "--epochs=2", "--batch_size=10", "--k=2", "--eval_k=4"),
        *("--hidden_dims=8", "--latent_dims=3", "--likelihood=discretized_logistic"),
        "--binarization=none",
    ]
    done = subprocess.run(
        [sys.executable, __file__, str(files), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "data       mnist, no binarization" in done.stdout
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"]["train_images"] == tfds_files.TRAIN
    results = {row["name"]: row for row in summary["results"]}
    nats, bits = results["log-likelihood"], results["bits per dimension"]
    assert bits["value"] == pytest.approx(-nats["value"] / (784 * np.log(2)), rel=1e-5)
    assert bits["unit"] == "bits per dimension" and bits["bound"] == "upper bound in expectation"


if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    tfds_files.write_mnist(folder)
    tfds_files.register("mnist", folder, pytest.MonkeyPatch())
    sys.argv[0] = "run.py"
    runpy.run_module("experiments.run", run_name="__main__")
