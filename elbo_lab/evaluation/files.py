"""Evaluations on disk: every image's values, for paired comparisons later."""

import io

import numpy as np

from elbo_lab.data.archives import DAMAGE
from elbo_lab.evaluation.bounds import Evaluation
from elbo_lab.report import write_atomically

_PER_LAYER = ("means", "train_means")


def write_evaluations(path, evaluations: dict[int, Evaluation]) -> None:
    """Writes evaluations by replicate as one .npz: `<field>_<replicate>` [N], and
    `means_<layer>_<replicate>` [N, L], `train_means_<layer>_<replicate>` where there are any.

    Raises:
      UserError: the disk refuses, with its reason.
    """
    arrays = {}
    for r, evaluation in evaluations.items():
        for name, values in evaluation._asdict().items():
            if name in _PER_LAYER:
                for i, means in enumerate(values):
                    arrays[f"{name}_{i + 1}_{r}"] = means
            else:
                arrays[f"{name}_{r}"] = values
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def read_evaluations(path) -> dict[int, Evaluation]:
    """Reads what `write_evaluations` wrote; {} where there is no file or it is damaged (it can be
    computed again).
    """
    try:
        # Opened here: NumPy leaves a file open that turns out not to be an archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        replicates = sorted(int(n.rsplit("_", 1)[1]) for n in arrays if n.startswith("elbo_"))
        return {r: _evaluation(arrays, r) for r in replicates}
    except DAMAGE:
        return {}


def _evaluation(arrays: dict[str, np.ndarray], r: int) -> Evaluation:
    def layers(name: str) -> tuple[np.ndarray, ...]:
        number = sum(n.startswith(f"{name}_") and n.endswith(f"_{r}") for n in arrays)
        return tuple(arrays[f"{name}_{i + 1}_{r}"] for i in range(number))

    plain = {n: arrays[f"{n}_{r}"] for n in Evaluation._fields if n not in _PER_LAYER}
    return Evaluation(**plain, **{name: layers(name) for name in _PER_LAYER})
