r"""Makes elbo_lab/data/mnist_small.npz, a class-balanced subset of MNIST, from the official files.

    python -m tools.make_mnist_small --idx_dir=FOLDER

The folder holds the four official files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz,
t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz. Running it twice gives identical bytes.
"""

import gzip
import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import flags

from elbo_lab.cli import run_flags
from elbo_lab.errors import UserError

NUM_CLASSES = 10
SEED = 0
# Split of our file -> prefix of the official files' names, and number of images per digit.
SPLITS = {"train": ("train", 1000), "test": ("t10k", 200)}
# In the format of sha256sum.
_SHA256SUMS = """\
440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609  train-images-idx3-ubyte.gz
3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c  train-labels-idx1-ubyte.gz
8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6  t10k-images-idx3-ubyte.gz
f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6  t10k-labels-idx1-ubyte.gz
"""
OFFICIAL_SHA256 = {
    name: digest for digest, name in (line.split() for line in _SHA256SUMS.splitlines())
}


def read_idx(path: Path, sha256: str) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes, after verifying its digest.

    Args:
      path: the .gz file.
      sha256: expected hexadecimal digest of the compressed file.

    Returns:
      The file's array, uint8 [N] or [N, H, W].

    Raises:
      UserError: the file cannot be read, has another digest, or is not such an IDX file.
    """
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    digest = hashlib.sha256(packed).hexdigest()
    if digest != sha256:
        raise UserError(f"{path} is not the official file: its sha256 is {digest}, not {sha256}.")
    data = gzip.decompress(packed)
    if data[:3] != b"\x00\x00\x08":
        raise UserError(f"{path} is not an IDX file of unsigned bytes.")
    rank = data[3]
    shape = struct.unpack_from(f">{rank}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def select(labels: np.ndarray, per_class: int, rng: np.random.RandomState) -> np.ndarray:
    """Draws the same number of examples of every digit, in shuffled order.

    Args:
      labels: digits [N] in 0..9.
      per_class: number of examples of each digit, drawn without replacement.
      rng: the generator; a RandomState, since NumPy guarantees that its stream never changes.

    Returns:
      Indices into labels, uint16 [10 * per_class].

    Raises:
      UserError: a digit has fewer examples than asked for.
    """
    chosen = []
    for digit in range(NUM_CLASSES):
        members = np.flatnonzero(labels == digit)
        if len(members) < per_class:
            raise UserError(
                f"There are {len(members)} examples of {digit}, but {per_class} are needed."
            )
        chosen.append(rng.permutation(members)[:per_class])
    return rng.permutation(np.concatenate(chosen)).astype(np.uint16)


def build(
    folder: Path,
    sha256: Mapping[str, str] = OFFICIAL_SHA256,
    splits: Mapping[str, tuple[str, int]] = SPLITS,
) -> dict[str, np.ndarray]:
    """Reads the official files and takes the subset.

    Args:
      folder: the folder of the four files.
      sha256: file name -> expected digest.
      splits: split -> (prefix of its files' names, examples per digit).

    Returns:
      For each split the images x [N, H, W] and the labels y [N], both uint8, and index [N], uint16:
      the position of each example, from 0, in the official file of the same split.

    Raises:
      UserError: the folder is missing, or a file in it is missing or wrong.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder; --idx_dir needs the official MNIST files.")
    missing = [name for name in sha256 if not os.path.isfile(folder / name)]
    if missing:
        raise UserError(f"The folder {folder} lacks the official MNIST files {', '.join(missing)}.")
    rng = np.random.RandomState(SEED)
    arrays = {}
    for split, (prefix, per_class) in splits.items():
        names = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        images, labels = (read_idx(folder / name, sha256[name]) for name in names)
        index = select(labels, per_class, rng)
        arrays |= {
            f"x_{split}": images[index],
            f"y_{split}": labels[index],
            f"index_{split}": index,
        }
    return arrays


def to_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a compressed .npz file, which depend on the arrays and the zlib version alone.

    numpy.savez would store the current time.
    """
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return output.getvalue()


def make(idx_dir: str | None, output: str) -> str:
    """Reads the official files and writes the subset. Returns a line about the file."""
    if not idx_dir:
        raise UserError("Give the folder of the four official MNIST files with --idx_dir.")
    data = to_npz(build(Path(idx_dir)))
    try:
        Path(output).write_bytes(data)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}).") from error
    return f"{output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


def main() -> None:
    """Writes the file that the flags describe."""
    print(make(flags.FLAGS.idx_dir, flags.FLAGS.output))


if __name__ == "__main__":
    # Defined here, so that a test can import this module without defining its flags.
    flags.DEFINE_string("idx_dir", None, "folder with the four official MNIST IDX .gz files")
    flags.DEFINE_string("output", "elbo_lab/data/mnist_small.npz", "file to write")
    run_flags.run(main, __doc__)
