"""Times the compilation of initial parameters with XLA's default options and with the loop's:

    python -m benchmarks.initial

Processor seconds of one process at the default sizes of each model, and how many arrays differ.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp

from elbo_lab import configs, methods
from elbo_lab.data import Batch, Spec
from elbo_lab.devices.setup import RUN_ONCE

SPEC, ROWS = Spec("image", (28, 28), 2), 250
MODELS = ("mlp", "conv", "sbn", "pixelcnn", "pixelrnn", "pixelvae", "vqvae")


def measure(model: str, options: dict[str, int]) -> tuple[float, Any]:
    """Processor seconds of the compilation, and the arrays that the program makes."""
    method = methods.make(configs.make(model=model), SPEC, ROWS)
    x = jax.random.bernoulli(jax.random.key(1), 0.2, (ROWS, SPEC.dim)).astype(jnp.float32)
    init = jax.jit(lambda key: method.init(key, Batch(x)), compiler_options=options)
    lowered = init.lower(jax.random.key(0))
    start = time.process_time()
    compiled = lowered.compile()
    return time.process_time() - start, jax.tree.leaves(compiled(jax.random.key(0)))


def main() -> None:
    measure("mlp", {})  # what the first compilation of a process costs belongs to no row
    print("| model | default | run once | arrays that differ |\n|---|---|---|---|")
    for model in MODELS:
        default, arrays = measure(model, {})
        once, others = measure(model, RUN_ONCE)
        differ = sum(not jnp.array_equal(*pair) for pair in zip(arrays, others, strict=True))
        print(f"| {model} | {default:.1f} | {once:.1f} | {differ} of {len(arrays)} |")


if __name__ == "__main__":
    main()
