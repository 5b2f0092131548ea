"""Speed of the library, as ratios measured in one run.

    python -m experiments.benchmark                    all of it, about a quarter of an hour
    python -m experiments.benchmark --parts=train --cells=20x5 --rounds=15
    python -m experiments.benchmark --peers=pytorch,pyro,numpyro,pythae

train       steps per second of `train.fit`, on the IWAE paper's one-layer model and full-size uint8
            data, against the matrix-multiplication limit: the step's matrix products, each timed
            alone at its shape in a scan, one after the other, alternating with the step. "together"
            times them as one program, in which independent products overlap: a bound that no
            dependent chain of products can reach. Peers train the same model by the same objective
            in turns with it.
evaluate    L_5000 in images per second, against the generation network's products alone; memory.
start       process start to the first training step: cold, and with a warm compilation cache; the
            imports that are part of it; `import elbo_lab.losses` on top of jax and NumPyro. With
            peers: process start to the first ten steps, ours and theirs.
memory      peak memory of a training process with 60,000 images.
replicates  steps of a replicate per second with R = 1, 2, 4, 8 in one program, relative to R = 1.

Peers are of the extra `peers`: pip install -e ".[peers]".
"""

import platform
import sys
import tempfile
from datetime import date
from typing import Any

import jax
from absl import flags

from benchmarks import merging, peers, processes, training
from benchmarks.peers import OURS, ROWS
from elbo_lab.cli import run_flags
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.files import write_summary

PARTS = ("train", "evaluate", "start", "memory", "replicates")
REPLICATES = (1, 2, 4, 8)


def main() -> int:
    """Prints a table a part, and writes all figures as JSON if asked."""
    values = flags.FLAGS
    parts = values.parts.split(",")
    wrong = [part for part in parts if part not in PARTS]
    if wrong:
        raise UserError(f"--parts must be of {', '.join(PARTS)}; got {wrong[0]!r}.")
    if not 0.01 <= values.burst <= 3600:
        raise UserError(f"--burst must lie in 0.01..3600, seconds; got {values.burst}.")
    pairs, rows = cells(values.cells), peers.rows(values.peers)
    found: dict[str, Any] = {
        "command": "python -m experiments.benchmark " + " ".join(sys.argv[1:]),
        "date": date.today().isoformat(),
        "device": setup.describe(),
        "processor": setup.processor(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {"jax": jax.__version__, **peers.versions(rows)},
    }
    before = merging.earlier(values.json, found)
    print(f"jax {jax.__version__} on {found['device']}")

    def keep(part: str, value: Any) -> None:
        found[part] = value
        if values.json:
            write_summary(values.json, merging.merged(before, found))

    if "train" in parts:
        print_head(rows)
        done = []
        for batch, k in pairs:
            cell = training.measure_train(batch, k, rows, values.rounds, values.burst, warn)
            done.append(cell)
            keep("train", done)
            print_cell(cell)
    if "replicates" in parts:
        measured = training.measure_replicates(REPLICATES, pairs, values.rounds, values.burst)
        keep("replicates", measured)
        print("\nreplicates        R   steps/s   over R = 1 (quartiles)")
        for cell in found["replicates"]:
            ratio = shown(cell["throughput_over_one"])
            print(
                f"B = {cell['batch']:3d}, k = {cell['k']:2d}  {cell['replicates']:2d} "
                f"{cell['replicate_steps_per_s']:9.1f}   {ratio}"
            )
    fewer = max(3, values.rounds // 3)
    if "evaluate" in parts:
        keep("evaluate", training.measure_evaluate(rows, fewer, values.burst, warn))
        print_evaluate(found["evaluate"])
    if "start" in parts:
        keep("start", processes.measure_start(fewer))
        print_figures("start", found["start"])
        if rows:
            with tempfile.TemporaryDirectory() as folder:
                keep("peer_start", training.measure_peer_start([OURS, *rows], fewer, folder, warn))
            for row, figures in found["peer_start"].items():
                print_figures(ROWS[row].says, figures)
    if "memory" in parts:
        keep("memory", processes.measure_memory())
        print_figures("memory", found["memory"])
    return 0


def warn(sentence: str) -> None:
    """To people, apart from the figures."""
    print(sentence, file=sys.stderr, flush=True)


def print_head(rows: list[str]) -> None:
    """The training table's head."""
    print("\ntraining                 steps/s   of the limit (quartiles)", end="")
    print("   ours / this (quartiles)   MB   L_k at start, after" if rows else "")


def print_cell(cell: dict[str, Any]) -> None:
    """A cell of the training table, a line each for us, the peers and the limit."""
    print(f"B = {cell['batch']}, k = {cell['k']}")
    for row, line in cell["rows"].items():
        fraction = {"median": line["fraction"], "quartiles": line["fraction_quartiles"]}
        text = f"  {ROWS[row].says:22} {line['steps_per_s']:7.1f}   {shown(fraction)}"
        if len(cell["rows"]) > 1:
            bounds = f"{line['bound_at_start'][0]:.2f}, {line['bound_after'][0]:.2f}"
            text += f"          {shown(line['ours_over_this'])}          "
            text += f"{line['peak_memory_mb']:5.0f}   {bounds}"
        print(text)
    together = cell["fraction_of_together"]
    print(f"  {'the limit':22} {cell['limit_steps_per_s']:7.1f}", end="   ")
    print(f"(ours is {together:.2f} of products together)", flush=True)


def print_evaluate(found: dict[str, Any]) -> None:
    """Images per second, a line each."""
    head = f"L_{found['draws']}"
    print(f"\n{head:34} images/s   of the limit   ours / this (quartiles)   value")
    for row, line in found["rows"].items():
        print(
            f"  {ROWS[row].says:33} {line['images_per_s']:7.1f}   {line['fraction']:12.2f}"
            f"   {shown(line['ours_over_this'])}   {line['value']:.2f}"
        )
    print(f"  {'the limit':33} {found['limit_images_per_s']:7.1f}")
    print(f"  temporary_bytes: {found['temporary_bytes']}", flush=True)


def print_figures(title: str, figures: dict[str, float]) -> None:
    """Names and numbers."""
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name}: {value:.3g}", flush=True)


def shown(ratio: dict[str, Any]) -> str:
    """ "0.62 (0.60 0.65)"."""
    low, high = ratio["quartiles"]
    return f"{ratio['median']:.2f} ({low:.2f} {high:.2f})"


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
    flags.DEFINE_string("peers", "", f"libraries to compare with, of {', '.join(peers.PEERS)}")
    flags.DEFINE_integer("rounds", 15, "alternations of the library and the limit", lower_bound=1)
    flags.DEFINE_float("burst", 0.4, "seconds of each timed piece of work")
    flags.DEFINE_string(
        "json",
        None,
        "also write all figures to this file, beside what it holds of the same machine",
    )
    run_flags.run(main, __doc__)
