"""Evaluations as files, with every example's values, for paired comparisons later."""

import io
from collections.abc import Mapping

import numpy as np

from elbo_lab.evaluation.evaluator import Evaluation
from elbo_lab.files import DAMAGE_ERRORS, write_atomically

# Prefix of arrays over training examples; their number differs from that of the test examples.
TRAIN = "train_"


def write_evaluations(path, evaluations: Mapping[int, Evaluation]) -> None:
    """Writes evaluations as one .npz with arrays `<quantity>_<replicate>`, [N, ...] each.

    Args:
      path: the file.
      evaluations: replicate -> its evaluation.

    Raises:
      UserError: the file cannot be written, with the system's reason.
    """
    arrays = {}
    for replicate, evaluation in evaluations.items():
        for name, array in evaluation.items():
            arrays[f"{name}_{replicate}"] = array
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def read_evaluations(
    path,
    num_examples: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[int, Evaluation]:
    """Reads a file of `write_evaluations`.

    An evaluation whose arrays do not fit together is left out, since it can be computed again.

    Args:
      path: the file.
      num_examples: N, examples of the split; evaluations of another number are left out.
      shapes: quantity -> the shape of its whole array; evaluations of other quantities or of other
        shapes are left out.

    Returns:
      Replicate -> its evaluation, in rising order; {} if the file is missing or damaged.
    """
    try:
        with open(path, "rb") as file:
            # Not np.load, which reads a file that is no zip archive as a bare array or a pickle.
            with np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                arrays = dict(archive)
        evaluations: dict[int, Evaluation] = {}
        for stored_name, array in arrays.items():
            name, replicate = stored_name.rsplit("_", 1)
            evaluations.setdefault(int(replicate), {})[name] = array
    except DAMAGE_ERRORS:
        return {}
    return {
        replicate: evaluation
        for replicate, evaluation in sorted(evaluations.items())
        if _fits(evaluation, num_examples, shapes)
    }


def _fits(
    evaluation: Evaluation,
    num_examples: int | None,
    shapes: Mapping[str, tuple[int, ...]] | None,
) -> bool:
    """True if all arrays are numbers, those of test examples have one length, and it and the shapes
    are the expected ones where these are given.
    """
    if shapes is not None and {n: a.shape for n, a in evaluation.items()} != dict(shapes):
        return False
    if any(array.dtype.kind not in "fi" for array in evaluation.values()):
        return False
    leading = {array.shape[:1] for name, array in evaluation.items() if not name.startswith(TRAIN)}
    if len(leading) != 1 or leading == {()}:
        return False
    (length,) = leading.pop()
    return length > 0 and num_examples in (None, length)
