"""Preparation of image sets by tensorflow-datasets (TFDS): official files -> array_record files."""

import hashlib
import os
import sys
import threading
from pathlib import Path

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from elbo_lab.data import tfds_builders
from elbo_lab.data.tfds_builders import Builder
from elbo_lab.errors import UserError

FILE_FORMAT = "array_record"
# Seconds without an answer after which a server counts as unreachable.
PATIENCE = 5


def prepare(builder: Builder, manual_dir: str | None) -> None:
    """Prepares the set in the builder's folder.

    An interrupted preparation leaves nothing that counts as prepared. If several processes prepare
    a set at the same time, the result of the first to end is kept.

    Args:
      builder: the builder of a set that is not prepared.
      manual_dir: a folder with the set's official files; None to download them.

    Raises:
      UserError: packages or files are missing, or the preparation fails.
    """
    if packages := tfds_builders.missing_packages(type(builder)):
        raise UserError(
            f"{builder.name} is not prepared in --data_dir={builder.data_dir_root}, and preparing "
            f"it needs {' and '.join(packages)}, once: pip install {' '.join(packages)}, or give a "
            f"folder in which it is prepared as {FILE_FORMAT} as --data_dir."
        )
    missing_urls = _missing_urls(builder, manual_dir)
    if missing_urls:
        _check_reachable(builder, missing_urls)
    config = tfds.download.DownloadConfig(
        manual_dir=None if manual_dir is None else os.path.abspath(os.path.expanduser(manual_dir)),
        try_download_gcs=False,  # the prepared copies there are TFRecord files
    )
    print(f"Preparing {builder.name} in {builder.data_dir}, once.", file=sys.stderr)
    try:
        builder.download_and_prepare(download_config=config, file_format=FILE_FORMAT)
    except NonMatchingChecksumError as error:
        raise UserError(_wrong_files(builder, manual_dir)) from error
    except UserError:
        raise
    except ImportError as error:
        raise UserError(tfds_builders.import_message(builder.name, error)) from error
    except Exception as error:  # a stock builder's code may raise any type
        # If another process has prepared the set meanwhile, its folder makes this one fail.
        if builder.is_prepared():
            return
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"{builder.name} cannot be prepared in --data_dir={builder.data_dir_root} ({reason})."
        ) from error


def _urls(builder: Builder) -> list[str]:
    """URLs of the official files: the exact ones for our builders, else all registered ones."""
    return list(builder.urls or builder.url_infos or ())


def _missing_urls(builder: Builder, manual_dir: str | None) -> list[str]:
    """URLs of the files that are neither in `manual_dir` nor already downloaded.

    Raises:
      UserError: `manual_dir` is given and lacks a file that one of our builders reads.
    """
    infos = builder.url_infos or {}
    folder = None if manual_dir is None else Path(manual_dir).expanduser()
    if folder is not None and not folder.is_dir():
        raise UserError(f"--manual_dir={manual_dir} is not a folder.")
    urls = _urls(builder)
    if folder is not None:
        urls = [url for url in urls if not (folder / infos[url].filename).is_file()]
    if folder is not None and builder.urls and urls:
        names = " and no ".join(infos[url].filename for url in urls)
        raise UserError(
            f"--manual_dir={manual_dir} has no {names}; it must hold the official files of "
            f"{builder.name}; without --manual_dir they are downloaded."
        )
    downloads = Path(os.fspath(builder.data_dir_root)) / "downloads"
    missing = []
    for url in urls:
        name = resource.get_dl_fname(url, infos[url].checksum)
        if not (downloads / name).exists() and not (downloads / builder.name / name).exists():
            missing.append(url)
    return missing


def _wrong_files(builder: Builder, manual_dir: str | None) -> str:
    """The error message for files whose checksums are not the registered ones."""
    wrong = []
    urls = [] if manual_dir is None else _urls(builder)
    for url in urls:
        info = builder.url_infos[url]
        path = Path(manual_dir).expanduser() / info.filename
        if path.is_file():
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != info.checksum:
                    wrong.append(info.filename)
    if not wrong:
        return (
            f"A downloaded file of {builder.name} differs from the registered file by its "
            "checksum; try again."
        )
    return (
        f"--manual_dir={manual_dir} holds files that differ from the official ones of "
        f"{builder.name} by their checksums: {', '.join(wrong)}; they are damaged, or belong to "
        "another set."
    )


def _check_reachable(builder: Builder, urls: list[str]) -> None:
    """Raises UserError within seconds if a server does not answer; TFDS would retry for minutes."""
    url_of_server = {url.split("/")[2]: url for url in urls}
    for url in url_of_server.values():
        reason = _unreachable(url)
        if reason is not None:
            names = ", ".join(builder.url_infos[u].filename for u in urls)
            raise UserError(
                f"{builder.name} is not prepared in --data_dir={builder.data_dir_root}, and {url} "
                f"cannot be downloaded ({reason}); give a folder with its official files "
                f"({names}) as --manual_dir, or one with the prepared set as --data_dir."
            )


def _unreachable(url: str) -> str | None:
    """The reason why a file cannot be downloaded, or None if it can."""
    reasons: list[str | None] = []

    def request() -> None:
        try:
            with requests.get(url, stream=True, timeout=PATIENCE) as response:
                is_ok = response.status_code == 200
                reasons.append(None if is_ok else f"HTTP status {response.status_code}")
        except requests.RequestException as error:
            reasons.append(type(error).__name__)

    # In a thread, since the look-up of a server's name has no timeout.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE)
    return reasons[0] if reasons else "no answer"
