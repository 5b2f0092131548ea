"""Speed of the library, as ratios measured in one run.

    python -m experiments.benchmark                    all of it, about ten minutes on two cores
    python -m experiments.benchmark --parts=train --cells=20x5 --rounds=15

train     steps per second of `train.fit`'s compiled call, on the IWAE paper's one-layer model and
          full-size uint8 data, against the matrix-multiplication limit: the step's matrix products,
          each timed alone at its shape in a scan, one after the other, alternating with the step.
          "together" times them as one program, in which independent products overlap: a bound that
          no dependent chain of products can reach.
evaluate  L_5000 in images per second, against the generation network's products alone; memory.
start     process start to the first training step: cold, and with a warm compilation cache; the
          imports that are part of it; `import elbo_lab.losses` on top of jax and NumPyro.
memory    peak memory of a training process with 60,000 images.
"""

import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from elbo_lab import device, evaluation, models, train
from elbo_lab import objective as objectives
from elbo_lab.config import Config
from elbo_lab.errors import UserError
from elbo_lab.report import write_summary
from experiments import flags as run_flags

PARTS = ("train", "evaluate", "start", "memory")
DATA_DIM, HIDDEN, LATENT = 784, 200, 50
NUM_IMAGES = 60_000


class Product(NamedTuple):
    """[rows, inputs] x [inputs, outputs] in a layer; the input's gradient is not always needed."""

    rows: int
    inputs: int
    outputs: int
    input_gradient: bool = True
    backward: bool = True

    @property
    def flop(self) -> int:
        kernels = 1 + self.backward + self.input_gradient
        return 2 * self.rows * self.inputs * self.outputs * kernels


def step_products(batch: int, k: int) -> list[Product]:
    """The matrix products of one step of the 784-200-200-50 model."""
    rows = batch * k
    encoder = [
        Product(batch, DATA_DIM, HIDDEN, input_gradient=False),
        Product(batch, HIDDEN, HIDDEN),
        Product(batch, HIDDEN, LATENT),
        Product(batch, HIDDEN, LATENT),
    ]
    return encoder + decoder_products(rows, backward=True)


def decoder_products(rows: int, backward: bool) -> list[Product]:
    """The generation network's products for so many rows."""
    return [
        Product(rows, LATENT, HIDDEN, backward, backward),
        Product(rows, HIDDEN, HIDDEN, backward, backward),
        Product(rows, HIDDEN, DATA_DIM, backward, backward),
    ]


def kernels(product: Product) -> list[tuple[tuple[int, int], tuple[int, int], Callable]]:
    """Shapes of two operands and their product: forward, weight gradient, input gradient."""
    rows, inputs, outputs = product[:3]
    x, w, g = (rows, inputs), (inputs, outputs), (rows, outputs)
    found = [(x, w, lambda a, b: a @ b)]
    if product.backward:
        found.append((x, g, lambda a, b: a.T @ b))
    if product.input_gradient:
        found.append((g, w, lambda a, b: a @ b.T))
    return found


def repeated(group: list, times: int) -> tuple[Callable, Any]:
    """A jitted scan that computes a group of products `times` times, and its carry.

    An element of the first operand changes at each turn, and results are carried, so that nothing
    can be left out or moved out of the loop.
    """
    rng = np.random.default_rng(0)

    def operand(shape):
        return jnp.asarray(rng.normal(0, 0.05, shape), jnp.float32)

    operands = [(operand(a), operand(b)) for a, b, _ in group]
    results = [f(*ab) for ab, (_, _, f) in zip(operands, group, strict=True)]

    def body(carry, turn):
        operands, _ = carry
        operands = [(a.at[0, 0].set(turn * 1e-6), b) for a, b in operands]
        return (operands, [f(*ab) for ab, (_, _, f) in zip(operands, group, strict=True)]), None

    run = jax.jit(
        lambda carry: jax.lax.scan(body, carry, jnp.arange(times, dtype=jnp.float32))[0],
        donate_argnums=0,
    )
    return run, (operands, results)


class Timed:
    """A function of a carry, called again and again; keeps seconds per unit of work."""

    def __init__(self, run: Callable, carry: Any, units: float):
        self.run, self.carry, self.units, self.seconds = run, carry, units, []
        self.carry = jax.block_until_ready(run(carry))  # compiles

    def once(self) -> None:
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.run(self.carry))
        self.seconds.append((time.perf_counter() - start) / self.units)


def limits(products: list[Product], seconds: float, flop_per_second: float) -> list[Timed]:
    """Each kernel alone, for about `seconds` in all; the sum of their times is the limit."""
    group = [(kernel, 2 * p.rows * p.inputs * p.outputs) for p in products for kernel in kernels(p)]
    timed = []
    for kernel, flop in group:
        times = max(3, int(seconds / len(group) * flop_per_second / flop))
        timed.append(Timed(*repeated([kernel], times), times))
    return timed


