"""Text files as `Dataset`s of tokens: one poem a line, all of one length."""

import gzip
import os
from pathlib import Path

import numpy as np

from elbo_lab.data.dataset import Dataset
from elbo_lab.data.text import Text
from elbo_lab.errors import UserError

# The embedded quatrains: four lines of five characters each.
QUATRAINS = "tang_quatrains"
LINE_LENGTH = 5
# Quatrains that are trained on; the others are the test split.
TRAIN, SEED = 3400, 0


def load(path: str) -> Dataset:
    """Reads a UTF-8 text file: one example a line, lines of equal length, as one split.

    Empty lines are left out. The vocabulary is every character of the file.

    Raises:
      UserError: the file cannot be read, is no UTF-8, is empty, or has lines of unequal length.
    """
    numbered = _numbered_lines(path, _content(path))
    length = _length(path, numbered)
    poems = [line for _, line in numbered]
    text = Text(_vocabulary(path, poems), length, line_length=length)
    return _dataset(Path(path).stem, poems, text)


def load_test(path: str, text: Text) -> Dataset:
    """Reads a UTF-8 text file by another text's vocabulary: all its lines are test examples.

    Empty lines are left out.

    Raises:
      UserError: the file cannot be read, is no UTF-8, is empty, or has a line of another length
        than the text's examples or with a character that is not in its vocabulary.
    """
    numbered = _numbered_lines(path, _content(path))
    for i, line in numbered:
        if len(line) != text.length:
            raise UserError(
                f"{path}: line {i:,} has {len(line):,} characters; all lines must have "
                f"{text.length:,}, as those that the run was trained on."
            )
        unknown = next((c for c in line if c not in text.vocabulary), None)
        if unknown is not None:
            raise UserError(
                f"{path}: line {i:,} has the character {unknown!r}, which is not among the "
                f"{len(text.vocabulary):,} characters that the run was trained on."
            )
    whole = _dataset(Path(path).stem, [line for _, line in numbered], text)
    return whole._replace(x_train=whole.x_test, x_test=whole.x_train)


def is_path(name: str) -> bool:
    """True if the name of a data set is the path of a text file."""
    return name.lower().endswith(".txt")


def _content(path: str) -> str:
    """The text of a file."""
    try:
        content = Path(os.path.expanduser(path)).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{path} cannot be read ({reason}); give the path of an existing .txt file."
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start:,} cannot be decoded)."
        ) from error


def load_quatrains() -> Dataset:
    """3,400 + 372 quatrains of the Tang dynasty, split by a seed; see NOTICE.tang_quatrains.md."""
    path = Path(__file__).with_name(f"{QUATRAINS}.txt.gz")
    lines = _numbered_lines(str(path), gzip.decompress(path.read_bytes()).decode())
    poems = [line for _, line in lines]
    text = Text(_vocabulary(str(path), poems), len(poems[0]), LINE_LENGTH)
    whole = _dataset(QUATRAINS, poems, text)
    # A RandomState, whose stream is the same in every version of NumPy.
    x = whole.x_train[np.random.RandomState(SEED).permutation(len(poems))]
    return whole._replace(x_train=x[:TRAIN], x_test=x[TRAIN:])


def _numbered_lines(path: str, text: str) -> list[tuple[int, str]]:
    """The lines of a text that are not empty, with their numbers, counted from 1."""
    # Not splitlines, which also splits at characters within a line, such as form feeds.
    numbered = [(i, line.rstrip("\r")) for i, line in enumerate(text.split("\n"), 1)]
    numbered = [(i, line) for i, line in numbered if line]
    if not numbered:
        raise UserError(f"{path} holds no text; give one example a line.")
    return numbered


def _length(path: str, numbered: list[tuple[int, str]]) -> int:
    """The length that all lines have."""
    first, length = numbered[0][0], len(numbered[0][1])
    for i, line in numbered:
        if len(line) != length:
            raise UserError(
                f"{path}: line {i:,} has {len(line):,} characters, and line {first:,} has "
                f"{length:,}; all lines must have the same length."
            )
    return length


def _vocabulary(path: str, poems: list[str]) -> str:
    vocabulary = "".join(sorted(set("".join(poems))))
    if len(vocabulary) < 2:
        raise UserError(
            f"{path} holds the character {vocabulary!r} alone; a text has two characters at least."
        )
    return vocabulary


def _dataset(name: str, poems: list[str], text: Text) -> Dataset:
    x = text.encode(poems)
    note = f"{len(text.vocabulary):,} different characters"
    return Dataset(
        name=name,
        x_train=x,
        x_test=x[:0],
        y_train=None,
        y_test=None,
        image_shape=(text.length,),
        notes=(note,),
        kind="token",
        levels=len(text.vocabulary),
        text=text,
    )
