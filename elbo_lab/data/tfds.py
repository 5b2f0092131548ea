"""Image sets of tensorflow-datasets (TFDS) as NumPy arrays, without TensorFlow.

Three steps, each of which is skipped where an earlier run has left its result in `data_dir`:

1. the official files are downloaded, or taken from `manual_dir`, and their checksums compared;
2. TFDS prepares them as array_record files, as for anyone who then calls `tfds.data_source`;
3. the images, decoded and in the official files' order, are kept beside those in one .npz file.

This module and what it needs is imported only when such a set is asked for.
"""

import contextlib
import hashlib
import importlib.util
import io
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from elbo_lab.data import tfds_builders
from elbo_lab.errors import UserError
from elbo_lab.files import DAMAGE

FILE_FORMAT = "array_record"
# Seconds that a server may take to answer before it counts as unreachable.
PATIENCE = 5
# Examples read and decoded together.
BLOCK = 1000

Arrays = dict[str, np.ndarray]
Builder = tfds.core.DatasetBuilder


def load(
    name: str,
    data_dir: str | None,
    manual_dir: str | None,
    splits: Sequence[str] | None = None,
    label: str = "label",
    convert: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Arrays]:
    """The splits of an image set; in the official files' order if those are plain arrays, else in
    that of TFDS.

    Args:
      name: TFDS's name of the set, with a configuration if it has several ("emnist/letters").
      data_dir: where prepared sets are kept; TFDS's own place (TFDS_DATA_DIR, or
        ~/tensorflow_datasets) if None.
      manual_dir: a folder that holds the official files, so that nothing is downloaded.
      splits: which splits; if None, train, and test or validation.
      label: which integer feature is the label, if the set has it.
      convert: what to make of each image [H, W, C].

    Returns:
      split -> {"image": [N, H, W, C], uint8, and "label": [N], int32, if there are labels}.

    Raises:
      UserError: the set can be neither found in `data_dir` nor prepared, or does not consist of
        images of one size that fit into memory; one sentence says why and what to do.
    """
    with _quiet():
        builder = _builder(name, data_dir)
        _check_features(builder)
        if not builder.is_prepared():
            _prepare(builder, manual_dir)
            builder = _builder(name, data_dir)  # Another process may have prepared it, not this.
        _check_format(builder)
        splits = _splits(builder) if splits is None else splits
        found = _read_cache(builder)
        if found is None or not set(splits) <= set(found):
            if convert is None:
                _check_memory(builder, splits)
            found = {split: _read_split(builder, split, label, convert) for split in splits}
            _write_cache(builder, found)
    return found


def _builder(name: str, data_dir: str | None) -> Builder:
    set_name, _, config = name.partition("/")
    if importlib.util.find_spec("array_record") is None:
        raise UserError(f"--dataset={name} needs array_record: pip install array_record.")
    try:
        builder_class = tfds_builders.of_set(set_name)
    except KeyError as error:
        raise UserError(f"tensorflow-datasets has no set {set_name!r}.") from error
    configs = list(builder_class.builder_configs)
    if config and config not in configs:
        valid = f"its configurations are {', '.join(configs)}" if configs else "it has none"
        raise UserError(f"--dataset={name}: {set_name} has no configuration {config!r}; {valid}.")
    if data_dir is not None:
        data_dir = os.path.abspath(os.path.expanduser(data_dir))
    try:
        builder = builder_class(data_dir=data_dir, config=config or None)
        _check_folder(Path(_root(builder)))
        return builder
    except OSError as error:
        raise UserError(f"--data_dir={data_dir} cannot be read ({error}).") from error
    except ImportError as error:
        raise UserError(tfds_builders.needs(name, error)) from error


def _check_folder(path: Path) -> None:
    """Refuses a place of prepared sets that is a file, or would lie in one."""
    place = next(p for p in (path, *path.parents) if p.exists())
    if not place.is_dir():
        inside = "" if place == path else f" lies in {place}, which"
        raise UserError(f"--data_dir={path}{inside} is a file, not a folder.")


def _check_format(builder: Builder) -> None:
    """Refuses what TFDS's users with TensorFlow have prepared in its usual format."""
    formats = {str(found.value) for found in builder.info.available_file_formats()}
    if FILE_FORMAT not in formats:
        raise UserError(
            f"{builder.data_dir} holds {builder.name} as {' and '.join(sorted(formats))}, which "
            f"cannot be read without TensorFlow; give another --data_dir, in which it is then "
            f"prepared as {FILE_FORMAT}."
        )