def training_call(batch: int, k: int, steps: int) -> Timed:
    """The library's compiled call of many steps, as `fit` makes it."""
    config = Config(k=k, batch_size=batch, log_every=steps)
    model = models.make(config, DATA_DIM)
    loop = train.make_loop(config, model, NUM_IMAGES)
    keys = train.base_keys(train.replicas(config))
    images = jnp.asarray(fake_images(NUM_IMAGES))
    orders = loop.orders(keys, 0)
    hparams = objectives.hyperparameters([config])
    state = loop.init(keys, jnp.full(DATA_DIM, 0.13))
    return Timed(lambda s: loop.run(s, keys, orders, hparams, images, steps)[0], state, steps)


def fake_images(number: int) -> np.ndarray:
    """Noise with MNIST's size and mean grey level; speed does not depend on the picture."""
    rng = np.random.default_rng(0)
    lit = rng.random((number, DATA_DIM), np.float32) < 0.19
    return np.where(lit, 180, 0).astype(np.uint8)


def measure_train(batch: int, k: int, rounds: int, burst: float) -> dict[str, Any]:
    """Steps per second and fractions of the two limits, alternating in rounds."""
    products = step_products(batch, k)
    flop = sum(p.flop for p in products)
    steps = max(4, int(burst * 60e9 / flop))
    step = training_call(batch, k, steps)
    alone = limits(products, burst, 100e9)
    together_times = max(3, int(burst * 100e9 / flop))
    together = Timed(
        *repeated([kernel for p in products for kernel in kernels(p)], together_times),
        together_times,
    )
    for _ in range(rounds):
        for timed in (step, *alone, together):
            timed.once()
    alone_seconds = np.sum([t.seconds for t in alone], axis=0)
    fraction = alone_seconds / np.array(step.seconds)
    return {
        "batch": batch,
        "k": k,
        "steps_per_s": 1 / statistics.median(step.seconds),
        "limit_steps_per_s": 1 / float(np.median(alone_seconds)),
        "limit_gflop_per_s": flop / float(np.median(alone_seconds)) / 1e9,
        "fraction": float(np.median(fraction)),
        "fraction_quartiles": [float(q) for q in np.percentile(fraction, [25, 75])],
        "fraction_of_together": float(np.median(np.divide(together.seconds, step.seconds))),
    }


def measure_evaluate(rounds: int, burst: float) -> dict[str, Any]:
    """L_5000 of one batch of images, against the generation network's products alone."""
    draws = 5000
    model = models.make(Config(), DATA_DIM)
    params = jax.jit(model.init)(jax.random.key(0), jnp.full(DATA_DIM, 0.13))
    evaluator = evaluation.make_evaluator(model, 5, draws)
    images = jnp.asarray(fake_images(evaluator.batch_size), jnp.float32) / 180
    key = jax.random.key(1)

    def run(_):
        return evaluator.run(key, params, images)

    step = Timed(run, None, evaluator.batch_size)
    products = decoder_products(evaluation.bounds.ROWS, backward=False)
    flop = sum(p.flop for p in products)
    alone = limits(products, burst, 100e9)
    for _ in range(rounds):
        for timed in (step, *alone):
            timed.once()
    # Seconds per image: an image is `draws` rows of the products.
    passes = draws / evaluation.bounds.ROWS
    alone_seconds = np.sum([t.seconds for t in alone], axis=0) * passes
    return {
        "draws": draws,
        "images_per_s": 1 / statistics.median(step.seconds),
        "limit_images_per_s": 1 / float(np.median(alone_seconds)),
        "limit_gflop_per_s": flop * passes / float(np.median(alone_seconds)) / 1e9,
        "fraction": float(np.median(alone_seconds / np.array(step.seconds))),
        "temporary_bytes": {
            str(k): evaluation.make_evaluator(model, 5, k)
            .run.lower(key, params, images)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
            for k in (500, 5000, 50000)
        },
    }


def measure_start(rounds: int) -> dict[str, Any]:
    """Seconds from process start to the end of the first compiled call, and of imports."""
    with tempfile.TemporaryDirectory() as folder:
        warm_cache = os.path.join(folder, "cache")
        seconds_to_first_call(os.path.join(folder, "run"), warm_cache)
        cold, warm, imports, losses = [], [], [], []
        for i in range(rounds):
            cold.append(seconds_to_first_call(f"{folder}/cold{i}", f"{folder}/cache{i}"))
            warm.append(seconds_to_first_call(f"{folder}/warm{i}", warm_cache))
            imports.append(seconds_of("import jax, flax.linen, optax, numpyro.distributions"))
            base = "import jax, numpyro.distributions"
            losses.append(seconds_of(f"{base}; import elbo_lab.losses") - seconds_of(base))
    return {
        "first_step_cold_s": statistics.median(cold),
        "first_step_warm_s": statistics.median(warm),
        "of_which_imports_s": statistics.median(imports),
        "import_losses_on_top_s": statistics.median(losses),
    }


