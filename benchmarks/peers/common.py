"""What the peers have in common: the task, given as files, and the interface of a peer."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

DATA_DIM, HIDDEN, LATENT = 784, 200, 50
NUM_IMAGES = 60_000
# Linear layers of the one-layer model of Burda et al. (2016): where each one's kernel
# [inputs, outputs] and bias lie in our parameters.
LAYERS = {
    "encoder_0": "encoder/layer_1/trunk/hidden_0",
    "encoder_1": "encoder/layer_1/trunk/hidden_1",
    "mean": "encoder/layer_1/mean",
    "log_std": "encoder/layer_1/scale",
    "decoder_0": "decoder/trunk/hidden_0",
    "decoder_1": "decoder/trunk/hidden_1",
    "logits": "decoder/logits",
}
# Draws of the log-likelihood estimate.
DRAWS = 5000


class Task(NamedTuple):
    """What every peer trains, from the same parameters."""

    batch: int  # B
    k: int | None  # draws inside the IWAE bound; None: a model without one
    steps: int  # in one call of `train`
    replicates: int  # of ours
    platform: str  # "cpu", "gpu"
    cores: int
    learning_rate: float
    adam: tuple[float, float, float]  # b1, b2, epsilon beside the root of the corrected moment
    images: np.ndarray  # [N, 784], uint8
    x: np.ndarray  # [n, 784], binary images to take bounds of, float32
    # Our initial parameters and state: "params/encoder/mean/kernel", "stats/shares".
    arrays: dict[str, np.ndarray]
    model: str = "mlp"  # our model family

    @property
    def layers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Kernel and bias of each of `LAYERS`."""
        return {name: self.layer(place) for name, place in LAYERS.items()}

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(a.size for name, a in self.arrays.items() if name.startswith("params/"))

    def layer(self, place: str) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias at a place in our parameters."""
        return self.arrays[f"params/{place}/kernel"], self.arrays[f"params/{place}/bias"]


class Peer(NamedTuple):
    """Every function waits until what it started is done."""

    train: Callable[[], Any]
    """() -> takes `task.steps` steps, from where the last call ended."""

    bound: Callable[[], float]
    """() -> one draw of minus the mean loss over task.x, such as L_k, nats, at present."""

    log_likelihood: Callable[[np.ndarray], float] | None = None
    """(x [n, 784]) -> the mean of L_5000, nats, at the present parameters."""


def write_task(
    folder: str,
    settings: dict[str, Any],
    images: np.ndarray,
    x: np.ndarray,
    arrays: dict[str, np.ndarray],
) -> None:
    """Writes what `read_task` reads."""
    path = pathlib.Path(folder)
    (path / "settings.json").write_text(json.dumps(settings))
    np.save(path / "images.npy", images)
    np.save(path / "x.npy", x)
    np.savez(path / "arrays.npz", **arrays)


def read_task(folder: str, **changed) -> Task:
    """The task that lies in a folder."""
    path = pathlib.Path(folder)
    settings = json.loads((path / "settings.json").read_text()) | changed
    with np.load(path / "arrays.npz") as arrays:
        return Task(
            **settings,
            images=np.load(path / "images.npy"),
            x=np.load(path / "x.npy"),
            arrays=dict(arrays),
        )


def orders(task: Task) -> Iterator[np.ndarray]:
    """[steps, B] indices of images for each call: permutation after permutation of all images."""
    rng = np.random.default_rng(0)
    size, number = task.batch, len(task.images)
    left = np.zeros((0, size), np.int64)
    while True:
        while len(left) < task.steps:
            passed = rng.permutation(number)[: number // size * size].reshape(-1, size)
            left = np.concatenate([left, passed])
        yield left[: task.steps]
        left = left[task.steps :]


def fake_images(number: int) -> np.ndarray:
    """Noise with MNIST's size and mean grey level; speed does not depend on the picture."""
    rng = np.random.default_rng(0)
    lit = rng.random((number, DATA_DIM), np.float32) < 0.19
    return np.where(lit, 180, 0).astype(np.uint8)
