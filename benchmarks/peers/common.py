"""The task of all peers, which is stored in files, and the interface of a peer."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

DATA_DIM, HIDDEN, LATENT = 784, 200, 50
NUM_IMAGES = 60_000
# Length and number of characters of the quatrains, whose sizes the texts have.
TEXT_LENGTH, TEXT_LEVELS = 20, 3743
# Linear layers of the one-layer model of Burda et al. (2016) -> the path of each one's kernel
# [inputs, outputs] and bias in our parameters.
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
    """The training of every peer, from the same parameters."""

    batch: int  # B
    k: int | None  # draws inside the IWAE bound; None: the model has no bound
    steps: int  # in one call of `train`
    replicates: int  # for our row alone
    platform: str  # "cpu", "gpu"
    cores: int
    learning_rate: float
    adam: tuple[float, float, float]  # b1, b2, epsilon beside the root of the corrected moment
    # Images [N, 784], uint8; points [N, D], float32, for a mixture; tokens [N, T], int64, for texts
    images: np.ndarray
    # The examples that bounds are computed on: binary images or points, float32, or tokens
    x: np.ndarray
    # Our initial parameters and state: "params/encoder/mean/kernel", "stats/shares"; of a VQ-VAE
    # those of a PixelCNN of its codes too: "prior/params/hidden/kernel".
    arrays: dict[str, np.ndarray]
    model: str = "mlp"  # our model family
    options: dict[str, Any] | None = None  # settings of our configuration, by name

    @property
    def layers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Kernel and bias of each of `LAYERS`."""
        return {name: self.layer(path) for name, path in LAYERS.items()}

    @property
    def num_parameters(self) -> int:
        """The number of trained parameters."""
        return sum(a.size for name, a in self.arrays.items() if name.startswith("params/"))

    def layer(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias at a path in our parameters."""
        return self.arrays[f"params/{path}/kernel"], self.arrays[f"params/{path}/bias"]


class Peer(NamedTuple):
    """The functions of a peer. Each returns when the device has finished its computation."""

    train: Callable[[], Any] | None = None
    """() -> anything: takes `task.steps` steps, starting where the last call ended."""

    bound: Callable[[], float] | None = None
    """() -> one draw of minus the mean loss over task.x, such as L_k, at the current parameters."""

    log_likelihood: Callable[[np.ndarray], float] | None = None
    """(x [n, 784]) -> the mean of L_5000 at the current parameters, nats."""

    restart: Callable[[], None] | None = None
    """() -> None: goes back to the task's parameters."""

    sample: Callable[[int], Any] | None = None
    """(values) -> `task.batch` examples from the model, of which the first `values` values are
    drawn, one after the other; a model that draws all at once draws all."""


def write_task(
    folder: str,
    settings: dict[str, Any],
    images: np.ndarray,
    x: np.ndarray,
    arrays: dict[str, np.ndarray],
) -> None:
    """Writes a task, for `read_task`."""
    path = pathlib.Path(folder)
    (path / "settings.json").write_text(json.dumps(settings))
    np.save(path / "images.npy", images)
    np.save(path / "x.npy", x)
    np.savez(path / "arrays.npz", **arrays)


def read_task(folder: str, **changes) -> Task:
    """Reads the task in a folder; `changes` are fields that replace or complete the stored ones."""
    path = pathlib.Path(folder)
    settings = json.loads((path / "settings.json").read_text()) | changes
    with np.load(path / "arrays.npz") as arrays:
        return Task(
            **settings,
            images=np.load(path / "images.npy"),
            x=np.load(path / "x.npy"),
            arrays=dict(arrays),
        )


def orders(task: Task) -> Iterator[np.ndarray]:
    """Yields indices [steps, B] of images for each call, from permutations of all images."""
    rng = np.random.default_rng(0)
    size, number = task.batch, len(task.images)
    left = np.zeros((0, size), np.int64)
    while True:
        while len(left) < task.steps:
            one_pass = rng.permutation(number)[: number // size * size].reshape(-1, size)
            left = np.concatenate([left, one_pass])
        yield left[: task.steps]
        left = left[task.steps :]


def fake_images(number: int) -> np.ndarray:
    """Noise images of MNIST's size and mean grey level; speed does not depend on the pixels."""
    rng = np.random.default_rng(0)
    lit = rng.random((number, DATA_DIM), np.float32) < 0.19
    return np.where(lit, 180, 0).astype(np.uint8)


def fake_texts(number: int) -> np.ndarray:
    """Noise texts of the quatrains' length and number of characters, [number, T], int64."""
    return np.random.default_rng(0).integers(0, TEXT_LEVELS, (number, TEXT_LENGTH))
