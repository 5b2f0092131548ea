"""Updates the tables of docs/performance.md from results/.

    python -m tools.make_performance_tables

A test fails if they are out of date. The figures are those of `experiments.benchmark` with
--json=results/benchmark_cpu.json.
"""

import re
from pathlib import Path
from typing import Any

from benchmarks.optimizers import GRADIENT
from benchmarks.peers import OUR_DRAWS, OURS, ROWS
from benchmarks.sampling import SAMPLED
from benchmarks.systems import SYSTEMS
from elbo_lab.cli import run_flags
from elbo_lab.files import read_json
from elbo_lab.reports import documents

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, FIGURES = ROOT / "docs" / "performance.md", ROOT / "results" / "benchmark_cpu.json"

# Targets by (B, k): our fraction of the limit, and our speed divided by a peer's.
FRACTIONS = {(b, k): 0.70 if k == 50 else 0.62 for b in (20, 128) for k in (1, 5, 50)}
RATIOS = {
    "pytorch": {
        (20, 1): 4.0,
        (20, 5): 2.7,
        (20, 50): 2.1,
        (128, 1): 2.1,
        (128, 5): 2.5,
        (128, 50): 2.2,
    },
    "numpyro": dict.fromkeys(FRACTIONS, 1.05),
}
EVALUATION, REPLICATES = 0.71, 1.5
# Parts of the file of figures; each stores the command that measured it.
PARTS = (
    "train",
    "systems",
    "sampling",
    "mixtures",
    "replicates",
    "evaluate",
    "start",
    "peer_start",
    "memory",
    "optimizers",
)


