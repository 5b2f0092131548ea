"""Worker processes, one for each row of a comparison, which compute in turns."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import common
from benchmarks.peers.our_draws import prior_of
from benchmarks.peers.ours import arrays_of, examples, spec_for
from elbo_lab import configs, methods
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Spec
from elbo_lab.devices import setup

# Environment variables of compilation caches; an empty folder gives a cold start.
CACHES = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
# By default JAX does not cache programs that compile in less than a second.
KEEP_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
# Number of images on which bounds are compared.
COMPARED_IMAGES = 100


class Failed(Exception):
    """A worker has ended; the message is the last line that it wrote to standard error."""


class Worker:
    """A process that trains or evaluates on request; see `benchmarks.peers.worker`.

    Args:
      row: a key of `peers.ROWS`.
      folder: of the task.
      steps: of one call.
      replicates: of one program; ours alone.
      cache: folder of the compilation cache; "": that of the environment.
      core: the only core that the process uses; None: all that this process may use.

    Raises:
      Failed: the process ends before it is ready.
    """

    def __init__(
        self,
        row: str,
        folder: str,
        steps: int,
        replicates: int = 1,
        cache: str = "",
        core: int | None = None,
    ):
        environment = dict(os.environ)
        if cache:
            environment |= dict.fromkeys(CACHES, cache) | KEEP_ALL
        self.row, self.steps = row, steps
        self.errors = tempfile.TemporaryFile("w+")
        module = [sys.executable, "-m", "benchmarks.peers.worker"]
        cores = [] if core is None else [str(core)]
        self.process = subprocess.Popen(
            [*module, row, folder, str(steps), str(replicates), *cores],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )
        self._answer()

    def ask(self, *words: Any) -> dict[str, Any]:
        """Sends a request, and waits for the answer.

        Raises:
          Failed: the process has ended.
        """
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
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # it has already ended
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
    batch: int,
    k: int | None,
    num_images: int = common.NUM_IMAGES,
    model: str = "mlp",
    options: dict[str, Any] | None = None,
) -> Iterator[str]:
    """Writes a task: noise of MNIST's size, or of the quatrains' size for the model text, our
    initial parameters and our optimizer's settings.
    """
    config = configs.make(model=model, k=k, batch_size=batch, **(options or {}))
    if model == "text":
        images = common.fake_texts(num_images)
        x = images[np.arange(COMPARED_IMAGES) % num_images]
    else:
        images = common.fake_images(num_images)
        x = binary(images[np.arange(COMPARED_IMAGES) % num_images])
    spec = spec_for(images)
    method = methods.make(config, spec)
    mean = np.full(spec.dim, 0.13, np.float32)
    arrays = arrays_of(*jax.jit(method.init)(jax.random.key(0), Batch(examples(x)), mean))
    if method.code_specs:
        arrays |= _prior_arrays(method.code_specs[0])
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(config) | {"options": options}
        common.write_task(folder, settings, images, x, arrays)
        yield folder


def _prior_arrays(code_spec: Spec) -> dict[str, np.ndarray]:
    """The initial parameters of a PixelCNN of codes, by the names of a task."""
    codes = Batch(jnp.zeros((1, code_spec.dim), jnp.int32))
    params = jax.jit(prior_of(code_spec).init)(jax.random.key(0), codes)
    return {f"prior/{name}": array for name, array in arrays_of(params, ()).items()}


def binary(grey: np.ndarray) -> np.ndarray:
    """Binary images, float32, drawn with the probabilities of grey levels, uint8."""
    uniform = np.random.default_rng(1).random(grey.shape)
    return (uniform < grey / 255).astype(np.float32)


def settings_of(config: Config) -> dict[str, Any]:
    """The settings of the task that a configuration with Adam describes, on this machine."""
    adam = config.optimizer_options
    return {
        "model": config.model,
        "batch": config.batch_size,
        "k": config.k,
        "platform": jax.default_backend(),
        "cores": setup.cores(),
        "learning_rate": config.learning_rate,
        "adam": (adam.adam_b1, adam.adam_b2, adam.adam_eps),
    }


@contextlib.contextmanager
def workers(
    rows: Sequence[str], start: Callable[[str], Worker], say: Callable[[str], None]
) -> Iterator[dict[str, Worker]]:
    """Starts a worker for each row; `say` gets a sentence about each that does not start."""
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
    """Calls every function once a round; round r starts with function r. Returns [rounds, n]."""
    seconds = np.zeros((rounds, len(turns)))
    for r in range(rounds):
        for i in np.roll(np.arange(len(turns)), -r):
            seconds[r, i] = turns[i]()
    return seconds


def spread(ratios: np.ndarray) -> dict[str, Any]:
    """Median and quartiles over rounds."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {"median": float(middle), "quartiles": [float(low), float(high)]}
