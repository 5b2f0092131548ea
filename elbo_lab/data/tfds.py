"""Image sets of tensorflow-datasets (TFDS) as NumPy arrays, without TensorFlow.

Three steps, each of which is skipped where an earlier run has left its result in `data_dir`:

1. the official files are downloaded, or taken from `manual_dir`, and their checksums compared;
2. TFDS prepares them as array_record files, like any other user's `tfds.data_source`;
3. the images, decoded and in the official files' order, are kept beside those in one .npz file.

This module and what it needs is imported only when such a set is asked for.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import requests
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from elbo_lab.data import tfds_builders
from elbo_lab.errors import UserError

FILE_FORMAT = "array_record"
# Seconds that a server may take to answer before it counts as unreachable.
PATIENCE = 5

Arrays = dict[str, np.ndarray]


def load(name: str, data_dir: str | None, manual_dir: str | None) -> dict[str, Arrays]:
    """The splits of an image set, in the order in which its official files hold the images.

    Args:
      name: TFDS's name of the set, with a configuration where it has several ("emnist/letters").
      data_dir: where prepared sets are kept; TFDS's own place (TFDS_DATA_DIR, or
        ~/tensorflow_datasets) if None.
      manual_dir: a folder that holds the official files, so that nothing is downloaded.

    Returns:
      split -> {"image": [N, H, W, C], uint8, and "label": [N], int32, if there are labels}.

    Raises:
      UserError: the set can be neither found in `data_dir` nor prepared; one sentence says why
        and what to do.
    """
    builder = _builder(name, data_dir)
    with _quiet():
        if not builder.is_prepared():
            _prepare(builder, manual_dir)
    splits = _read_cache(builder)
    if splits is None:
        splits = {split: _read_split(builder, split) for split in builder.info.splits}
        _write_cache(builder, splits)
    return splits


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Ours where the stock builder needs TensorFlow."""
    data_dir = None if data_dir is None else os.path.abspath(os.path.expanduser(data_dir))
    return tfds_builders.make(name, data_dir, FILE_FORMAT)


def _prepare(builder: tfds.core.DatasetBuilder, manual_dir: str | None) -> None:
    """Official files -> array_record files. A preparation that is interrupted leaves nothing that
    counts as prepared, and of several at once one gives the result.
    """
    if manual_dir is not None:
        manual_dir = _checked_manual_dir(builder, manual_dir)
    else:
        _check_reachable(builder)
    config = tfds.download.DownloadConfig(
        manual_dir=manual_dir,
        # Google's copies are TFRecord files.
        try_download_gcs=False,
        force_checksums_validation=True,
    )
    print(f"Preparing {builder.name} in {builder.data_dir}, once.", file=sys.stderr)
    try:
        builder.download_and_prepare(download_config=config)
    except NonMatchingChecksumError as error:
        raise UserError(f"{_wrong_file(builder, manual_dir)}") from error
    except OSError as error:
        # Another process has prepared the set in the meantime, and its folder is in the way.
        if not builder.is_prepared():
            raise UserError(
                f"{builder.name} cannot be prepared in --data_dir={_root(builder)} ({error})."
            ) from error
        builder.info.read_from_directory(builder.data_dir)


def _root(builder: tfds.core.DatasetBuilder) -> str:
    return os.fspath(builder.data_dir_root)


def _checked_manual_dir(builder: tfds.core.DatasetBuilder, manual_dir: str) -> str:
    """The folder, if it holds all files that the set is made of."""
    folder = Path(manual_dir).expanduser().absolute()
    names = [builder.url_infos[url].filename for url in builder.urls]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        what = "does not exist" if not folder.is_dir() else f"has no {' and no '.join(missing)}"
        raise UserError(
            f"--manual_dir={manual_dir} {what}; it must hold the official files of {builder.name} "
            f"({', '.join(names)}), or be left away to download them."
        )
    return os.fspath(folder)


