"""Evaluations on disk: every image's values, for paired comparisons later."""

import io
from collections.abc import Sequence

import numpy as np

from elbo_lab.evaluation.importance import Evaluation
from elbo_lab.files import DAMAGE, write_atomically

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


def read_evaluations(
    path,
    num_images: int | None = None,
    latent_dims: Sequence[int] | None = None,
    num_train_images: int | None = None,
) -> dict[int, Evaluation]:
    """Reads what `write_evaluations` wrote; {} where there is no file or it is damaged (it can be
    computed again). An evaluation whose arrays do not fit together is left out.

    Args:
      path: the file.
      num_images: N, images of the split; evaluations of another number are left out.
      latent_dims: L of each layer; evaluations of others are left out.
      num_train_images: images of `train_means`, None for no such arrays; heeded where latent_dims
        is given.
    """
    try:
        with open(path, "rb") as file:
            # An archive by its own name: np.load takes other files for other things.
            with np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                arrays = dict(archive)
        replicates = sorted(int(n.rsplit("_", 1)[1]) for n in arrays if n.startswith("elbo_"))
        found = {r: _evaluation(arrays, r) for r in replicates}
    except DAMAGE:
        return {}
    return {
        r: evaluation
        for r, evaluation in found.items()
        if _fits(evaluation, num_images, latent_dims, num_train_images)
    }


def _fits(
    evaluation: Evaluation,
    num_images: int | None,
    latent_dims: Sequence[int] | None,
    num_train_images: int | None,
) -> bool:
    """Whether the shapes are those of one split, and the given ones where any are given."""
    plain = [getattr(evaluation, n) for n in Evaluation._fields if n not in _PER_LAYER]
    means, train_means = evaluation.means, evaluation.train_means
    number = evaluation.elbo.size if num_images is None else num_images
    dims = [np.shape(m)[-1:] for m in means]
    if latent_dims is not None:
        dims = [(d,) for d in latent_dims]
        expected = [] if num_train_images is None else [(num_train_images, *d) for d in dims]
        if [m.shape for m in train_means] != expected:
            return False
    return (
        number > 0
        and all(x.dtype.kind == "f" for x in (*plain, *means, *train_means))
        and all(x.shape == (number,) for x in plain)
        and [m.shape for m in means] == [(number, *d) for d in dims]
        and [m.shape[1:] for m in train_means] in ([], dims)
    )


def _evaluation(arrays: dict[str, np.ndarray], r: int) -> Evaluation:
    def layers(name: str) -> tuple[np.ndarray, ...]:
        number = sum(n.startswith(f"{name}_") and n.endswith(f"_{r}") for n in arrays)
        return tuple(arrays[f"{name}_{i + 1}_{r}"] for i in range(number))

    plain = {n: arrays[f"{n}_{r}"] for n in Evaluation._fields if n not in _PER_LAYER}
    return Evaluation(**plain, **{name: layers(name) for name in _PER_LAYER})
