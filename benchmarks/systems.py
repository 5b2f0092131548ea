"""Speed of training the other model families, in turns with the same models in PyTorch."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.peers import OURS
from benchmarks.peers.common import read_task
from benchmarks.training import COMPARED_STEPS, compared_bounds, planned_calls, training_turn
from benchmarks.workers import Worker, in_turns, spread, task_folder, workers

BATCH = 128


class System(NamedTuple):
    """A model family at its default settings."""

    label: str  # in tables
    k: int | None  # draws inside the bound; None: the model has its own loss
    steps: int  # of one call, which takes about a second
    model: str  # the family
    options: dict[str, Any] = {}  # settings that differ from the defaults


SYSTEMS = {
    "conv": System("convolutional VAE", 1, 20, "conv"),
    "sbn": System("sigmoid belief network", 5, 30, "sbn"),
    "pixelcnn": System("PixelCNN", None, 3, "pixelcnn"),
    "pixelvae": System("PixelVAE", 1, 3, "pixelvae"),
    "vqvae": System("VQ-VAE", None, 20, "vqvae"),
    "text": System("texts, position-wise", 1, 10, "text"),
    "text_autoregressive": System(
        "texts, autoregressive", 1, 5, "text", {"text_decoder": "autoregressive"}
    ),
}


def measure_system(
    name: str, peers: Sequence[str], rounds: int, burst: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Steps per second of a model family at B = 128, and ratios to peers, alternating in rounds.

    Args:
      name: one of `SYSTEMS`.
      peers: rows besides ours.
      rounds: alternations.
      burst: seconds of a turn, which has at least one call of `System.steps` steps.
      say: called with a sentence about each peer that does not run.

    Raises:
      RuntimeError: a peer computes another loss at the same parameters.
    """
    _, k, steps, model, options = SYSTEMS[name]
    with (
        task_folder(BATCH, k, model=model, options=options) as folder,
        workers([OURS, *peers], lambda row: Worker(row, folder, steps), say) as running,
    ):
        parameters = read_task(folder, steps=steps, replicates=1).num_parameters
        bounds = compared_bounds(running, COMPARED_STEPS, say)
        turns = [training_turn(worker, planned_calls(worker, burst)) for worker in running.values()]
        seconds = in_turns(turns, rounds)
        memory = {row: worker.ask("memory")["mb"] for row, worker in running.items()}
    return {
        "model": name,
        "batch": BATCH,
        "parameters": parameters,
        "rows": {
            row: {
                "steps_per_s": 1 / statistics.median(seconds[:, i]),
                "ours_over_this": spread(seconds[:, i] / seconds[:, 0]),
                "peak_memory_mb": memory[row],
                **bounds[row],
            }
            for i, row in enumerate(running)
        },
    }
