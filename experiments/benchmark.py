"""Measures the speed of the library, as ratios of times of one run.

    python -m experiments.benchmark                    all of it, about half an hour
    python -m experiments.benchmark --parts=train --cells=20x5 --rounds=15
    python -m experiments.benchmark --peers=pytorch,pyro,numpyro,pythae,scikit-learn

train       steps per second of `training.fit`, for the IWAE paper's one-layer model and uint8 data
            of MNIST's size, relative to the matrix-multiplication limit: the step's matrix
            products, each timed alone at its shape in a scan, in turns with the step. "together"
            times all products as one program, in which independent products overlap; a step whose
            products depend on each other cannot reach it. Peers train the same model by the same
            objective, in turns with ours.
systems     steps per second of the convolutional VAE (IWAE, k = 1), the sigmoid belief network
            (IWAE, k = 5, by VIMCO), PixelCNN, PixelVAE, VQ-VAE and the models of texts at their
            default settings and B = 128, in turns with the same models in PyTorch.
mixtures    seconds of 20 iterations of EM for 20 Gaussians with full covariances and 10,000 points
            of 50 dimensions, in turns with scikit-learn.
sampling    milliseconds of an example drawn by PixelCNN, PixelVAE, PixelRNN, a VQ-VAE with a
            PixelCNN of its codes and the models of texts, 128 at once: with a state between values,
            by the network for each value, and by that in PyTorch.
evaluate    L_5000 in images per second, relative to the generation network's matrix products; and
            its temporary memory.
start       time from process start to the first training step, with a cold and a warm compilation
            cache; the imports in it; and `import elbo_lab.losses` after jax and NumPyro. With
            peers: time from process start to the first ten steps, for this library and the peers.
memory      peak memory of a training process with 60,000 images.
replicates  steps of a replicate per second with R = 1, 2, 4, 8 in one program, relative to R = 1.
optimizers  milliseconds of a training step of IWAE with k = 5 on one core with each optimizer, at
            B = 100, 250 and 1,000, relative to Adam at B = 100 in the same round; the difference
            from plain gradient descent; and the parts of SOAP's step.

Peers are installed by the extra `peers`: pip install -e ".[peers]".
"""

import platform
import sys
from datetime import date
from typing import Any

import jax
from absl import flags

from benchmarks import merging, parts, peers
from elbo_lab.cli import flag_values, run_flags
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.files import write_summary


def main() -> int:
    """Measures and prints each part; writes all figures as JSON if --json is given."""
    values = flags.FLAGS
    names = flag_values.choices("parts", values.parts, parts.PARTS)
    if not 0.01 <= values.burst <= 3600:
        raise UserError(f"--burst must lie in 0.01..3600 seconds; got {values.burst}.")
    pairs, rows = parts.cells(values.cells), peers.rows(values.peers)
    figures: dict[str, Any] = {
        "command": "python -m experiments.benchmark " + " ".join(sys.argv[1:]),
        "date": date.today().isoformat(),
        "device": setup.describe(),
        "processor": setup.processor(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {"jax": jax.__version__, **peers.versions(rows)},
    }
    before = merging.earlier(values.json, figures)
    print(f"jax {jax.__version__} on {figures['device']}")

    def keep(part: str, value: Any) -> None:
        figures[part] = value
        if values.json:
            write_summary(values.json, merging.merged(before, figures))

    parts.measure(parts.Request(names, pairs, rows, values.rounds, values.burst), keep)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string(
        "parts", ",".join(parts.PARTS), f"parts to measure, of {', '.join(parts.PARTS)}"
    )
    flags.DEFINE_string("cells", "20x1,20x5,20x50,128x1,128x5,128x50", "training cells, B x k")
    flags.DEFINE_string("peers", "", f"libraries to compare with, of {', '.join(peers.PEERS)}")
    flags.DEFINE_integer("rounds", 15, "alternations of the library and the limit", lower_bound=1)
    flags.DEFINE_float("burst", 0.4, "seconds of each timed piece of work")
    flags.DEFINE_string(
        "json",
        None,
        "also write all figures to this file; figures of the same machine that it has are kept",
    )
    run_flags.run(main, __doc__)
