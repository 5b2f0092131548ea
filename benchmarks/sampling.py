"""Speed of drawing examples from models of one value after another, in turns with PyTorch."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.peers import OUR_DRAWS, OUR_RECOMPUTED_DRAWS, ROWS
from benchmarks.peers.common import DATA_DIM, TEXT_LENGTH
from benchmarks.printing import shown
from benchmarks.training import check_agreement, mean_and_error
from benchmarks.workers import Worker, in_turns, spread, task_folder, workers

# Examples that are drawn at once, and draws of the bound by which rows are compared.
BATCH, COMPARED_DRAWS = 128, 8
# Rows with the network for each value draw so many pixels of an image in a turn: each costs the
# same, and a whole image takes minutes.
PIXELS = 8


class Sampled(NamedTuple):
    """A model, at its initial parameters, whose examples are drawn."""

    label: str  # in tables
    model: str  # the family
    dim: int  # values that are drawn one after the other
    values: int  # those that the rows with the network for each value draw in a turn
    # Rows that draw: ours by the network for each value, and PyTorch's.
    recomputed: bool = False
    has_peers: bool = True
    options: dict[str, Any] = {}  # settings that differ from the defaults


SAMPLED = {
    "pixelcnn": Sampled("PixelCNN", "pixelcnn", DATA_DIM, PIXELS, recomputed=True),
    "pixelvae": Sampled("PixelVAE", "pixelvae", DATA_DIM, PIXELS, recomputed=True),
    "vqvae": Sampled("VQ-VAE and a PixelCNN of its codes", "vqvae", 49, 49),
    "text": Sampled("texts, position-wise", "text", TEXT_LENGTH, TEXT_LENGTH),
    "text_autoregressive": Sampled(
        "texts, autoregressive",
        "text",
        TEXT_LENGTH,
        TEXT_LENGTH,
        options={"text_decoder": "autoregressive"},
    ),
    "pixelrnn_row": Sampled(
        "PixelRNN, row LSTM", "pixelrnn", DATA_DIM, PIXELS, True, False, {"rnn": "row"}
    ),
    "pixelrnn_diagonal": Sampled(
        "PixelRNN, diagonal BiLSTM", "pixelrnn", DATA_DIM, PIXELS, True, False, {"rnn": "diagonal"}
    ),
}


def measure_sampling(
    name: str,
    peers: Sequence[str],
    rounds: int,
    say: Callable[[str], None],
    sampled: Sampled | None = None,
    batch: int = BATCH,
) -> dict[str, Any]:
    """Milliseconds of an example, and ratios to other rows, alternating in rounds.

    Args:
      name: one of `SAMPLED`, for tables.
      peers: rows of other libraries, which draw where the model has them.
      rounds: alternations.
      say: called with a sentence about each row that does not run.
      sampled: the model, if it is not `SAMPLED[name]`.
      batch: examples that are drawn at once.

    Returns:
      "rows": for each "ms" of an example, "ours_over_this", median and quartiles of ratios of
      speeds taken within a round, and "bound", the mean and standard error of minus the loss.

    Raises:
      RuntimeError: a row computes another loss at the same parameters.
    """
    sampled = sampled or SAMPLED[name]
    rows = [OUR_DRAWS, *([OUR_RECOMPUTED_DRAWS] if sampled.recomputed else [])]
    rows += peers if sampled.has_peers else []
    bounds: dict[str, list[float]] = {}
    with (
        task_folder(batch, None, BATCH, sampled.model, sampled.options) as folder,
        workers(rows, lambda row: Worker(row, folder, 1), say) as running,
    ):
        for row, worker in running.items():
            bounds[row] = mean_and_error(worker.ask("bound", COMPARED_DRAWS)["values"])
            check_agreement(row, bounds[OUR_DRAWS], bounds[row])
        turns = [_turn(worker, row, sampled) for row, worker in running.items()]
        for turn in turns:
            turn()  # compiles
        seconds = in_turns(turns, rounds)
    return {
        "model": name,
        "batch": batch,
        "rows": {
            row: {
                "ms": 1e3 * statistics.median(seconds[:, i]) / batch,
                "ours_over_this": spread(seconds[:, i] / seconds[:, 0]),
                "bound": bounds[row],
            }
            for i, row in enumerate(running)
        },
    }


def _turn(worker: Worker, row: str, sampled: Sampled) -> Callable[[], float]:
    """A function that returns the seconds of a whole draw."""
    if row == OUR_DRAWS:
        return lambda: worker.ask("sample", sampled.dim)["seconds"]
    whole = sampled.dim / sampled.values
    return lambda: worker.ask("sample", sampled.values)["seconds"] * whole


def print_sampling(cell: dict[str, Any]) -> None:
    """Prints milliseconds for each example: a line for each row."""
    print(f"\nsampling: {SAMPLED[cell['model']].label}, {cell['batch']} at once")
    for row, line in cell["rows"].items():
        print(
            f"  {ROWS[row].label:40} {line['ms']:9.3f} ms an example   ours / this "
            f"{shown(line['ours_over_this'])}   bound {line['bound'][0]:.2f}",
            flush=True,
        )
