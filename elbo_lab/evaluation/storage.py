"""Evaluations on disk: every example's values, for paired comparisons later."""

import io
from collections.abc import Mapping

import numpy as np

from elbo_lab.evaluation.evaluator import Evaluation
from elbo_lab.files import DAMAGE, write_atomically

# Arrays of training examples, whose number is another one.
TRAIN = "train_"


def write_evaluations(path, evaluations: Mapping[int, Evaluation]) -> None:
    """Writes evaluations by replicate as one .npz: `<quantity>_<replicate>`, [N, ...] each.

    Raises:
      UserError: the disk refuses, with its reason.
    """
    arrays = {f"{name}_{r}": a for r, found in evaluations.items() for name, a in found.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def read_evaluations(
    path,
    num_examples: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[int, Evaluation]:
    """Reads what `write_evaluations` wrote; {} where there is no file or it is damaged (it can be
    computed again). An evaluation whose arrays do not fit together is left out.

    Args:
      path: the file.
      num_examples: N, examples of the split; evaluations of another number are left out.
      shapes: quantity -> the shape of its whole array; evaluations of other quantities or of other
        shapes are left out.
    """
    try:
        with open(path, "rb") as file:
            # An archive by its own name: np.load takes other files for other things.
            with np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                arrays = dict(archive)
        found: dict[int, Evaluation] = {}
        for stored_name, array in arrays.items():
            name, replicate = stored_name.rsplit("_", 1)
            found.setdefault(int(replicate), {})[name] = array
    except DAMAGE:
        return {}
    return {r: found[r] for r in sorted(found) if _fits(found[r], num_examples, shapes)}


def _fits(
    evaluation: Evaluation,
    num_examples: int | None,
    shapes: Mapping[str, tuple[int, ...]] | None,
) -> bool:
    """Whether the arrays are numbers of one split, and of the given shapes where any are given."""
    if shapes is not None and {n: a.shape for n, a in evaluation.items()} != dict(shapes):
        return False
    tested = [array for name, array in evaluation.items() if not name.startswith(TRAIN)]
    numbers = {array.shape[:1] for array in tested}
    return (
        all(array.dtype.kind in "fi" for array in evaluation.values())
        and len(numbers) == 1
        and numbers <= ({(num_examples,)} if num_examples is not None else numbers)
        and numbers not in ({(0,)}, {()})
    )