def seconds_to_first_call(workdir: str, cache: str) -> float:
    """Starts the main job with ten steps a call, and stops it at its first line of metrics."""
    flags_ = [f"--workdir={workdir}", f"--compilation_cache_dir={cache}", "--log_every=10"]
    metrics = os.path.join(workdir, "metrics.jsonl")
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *flags_], stderr=subprocess.DEVNULL
    ) as process:
        while not (os.path.exists(metrics) and os.path.getsize(metrics)):
            if process.poll() is not None:
                raise RuntimeError(f"The main job ended with status {process.returncode}.")
            time.sleep(0.005)
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def seconds_of(code: str) -> float:
    """Wall time of a Python process that runs `code`, from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def measure_memory() -> dict[str, Any]:
    """Peak resident memory of a whole run on 60,000 + 10,000 images of MNIST's size, with a cold
    compilation cache and with a warm one.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "noise.npz")
        np.savez(data, x_train=fake_images(NUM_IMAGES), x_test=fake_images(10_000))
        options = [f"--dataset={data}", "--batch_size=128", "--epochs=1", "--eval_k=50"]
        options += [f"--compilation_cache_dir={folder}/cache"]
        return {
            f"peak_resident_{cache}_mb": peak_memory([*options, f"--workdir={folder}/{cache}"])
            for cache in ("cold", "warm")
        }


def peak_memory(options: list[str]) -> float:
    """Peak resident memory of the main job with these flags, MB."""
    command = [sys.executable, "-m", "experiments.run", *options]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # Linux's own high-water mark; what wait4 gives counts this process's memory too.
        while process.poll() is None:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *map(int, re.findall(r"VmHWM:\s+(\d+)", status))])
            time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"The run ended with status {process.returncode}.")
    return peak * 1024 / 1e6


def main() -> int:
    """Prints a table a part, and writes all figures as JSON if asked."""
    values = flags.FLAGS
    parts = values.parts.split(",")
    wrong = [part for part in parts if part not in PARTS]
    if wrong:
        raise UserError(f"--parts must be of {', '.join(PARTS)}; got {wrong[0]!r}.")
    found: dict[str, Any] = {
        "jax": jax.__version__,
        "device": device.describe(),
        "machine": platform.machine(),
    }
    print(f"jax {found['jax']} on {found['device']}")
    if "train" in parts:
        found["train"] = []
        print("\ntraining           steps/s   limit  fraction (quartiles)   of products together")
        for batch, k in cells(values.cells):
            cell = measure_train(batch, k, values.rounds, values.burst)
            found["train"].append(cell)
            low, high = cell["fraction_quartiles"]
            print(
                f"B = {batch:3d}, k = {k:2d}  {cell['steps_per_s']:10.1f} "
                f"{cell['limit_steps_per_s']:7.1f}  {cell['fraction']:8.2f} ({low:.2f} {high:.2f})"
                f"  {cell['fraction_of_together']:14.2f}",
                flush=True,
            )
    measures = {
        "evaluate": lambda: measure_evaluate(values.rounds, values.burst),
        "start": lambda: measure_start(max(3, values.rounds // 3)),
        "memory": measure_memory,
    }
    for part, measure in measures.items():
        if part in parts:
            found[part] = measure()
            print(f"\n{part}")
            for name, value in found[part].items():
                print(
                    f"  {name}: {value:.3g}" if isinstance(value, float) else f"  {name}: {value}"
                )
    if values.json:
        write_summary(values.json, found)
    return 0


def cells(text: str) -> list[tuple[int, int]]:
    """ "20x5,128x1" as pairs of batch size and k."""
    try:
        pairs = [tuple(int(n) for n in cell.split("x")) for cell in text.split(",")]
        if any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
            raise ValueError
    except ValueError:
        raise UserError(f"--cells must be like 20x5,128x1 (B x k); got {text!r}.") from None
    return pairs


if __name__ == "__main__":
    flags.DEFINE_string("parts", ",".join(PARTS), f"what to measure, of {', '.join(PARTS)}")
    flags.DEFINE_string("cells", "20x1,20x5,20x50,128x1,128x5,128x50", "training cells, B x k")
    flags.DEFINE_integer("rounds", 15, "alternations of the library and the limit", lower_bound=1)
    flags.DEFINE_float("burst", 0.4, "seconds of each timed piece of work", lower_bound=0.01)
    flags.DEFINE_string("json", None, "also write all figures to this file")
    run_flags.run(main, __doc__)
