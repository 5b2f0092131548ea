"""Start-up time and memory of `experiments.run`, measured in subprocesses."""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.peers.common import NUM_IMAGES, fake_images


def measure_start(rounds: int) -> dict[str, Any]:
    """Seconds from process start to the end of the first compiled call, and seconds of imports."""
    with tempfile.TemporaryDirectory() as folder:
        warm_cache = os.path.join(folder, "cache")
        seconds_to_first_call(os.path.join(folder, "run"), warm_cache)  # fills the cache
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
    """Starts a run with ten steps a call, and kills it at its first line of metrics."""
    flags = [f"--workdir={workdir}", f"--compilation_cache_dir={cache}", "--log_every=10"]
    metrics = os.path.join(workdir, "metrics.jsonl")
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *flags], stderr=subprocess.DEVNULL
    ) as process:
        while not (os.path.exists(metrics) and os.path.getsize(metrics)):
            if process.poll() is not None:
                raise RuntimeError(f"experiments.run ended with status {process.returncode}.")
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
    """Peak resident memory of a run with these flags, MB."""
    command = [sys.executable, "-m", "experiments.run", *options]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # Linux's high-water mark. The value of wait4 would include this process's memory at fork.
        while process.poll() is None:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *map(int, re.findall(r"VmHWM:\s+(\d+)", status))])
            time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"experiments.run ended with status {process.returncode}.")
    return peak * 1024 / 1e6