def machine(figures: dict[str, Any]) -> str:
    """The machine, the versions of packages, and the commands of the figures."""
    runs = [part["run"] for part in _parts(figures)]
    versions: dict[str, str] = {}
    for run in runs:
        versions |= run["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    dates = sorted({run["date"] for run in runs})
    lines = [
        f"{figures['processor'] or figures['machine']}, {figures['device']}, {dates[-1]}; "
        f"Python {runs[-1]['python']}, {packages}.",
        "",
        "```",
        *dict.fromkeys(_command(run) for run in runs),
        "```",
    ]
    return "\n".join(lines)


def limit(figures: dict[str, Any]) -> str:
    """Our speed against the limit, a row for each cell."""
    rows = []
    for cell in figures["train"]:
        own = cell["rows"][OURS]
        low, high = own["fraction_quartiles"]
        rows.append(
            (
                _cell(cell),
                _rate(own["steps_per_s"]),
                f"{own['fraction']:.2f} ({low:.2f}, {high:.2f})",
                f"{FRACTIONS[cell['batch'], cell['k']]:.2f}",
                _rate(cell["limit_steps_per_s"]),
                f"{cell['limit_gflop_per_s']:.0f}",
                f"{cell['fraction_of_together']:.2f}",
            )
        )
    head = (
        "B, k",
        "steps/s",
        "of the limit",
        "target",
        "limit, steps/s",
        "limit, GFLOP/s",
        "of products together",
    )
    return documents.table(head, rows)


def ratios(figures: dict[str, Any]) -> str:
    """Our speed divided by each peer's, a column for each cell."""
    cells = figures["train"]
    rows = []
    for row in _peer_rows(figures):
        texts = [_spread(cell["rows"].get(row), "ours_over_this") for cell in cells]
        rows.append((ROWS[row].label, *texts))
        if row in RATIOS:
            targets = [f"*{RATIOS[row][cell['batch'], cell['k']]:.2f}*" for cell in cells]
            rows.append(("*target*", *targets))
    rows.append(("the limit over PyTorch eager", *map(_limit_over_pytorch, cells)))
    return documents.table(("ours over", *map(_cell, cells)), rows)


def _limit_over_pytorch(cell: dict[str, Any]) -> str:
    if "pytorch" not in cell["rows"]:
        return ""
    ours = cell["rows"][OURS]
    limit_steps_per_s = ours["steps_per_s"] / ours["fraction"]
    return f"{limit_steps_per_s / cell['rows']['pytorch']['steps_per_s']:.2f}"


def speeds(figures: dict[str, Any]) -> str:
    """Steps per second of every row."""
    cells = figures["train"]

    def text(cell: dict[str, Any], row: str) -> str:
        return _rate(cell["rows"][row]["steps_per_s"]) if row in cell["rows"] else ""

    rows = [
        (ROWS[row].label, *(text(cell, row) for cell in cells))
        for row in (OURS, *_peer_rows(figures))
    ]
    return documents.table(("steps per second", *map(_cell, cells)), rows)


def bounds(figures: dict[str, Any]) -> str:
    """Mean L_k of every row, at the common start and after some steps."""
    cells = figures["train"]

    def text(cell: dict[str, Any], row: str) -> str:
        if row not in cell["rows"]:
            return ""
        line = cell["rows"][row]
        return f"{line['bound_at_start'][0]:.2f}, {line['bound_after'][0]:.2f}"

    rows = [
        (ROWS[row].label, *(text(cell, row) for cell in cells))
        for row in (OURS, *_peer_rows(figures))
    ]
    names = [f"{_cell(cell)}, {cell['rows'][OURS]['bound_after_steps']} steps" for cell in cells]
    return documents.table(("mean L_k, start and after", *names), rows)


def systems(figures: dict[str, Any]) -> str:
    """The other model families: steps per second of every row, ratios and losses."""
    rows = []
    for cell in figures["systems"]:
        for row, line in cell["rows"].items():
            start, after = line["bound_at_start"][0], line["bound_after"][0]
            rows.append(
                (
                    SYSTEMS[cell["model"]].label if row == OURS else "",
                    ROWS[row].label,
                    _rate(line["steps_per_s"]),
                    "" if row == OURS else _spread(line, "ours_over_this"),
                    f"{-start:.2f}, {-after:.2f}",
                    f"{line['peak_memory_mb']:.0f}",
                )
            )
    steps = figures["systems"][0]["rows"][OURS]["bound_after_steps"]
    head = (
        "model",
        "",
        "steps/s",
        "ours over it",
        f"loss at start, after {steps} steps",
        "peak memory, MB",
    )
    return documents.table(head, rows)


def sampling(figures: dict[str, Any]) -> str:
    """Drawing examples: milliseconds of one in every row, and ratios."""
    rows = []
    for cell in figures["sampling"]:
        for row, line in cell["rows"].items():
            is_ours = row == OUR_DRAWS
            rows.append(
                (
                    SAMPLED[cell["model"]].label if is_ours else "",
                    ROWS[row].label,
                    f"{line['ms']:.3g}",
                    _rate(1e3 / line["ms"]),
                    "" if is_ours else _spread(line, "ours_over_this"),
                    f"{line['bound'][0]:.2f}",
                )
            )
    head = ("model", "", "ms an example", "examples/s", "ours over it", "minus the loss")
    return documents.table(head, rows)


def mixtures(figures: dict[str, Any]) -> str:
    """EM for a mixture: seconds of the iterations of every row, ratios and log-likelihoods."""
    part = figures["mixtures"]
    rows = []
    for row, line in part["rows"].items():
        rows.append(
            (
                ROWS[row].label,
                f"{line['seconds']:.2f}",
                f"{line['first_seconds']:.2f}",
                "" if row == OURS else _spread(line, "ours_over_this"),
                f"{line['log_px_at_start']:.4f}, {line['log_px_reached']:.4f}",
                f"{line['peak_memory_mb']:.0f}",
            )
        )
    head = (
        "",
        f"seconds of {part['iterations']} iterations",
        "the first time, with compilation",
        "ours over it",
        "log p(x) at the start, reached",
        "peak memory, MB",
    )
    return documents.table(head, rows)


def memory(figures: dict[str, Any]) -> str:
    """Peak resident memory, and time to the first step."""
    cells = figures["train"]
    start = figures.get("peer_start", {})
    rows = []
    for row in (OURS, *_peer_rows(figures)):
        peaks = [c["rows"][row]["peak_memory_mb"] for c in cells if row in c["rows"]]
        times = start.get(row)
        rows.append(
            (
                ROWS[row].label,
                f"{times['cold_s']:.1f}, {times['warm_s']:.1f}" if times else "",
                f"{min(peaks):.0f} to {max(peaks):.0f}",
            )
        )
    return documents.table(
        ("", "seconds to the first ten steps: cold, warm", "peak memory, MB"), rows
    )


def evaluation(figures: dict[str, Any]) -> str:
    """L_5000 in images per second."""
    part = figures["evaluate"]
    rows = []
    for row, line in part["rows"].items():
        low, high = line["fraction_quartiles"]
        rows.append(
            (
                ROWS[row].label,
                f"{line['images_per_s']:.1f}",
                f"{line['fraction']:.2f} ({low:.2f}, {high:.2f})",
                _spread(line, "ours_over_this"),
                f"{line['value']:.2f}",
            )
        )
    rows.append(("the limit", f"{part['limit_images_per_s']:.1f}", "1", "", ""))
    head = (
        f"L_{part['draws']} of {part['images']} images",
        "images/s",
        f"of the limit (target {EVALUATION})",
        "ours over",
        "mean L_5000",
    )
    return documents.table(head, rows)


def replicates(figures: dict[str, Any]) -> str:
    """Throughput of R replicates relative to one."""
    by_number: dict[tuple, dict] = {}  # (B, k) -> R -> what was measured
    for cell in figures["replicates"]:
        by_number.setdefault((cell["batch"], cell["k"]), {})[cell["replicates"]] = cell
    numbers = sorted({number for lines in by_number.values() for number in lines})
    rows = [
        (
            f"{batch}, {k}",
            *(_spread(lines.get(number), "throughput_over_one") for number in numbers),
        )
        for (batch, k), lines in sorted(by_number.items())
    ]
    heads = [
        f"R = {number}" + (f" (target {REPLICATES} at k = 1)" if number == 2 else "")
        for number in numbers
    ]
    return documents.table(("B, k", *heads), rows)


def optimizers(figures: dict[str, Any]) -> str:
    """A step's milliseconds with each optimizer, and their ratio to Adam at B = 100."""
    cells = figures["optimizers"]
    rows = []
    for row in cells[0]["rows"]:
        lines = [cell["rows"][row] for cell in cells]
        texts = [f"{line['ms']:.1f}; {_spread(line, 'over_reference')}" for line in lines]
        rows.append((ROWS[row].label, *texts))
    return documents.table(("ms a step; relative", *map(_batch, cells)), rows)


def optimizers_alone(figures: dict[str, Any]) -> str:
    """Milliseconds of a step beyond those of sgd, and those of the parts of SOAP's step."""
    cells = figures["optimizers"]
    rows = []
    for row in cells[0]["rows"]:
        if row != GRADIENT:
            lines = [cell["rows"][row] for cell in cells]
            rows.append((ROWS[row].label, *(_spread(line, "ms_beyond_gradient") for line in lines)))
    for part in cells[0]["soap_ms"]:
        rows.append((f"*soap: {part}*", *(_spread(cell["soap_ms"], part) for cell in cells)))
    return documents.table(("ms beyond a step of sgd", *map(_batch, cells)), rows)


def speed(figures: dict[str, Any]) -> str:
    """Our speed, against the limit and against the two peers that have targets."""
    rows = []
    for cell in figures["train"]:
        own = cell["rows"][OURS]
        low, high = own["fraction_quartiles"]
        peers = [_spread(cell["rows"].get(row), "ours_over_this") for row in RATIOS]
        fraction = f"{own['fraction']:.2f} ({low:.2f}, {high:.2f})"
        rows.append((_cell(cell), _rate(own["steps_per_s"]), fraction, *peers))
    head = ("B, k", "steps/s", "of the limit", *(f"ours over {ROWS[row].label}" for row in RATIOS))
    return documents.table(head, rows)


def performance(text: str, figures: dict[str, Any]) -> str:
    """The text of docs/performance.md with its tables updated."""
    parts = dict.fromkeys((speed, machine, limit, ratios, speeds, bounds, memory), "train")
    parts |= {systems: "systems", sampling: "sampling", mixtures: "mixtures"}
    parts |= {evaluation: "evaluate", replicates: "replicates"}
    parts |= dict.fromkeys((optimizers, optimizers_alone), "optimizers")
    for part, needed in parts.items():
        table = part(figures) if needed in figures else "Not measured on this machine yet."
        text = documents.replaced(text, part.__name__, table)
    return text


def _parts(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts, and the cells of parts, that store the command that measured them."""
    parts = []
    for name in PARTS:
        part = figures.get(name, [])
        parts += part if isinstance(part, list) else [part]
    return [part for part in parts if "run" in part]


def _command(run: dict[str, Any]) -> str:
    return re.sub(r" --json=\S+", f" --json={FIGURES.relative_to(ROOT)}", run["command"])


def _peer_rows(figures: dict[str, Any]) -> list[str]:
    present = {row for cell in figures["train"] for row in cell["rows"]}
    return [row for row in ROWS if row in present and row != OURS]


def _cell(cell: dict[str, Any]) -> str:
    return f"{cell['batch']}, {cell['k']}"


def _batch(cell: dict[str, Any]) -> str:
    return f"B = {cell['batch']:,}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 30 else f"{rate:.1f}"


def _spread(line: dict[str, Any] | None, name: str) -> str:
    """ "0.62 (0.60, 0.65)": the median and quartiles of a figure; "" if the line is None."""
    if line is None:
        return ""
    low, high = line[name]["quartiles"]
    return f"{line[name]['median']:.2f} ({low:.2f}, {high:.2f})"


def main() -> int:
    """Writes docs/performance.md."""
    DOCUMENT.write_text(performance(DOCUMENT.read_text(), read_json(FIGURES)))
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    run_flags.run(main, __doc__)