def _wrong_file(builder: tfds.core.DatasetBuilder, manual_dir: str | None) -> str:
    """A sentence on a file that is not the official one."""
    if manual_dir is None:
        return f"What was downloaded for {builder.name} is not the registered file; try again."
    wrong = []
    for url in builder.urls:
        info = builder.url_infos[url]
        path = Path(manual_dir) / info.filename
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != info.checksum:
                wrong.append(info.filename)
    return (
        f"--manual_dir={manual_dir}: {' and '.join(wrong)} differs from the official file of "
        f"{builder.name} (another checksum); it is damaged, or of another data set."
    )


def _check_reachable(builder: tfds.core.DatasetBuilder) -> None:
    """Ends within seconds where files have to be downloaded and no server answers, which TFDS
    would go on trying for minutes.
    """
    downloads = Path(_root(builder)) / "downloads"
    for url in builder.urls:
        file = resource.get_dl_fname(url, builder.url_infos[url].checksum)
        cached = [downloads / file, downloads / builder.name / file]
        if any(path.exists() for path in cached):
            continue
        if (reason := _unreachable(url)) is not None:
            names = ", ".join(builder.url_infos[url].filename for url in builder.urls)
            raise UserError(
                f"{builder.name} is not prepared in --data_dir={_root(builder)}, and {url} cannot "
                f"be downloaded ({reason}); give a folder with the official files ({names}) as "
                "--manual_dir, or one with the prepared set as --data_dir."
            )
        return  # the other files lie on the same server


def _unreachable(url: str) -> str | None:
    """Why a server gives no such file, or None."""
    found: list[str | None] = []

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=PATIENCE) as response:
                well = response.status_code == 200
                found.append(None if well else f"HTTP status {response.status_code}")
        except requests.RequestException as error:
            found.append(type(error).__name__)

    # In a thread, since looking up a name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE)
    return found[0] if found else "no answer"


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Arrays:
    """One split through `data_source`, in the official order."""
    with _quiet():
        source = builder.as_data_source(split)
        number = len(source)
        labelled = "label" in builder.info.features
        image = np.empty((number, *builder.info.features["image"].shape), np.uint8)
        label = np.empty(number, np.int32)
        order = _official_positions(builder, split, number)
        for position, example in zip(order, source, strict=True):
            image[position] = example["image"]
            if labelled:
                label[position] = example["label"]
    return {"image": image, "label": label} if labelled else {"image": image}


def _official_positions(builder: tfds.core.DatasetBuilder, split: str, number: int) -> np.ndarray:
    """Where in the official files each stored image stands.

    TFDS stores examples sorted by a hash of their keys. The keys of the sets whose files are plain
    arrays are positions in those.
    """
    if builder.info.disable_shuffling or not tfds_builders.is_numbered(builder.name):
        return np.arange(number)
    hasher = hashing.Hasher(split)
    return np.asarray(sorted(range(number), key=hasher.hash_key))


def _cache_path(builder: tfds.core.DatasetBuilder) -> Path:
    return Path(builder.data_dir) / "elbo_lab_arrays.npz"


def _read_cache(builder: tfds.core.DatasetBuilder) -> dict[str, Arrays] | None:
    """What `_write_cache` has left, or None; a damaged file counts as none."""
    splits: dict[str, Arrays] = {}
    try:
        with np.load(_cache_path(builder), allow_pickle=False) as archive:
            for key in archive.files:
                split, feature = key.split(":")
                splits.setdefault(split, {})[feature] = archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return splits


def _write_cache(builder: tfds.core.DatasetBuilder, splits: dict[str, Arrays]) -> None:
    """Keeps the decoded splits beside the prepared ones; not where others' data may only be read.

    Decoding 70,000 images takes some ten seconds, reading them from here a tenth of one.
    """
    path = _cache_path(builder)
    arrays = {f"{split}:{k}": x for split, found in splits.items() for k, x in found.items()}
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
    """Without TFDS's lines on standard output, and its advice to install OpenCV."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.set_verbosity(verbosity)