def _prepare(builder: Builder, manual_dir: str | None) -> None:
    """Official files -> array_record files. A preparation that is interrupted leaves nothing that
    counts as prepared, and where several go on at once the first to end gives the result.
    """
    if lacking := tfds_builders.lacking(type(builder)):
        raise UserError(
            f"{builder.name} is not prepared in --data_dir={_root(builder)}, and preparing it "
            f"needs {' and '.join(lacking)}, once: pip install {' '.join(lacking)}, or give a "
            f"folder in which it is prepared as {FILE_FORMAT} as --data_dir."
        )
    missing = _missing(builder, manual_dir)
    if missing:
        _check_reachable(builder, missing)
    config = tfds.download.DownloadConfig(
        manual_dir=None if manual_dir is None else os.path.abspath(os.path.expanduser(manual_dir)),
        try_download_gcs=False,  # Google's copies are TFRecord files.
    )
    print(f"Preparing {builder.name} in {builder.data_dir}, once.", file=sys.stderr)
    try:
        builder.download_and_prepare(download_config=config, file_format=FILE_FORMAT)
    except NonMatchingChecksumError as error:
        raise UserError(_wrong_files(builder, manual_dir)) from error
    except UserError:
        raise
    except ImportError as error:
        raise UserError(tfds_builders.needs(builder.name, error)) from error
    except Exception as error:  # a builder's own code may raise anything
        # Another process may have prepared the set meanwhile; its folder then is in the way.
        if builder.is_prepared():
            return
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"{builder.name} cannot be prepared in --data_dir={_root(builder)} ({reason})."
        ) from error


def _root(builder: Builder) -> str:
    return os.fspath(builder.data_dir_root)


def _urls(builder: Builder) -> list[str]:
    """What is downloaded: known of our builders; all registered of the others."""
    return list(builder.urls or builder.url_infos or ())


def _missing(builder: Builder, manual_dir: str | None) -> list[str]:
    """The URLs of files that are neither in `manual_dir` nor downloaded before.

    Raises:
      UserError: the folder is given, and has not all files of one of our builders.
    """
    infos = builder.url_infos or {}
    folder = None if manual_dir is None else Path(manual_dir).expanduser()
    if folder is not None and not folder.is_dir():
        raise UserError(f"--manual_dir={manual_dir} is not a folder.")
    lacking = [
        url for url in _urls(builder) if not (folder and (folder / infos[url].filename).is_file())
    ]
    if folder is not None and builder.urls and lacking:
        names = " and no ".join(infos[url].filename for url in lacking)
        raise UserError(
            f"--manual_dir={manual_dir} has no {names}; it must hold the official files of "
            f"{builder.name}, or be left away to download them."
        )
    downloads = Path(_root(builder)) / "downloads"
    names = {url: resource.get_dl_fname(url, infos[url].checksum) for url in lacking}
    return [
        url
        for url in lacking
        if not (downloads / names[url]).exists()
        and not (downloads / builder.name / names[url]).exists()
    ]


def _wrong_files(builder: Builder, manual_dir: str | None) -> str:
    """A sentence on files that are not the official ones."""
    if manual_dir is None:
        return f"What was downloaded for {builder.name} is not the registered file; try again."
    wrong = []
    for url in _urls(builder):
        info = builder.url_infos[url]
        path = Path(manual_dir).expanduser() / info.filename
        if path.is_file():
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != info.checksum:
                    wrong.append(info.filename)
    return (
        f"--manual_dir={manual_dir}: not the official file of {builder.name}, by its checksum: "
        f"{', '.join(wrong)}. It is damaged, or belongs to another set."
    )


def _check_reachable(builder: Builder, missing: list[str]) -> None:
    """Ends within seconds where no server answers, which TFDS would go on asking for minutes."""
    for url in {url.split("/")[2]: url for url in missing}.values():  # one for each server
        if (reason := _unreachable(url)) is not None:
            names = ", ".join(builder.url_infos[u].filename for u in missing)
            raise UserError(
                f"{builder.name} is not prepared in --data_dir={_root(builder)}, and {url} cannot "
                f"be downloaded ({reason}); give a folder with its official files ({names}) as "
                "--manual_dir, or one with the prepared set as --data_dir."
            )


