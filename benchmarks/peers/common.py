"""What the peers have in common: the task, given as files, and the interface of a peer."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

DATA_DIM, HIDDEN, LATENT = 784, 200, 50
NUM_IMAGES = 60_000
# Linear layers of the one-layer model of Burda et al. (2016), in our naming: where each one's
# kernel [inputs, outputs] and bias lie in our parameters.
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
    k: int  # draws inside the IWAE bound
    steps: int  # in one call of `train`
    replicates: int  # of ours
    platform: str  # "cpu", "gpu"
    cores: int
    learning_rate: float
    adam: tuple[float, float, float]  # b1, b2, epsilon beside the root of the corrected moment
    images: np.ndarray  # [N, 784], uint8
    x: np.ndarray  # [n, 784], binary images to take bounds of, float32
    layers: dict[str, tuple[np.ndarray, np.ndarray]]  # kernel [inputs, outputs], bias


class Peer(NamedTuple):
    """Every function waits until what it started is done."""

    train: Callable[[], Any]
    """() -> takes `task.steps` steps, from where the last call ended."""

    bound: Callable[[], float]
    """() -> one draw of the mean over task.x of L_k, nats, at the present parameters."""

    log_likelihood: Callable[[np.ndarray], float]
    """(x [n, 784]) -> the mean of L_5000, nats, at the present parameters."""


def write_task(folder: str, settings: dict, images, x, params) -> None:
    """Writes what `read_task` reads; `params` are ours."""
    path = pathlib.Path(folder)
    (path / "settings.json").write_text(json.dumps(settings))
    np.save(path / "images.npy", images)
    np.save(path / "x.npy", x)
    np.savez(path / "layers.npz", **layer_arrays(params))


def read_task(folder: str, **changed) -> Task:
    """The task that lies in a folder."""
    path = pathlib.Path(folder)
    settings = json.loads((path / "settings.json").read_text()) | changed
    with np.load(path / "layers.npz") as arrays:
        layers = {n: (arrays[f"{n}_kernel"], arrays[f"{n}_bias"]) for n in LAYERS}
    return Task(
        **settings,
        images=np.load(path / "images.npy"),
        x=np.load(path / "x.npy"),
        layers=layers,
    )


def layer_arrays(params: Any) -> dict[str, np.ndarray]:
    """Our parameters as arrays "logits_kernel", "logits_bias", ..."""
    arrays = {}
    for name, place in LAYERS.items():
        layer = params
        for part in place.split("/"):
            layer = layer[part]
        arrays |= {f"{name}_{kind}": np.asarray(layer[kind]) for kind in ("kernel", "bias")}
    return arrays


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
