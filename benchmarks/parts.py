"""Measures the parts of the benchmark one after the other; keeps and prints the figures of each."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import mixtures, optimizers, printing, processes, sampling, systems, training
from benchmarks.peers import DRAW_ROWS, MIXTURE_ROWS, OURS, ROWS, SYSTEM_ROWS
from elbo_lab.errors import UserError

PARTS = (
    "train",
    "systems",
    "mixtures",
    "sampling",
    "evaluate",
    "start",
    "memory",
    "replicates",
    "optimizers",
)
REPLICATES = (1, 2, 4, 8)


class Request(NamedTuple):
    """The flags of the benchmark."""

    parts: Sequence[str]
    pairs: Sequence[tuple[int, int]]  # batch size and k of each training cell
    rows: list[str]  # of peers
    rounds: int  # alternations of the library, the peers and the limit
    burst: float  # seconds of each timed piece of work

    @property
    def network_rows(self) -> list[str]:
        """The rows of peers that train the IWAE paper's networks."""
        return [row for row in self.rows if row not in MIXTURE_ROWS]


def measure(request: Request, keep: Callable[[str, Any], None]) -> None:
    """Measures and prints the requested parts.

    Args:
      request: the parts, and how to measure them.
      keep: called with the name and the figures of a part when they are known; for "train",
        "systems", "sampling" and "optimizers" after every cell.
    """
    rows, rounds, burst = request.network_rows, request.rounds, request.burst
    if "train" in request.parts:
        _measure_train(request, keep)
    if "systems" in request.parts:
        _measure_systems(request, keep)
    if "mixtures" in request.parts:
        _measure_mixtures(request, keep)
    if "sampling" in request.parts:
        _measure_sampling(request, keep)
    if "replicates" in request.parts:
        measured = training.measure_replicates(REPLICATES, request.pairs, rounds, burst)
        keep("replicates", measured)
        printing.print_replicates(measured)
    if "optimizers" in request.parts:
        _measure_optimizers(request, keep)
    fewer = max(3, rounds // 3)
    if "evaluate" in request.parts:
        measured = training.measure_evaluate(rows, fewer, burst, warn)
        keep("evaluate", measured)
        printing.print_evaluate(measured)
    if "start" in request.parts:
        _measure_start(rows, fewer, keep)
    if "memory" in request.parts:
        measured = processes.measure_memory()
        keep("memory", measured)
        printing.print_figures("memory", measured)


def _measure_train(request: Request, keep: Callable[[str, Any], None]) -> None:
    rows = request.network_rows
    printing.print_head(rows)
    done = []
    for batch, k in request.pairs:
        cell = training.measure_train(batch, k, rows, request.rounds, request.burst, warn)
        done.append(cell)
        keep("train", done)
        printing.print_cell(cell)


def _measure_systems(request: Request, keep: Callable[[str, Any], None]) -> None:
    rows = [SYSTEM_ROWS[row] for row in request.rows if row in SYSTEM_ROWS]
    done = []
    for name, system in systems.SYSTEMS.items():
        cell = systems.measure_system(name, rows, request.rounds, request.burst, warn)
        done.append(cell)
        keep("systems", done)
        printing.print_system(system.label, cell)


def _measure_mixtures(request: Request, keep: Callable[[str, Any], None]) -> None:
    rows = [row for row in request.rows if row in MIXTURE_ROWS]
    measured = mixtures.measure_mixtures(rows, request.rounds, warn)
    keep("mixtures", measured)
    printing.print_mixtures(measured)


def _measure_sampling(request: Request, keep: Callable[[str, Any], None]) -> None:
    rows = [DRAW_ROWS[row] for row in request.rows if row in DRAW_ROWS]
    done = []
    for name in sampling.SAMPLED:
        cell = sampling.measure_sampling(name, rows, max(3, request.rounds // 2), warn)
        done.append(cell)
        keep("sampling", done)
        sampling.print_sampling(cell)


def _measure_optimizers(request: Request, keep: Callable[[str, Any], None]) -> None:
    done = []
    for batch in optimizers.BATCHES:
        cell = optimizers.measure_optimizers(batch, request.rounds, request.burst)
        done.append(cell)
        keep("optimizers", done)
        printing.print_optimizers(cell)


def _measure_start(rows: list[str], rounds: int, keep: Callable[[str, Any], None]) -> None:
    measured = processes.measure_start(rounds)
    keep("start", measured)
    printing.print_figures("start", measured)
    if not rows:
        return
    with tempfile.TemporaryDirectory() as folder:
        measured = training.measure_peer_start([OURS, *rows], rounds, folder, warn)
        keep("peer_start", measured)
    for row, figures in measured.items():
        printing.print_figures(ROWS[row].label, figures)


def warn(sentence: str) -> None:
    """Prints a sentence to standard error."""
    print(sentence, file=sys.stderr, flush=True)


def cells(text: str) -> list[tuple[int, int]]:
    """ "20x5,128x1" as pairs of batch size and k."""
    try:
        pairs = [tuple(int(number) for number in cell.split("x")) for cell in text.split(",")]
    except ValueError:
        pairs = []
    if not pairs or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise UserError(f"--cells must be pairs B x k such as 20x5,128x1; got {text!r}.")
    return pairs