def _unreachable(url: str) -> str | None:
    """Why a server does not give a file, or None."""
    found: list[str | None] = []

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=PATIENCE) as response:
                well = response.status_code == 200
                found.append(None if well else f"HTTP status {response.status_code}")
        except requests.RequestException as error:
            found.append(type(error).__name__)

    # In a thread, since looking up a server's name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE)
    return found[0] if found else "no answer"


def _splits(builder: Builder) -> list[str]:
    """The training split and the one to test on."""
    there = list(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in there), None)
    if "train" not in there or test is None:
        raise UserError(
            f"--dataset={builder.name} has no splits to train and to test on; it has "
            f"{', '.join(there)}."
        )
    return ["train", test]


def _check_features(builder: Builder) -> None:
    """Refuses what is no set of 8-bit images of one size."""
    features = builder.info.features
    image = features["image"] if "image" in features else None
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"--dataset={builder.name} is no set of 8-bit images.")
    if image.shape[-1] not in (1, 3):
        raise UserError(f"--dataset={builder.name} holds images that are neither grey nor RGB.")
    if None in image.shape:
        raise UserError(f"--dataset={builder.name} holds images of different sizes.")


def _check_memory(builder: Builder, splits: Sequence[str]) -> None:
    """Refuses images that do not fit into memory, where they are twice for a while."""
    number = sum(builder.info.splits[split].num_examples for split in splits)
    needed = 2 * number * math.prod(builder.info.features["image"].shape)
    if needed > psutil.virtual_memory().available:
        raise UserError(
            f"--dataset={builder.name} needs {needed / 2**30:.0f} GiB of memory, which is more "
            "than there is."
        )


def _read_split(
    builder: Builder, split: str, label: str, convert: Callable[[np.ndarray], np.ndarray] | None
) -> Arrays:
    """One split through `data_source`."""
    channels = builder.info.features["image"].shape[-1]
    # Pillow decodes all formats, and black and white to 0 and 255, which TFDS does not.
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    images, labels = [], []
    for first in range(0, len(source), BLOCK):
        block = source.__getitems__(range(first, min(first + BLOCK, len(source))))
        for example in block:
            image = _decoded(example["image"], channels)
            images.append(image if convert is None else convert(image))
            labels.append(int(example.get(label, -1)))
    order = _stored_order(builder, split, len(source))
    positions = np.argsort(order)
    arrays = {"image": np.stack([images[position] for position in positions])}
    if label in builder.info.features:
        arrays["label"] = np.asarray(labels, np.int32)[positions]
    return arrays


def _decoded(packed: bytes, channels: int) -> np.ndarray:
    with Image.open(io.BytesIO(packed)) as image:
        pixels = np.asarray(image.convert({1: "L", 3: "RGB"}[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _stored_order(builder: Builder, split: str, number: int) -> np.ndarray:
    """Position of each stored image in the official files.

    TFDS stores examples sorted by a hash of their keys.
    """
    if builder.info.disable_shuffling or not builder.numbered:
        return np.arange(number)
    hasher = hashing.Hasher(split)
    return np.asarray(sorted(range(number), key=hasher.hash_key))


def _cache_path(builder: Builder) -> Path:
    return Path(builder.data_dir) / "elbo_lab_images.npz"


def _read_cache(builder: Builder) -> dict[str, Arrays] | None:
    """What `_write_cache` has left, or None; a damaged file counts as none."""
    splits: dict[str, Arrays] = {}
    try:
        # np.load would leave a damaged file open.
        with open(_cache_path(builder), "rb") as file, np.load(file) as archive:
            for key in archive.files:
                split, feature = key.split(":")
                splits.setdefault(split, {})[feature] = archive[key]
    except DAMAGE:
        return None
    return splits or None


def _write_cache(builder: Builder, splits: dict[str, Arrays]) -> None:
    """Keeps the decoded splits beside the prepared ones; not where those may only be read.

    Decoding 70,000 images takes some ten seconds, reading them from here a tenth of one.
    """
    path = _cache_path(builder)
    arrays: dict[str, Any] = {
        f"{s}:{k}": x for s, found in splits.items() for k, x in found.items()
    }
    try:
        file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False)
    except OSError:
        return
    try:
        with file:
            np.savez(file, **arrays)
        os.chmod(file.name, 0o664)
        os.replace(file.name, path)
    except BaseException as error:
        os.unlink(file.name)
        if not isinstance(error, OSError):
            raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's lines on standard output, and its warnings of what is not prepared."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
