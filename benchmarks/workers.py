"""Workers, one for each line of a comparison, that take turns; only one computes at a time."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.peers import common
from benchmarks.peers.ours import SPEC, arrays_of
from elbo_lab import methods
from elbo_lab.configs import Config
from elbo_lab.data import Batch
from elbo_lab.devices import setup

# What a peer's compiler keeps; a folder of our own makes a start cold.
CACHES = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
# By default JAX keeps nothing that took less than a second.
KEEP_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


# Images of which bounds are compared.
COMPARED_IMAGES = 100


class Failed(Exception):
    """A worker ended by itself; the last line that it wrote."""


class Worker:
    """A process that trains or evaluates when it is told to."""

    def __init__(self, row: str, folder: str, steps: int, replicates: int = 1, cache: str = ""):
        own = {name: cache for name in CACHES if cache} | (KEEP_ALL if cache else {})
        self.row, self.steps = row, steps
        self.errors = tempfile.TemporaryFile("w+")
        module = [sys.executable, "-m", "benchmarks.peers.worker"]
        self.process = subprocess.Popen(
            [*module, row, folder, str(steps), str(replicates)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **own},
        )
        self._answer()

    def ask(self, *words: Any) -> dict[str, Any]:
        """Sends a line, and waits for the answer."""
        try:
            print(*words, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise self._failure() from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> Failed:
        self.process.wait()
        self.errors.seek(0)
        lines = [line for line in self.errors.read().splitlines() if line.strip()]
        self.close()
        return Failed(lines[-1].strip() if lines else f"status {self.process.returncode}")

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@contextlib.contextmanager
def task_folder(
    batch: int, k: int | None, num_images: int = common.NUM_IMAGES, model: str = "mlp"
) -> Iterator[str]:
    """A task for all workers: noise of MNIST's size, our initial parameters, our optimizer."""
    config = Config(model=model, k=k)
    rng = np.random.default_rng(1)
    images = common.fake_images(num_images)
    some = images[np.arange(COMPARED_IMAGES) % num_images]
    x = (rng.random(some.shape) < some / 255).astype(np.float32)
    mean = np.full(common.DATA_DIM, 0.13, np.float32)
    init = jax.jit(methods.make(config, SPEC).init)
    arrays = arrays_of(*init(jax.random.key(0), Batch(x), mean))
    settings = {
        "model": model,
        "batch": batch,
        "k": k,
        "platform": jax.default_backend(),
        "cores": setup.cores(),
        "learning_rate": config.learning_rate,
        "adam": (config.adam_b1, config.adam_b2, config.adam_eps),
    }
    with tempfile.TemporaryDirectory() as folder:
        common.write_task(folder, settings, images, x, arrays)
        yield folder


@contextlib.contextmanager
def workers(
    rows: Sequence[str], start: Callable[[str], Worker], say: Callable[[str], None]
) -> Iterator[dict[str, Worker]]:
    """The rows' workers, as far as they start; the others are named to `say`."""
    running: dict[str, Worker] = {}
    try:
        for row in rows:
            try:
                running[row] = start(row)
            except Failed as failure:
                say(f"{row} does not run here: {failure}")
        yield running
    finally:
        for worker in running.values():
            worker.close()


def in_turns(turns: Sequence[Callable[[], float]], rounds: int) -> np.ndarray:
    """[rounds, len(turns)] seconds; every round starts with another one."""
    found = np.zeros((rounds, len(turns)))
    for r in range(rounds):
        for i in np.roll(np.arange(len(turns)), -r):
            found[r, i] = turns[i]()
    return found


def spread(ratios: np.ndarray) -> dict[str, Any]:
    """Median and quartiles over rounds."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {"median": float(middle), "quartiles": [float(low), float(high)]}
