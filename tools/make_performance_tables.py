"""Writes the tables of docs/performance.md anew, from results/.

    python -m tools.make_performance_tables

A test fails where they are out of date. The figures are `experiments.benchmark`'s, with
--json=results/benchmark_cpu.json.
"""

import re
from pathlib import Path
from typing import Any

from benchmarks.peers import OURS, ROWS
from benchmarks.systems import SYSTEMS
from elbo_lab.cli import run_flags
from elbo_lab.files import read_json
from elbo_lab.reports import documents

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, FIGURES = ROOT / "docs" / "performance.md", ROOT / "results" / "benchmark_cpu.json"

# Targets: fractions of the limit, and ours over a peer, by (B, k).
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
# What commands write parts of.
PARTS = ("train", "systems", "replicates", "evaluate", "start", "peer_start", "memory")


def machine(found: dict[str, Any]) -> str:
    """What was measured, on what, with which versions."""
    runs = [part["run"] for part in _parts(found)]
    versions: dict[str, str] = {}
    for run in runs:
        versions |= run["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    dates = sorted({run["date"] for run in runs})
    lines = [
        f"{found['processor'] or found['machine']}, {found['device']}, {dates[-1]}; "
        f"Python {runs[-1]['python']}, {packages}.",
        "",
        "```",
        *dict.fromkeys(_command(run) for run in runs),
        "```",
    ]
    return "\n".join(lines)


def limit(found: dict[str, Any]) -> str:
    """Ours against the limit, a row each cell."""
    rows = []
    for cell in found["train"]:
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
        *("B, k", "steps/s", "of the limit", "target", "limit, steps/s", "limit, GFLOP/s"),
        "of products together",
    )
    return documents.table(head, rows)


def ratios(found: dict[str, Any]) -> str:
    """Ours over each peer, a column each cell."""
    cells = found["train"]
    rows = []
    for row in _peer_rows(found):
        rows.append(
            (ROWS[row].says, *(_ratio(c["rows"].get(row), "ours_over_this") for c in cells))
        )
        if row in RATIOS:
            targets = [f"*{RATIOS[row][c['batch'], c['k']]:.2f}*" for c in cells]
            rows.append(("*target*", *targets))
    ceiling = [
        f"{c['rows'][OURS]['steps_per_s'] / c['rows'][OURS]['fraction'] / eager:.2f}"
        if (eager := c["rows"].get("pytorch", {}).get("steps_per_s"))
        else ""
        for c in cells
    ]
    rows.append(("the limit over PyTorch eager", *ceiling))
    return documents.table(("ours over", *map(_cell, cells)), rows)


def speeds(found: dict[str, Any]) -> str:
    """Steps per second of every row."""
    cells = found["train"]
    rows = [
        (
            ROWS[row].says,
            *(_rate(c["rows"][row]["steps_per_s"]) if row in c["rows"] else "" for c in cells),
        )
        for row in (OURS, *_peer_rows(found))
    ]
    return documents.table(("steps per second", *map(_cell, cells)), rows)


def bounds(found: dict[str, Any]) -> str:
    """Mean L_k at the common start and after some steps, per row."""
    cells = found["train"]
    steps = [c["rows"][OURS]["bound_after_steps"] for c in cells]
    rows = [
        (
            ROWS[row].says,
            *(
                f"{c['rows'][row]['bound_at_start'][0]:.2f}, {c['rows'][row]['bound_after'][0]:.2f}"
                if row in c["rows"]
                else ""
                for c in cells
            ),
        )
        for row in (OURS, *_peer_rows(found))
    ]
    names = [f"{_cell(c)}, {n} steps" for c, n in zip(cells, steps, strict=True)]
    return documents.table(("mean L_k, start and after", *names), rows)


def systems(found: dict[str, Any]) -> str:
    """The other model families: steps per second of every row, ratios and losses."""
    rows = []
    for cell in found["systems"]:
        for row, line in cell["rows"].items():
            start, after = line["bound_at_start"][0], line["bound_after"][0]
            rows.append(
                (
                    SYSTEMS[cell["model"]].says if row == OURS else "",
                    ROWS[row].says,
                    _rate(line["steps_per_s"]),
                    "" if row == OURS else _ratio(line, "ours_over_this"),
                    f"{-start:.2f}, {-after:.2f}",
                    f"{line['peak_memory_mb']:.0f}",
                )
            )
    steps = found["systems"][0]["rows"][OURS]["bound_after_steps"]
    head = (
        *("model", "", "steps/s", "ours over it"),
        *(f"loss at start, after {steps} steps", "peak memory, MB"),
    )
    return documents.table(head, rows)


def memory(found: dict[str, Any]) -> str:
    """Peak resident memory, and time to the first step."""
    cells = found["train"]
    start = found.get("peer_start", {})
    rows = []
    for row in (OURS, *_peer_rows(found)):
        peaks = [c["rows"][row]["peak_memory_mb"] for c in cells if row in c["rows"]]
        times = start.get(row)
        rows.append(
            (
                ROWS[row].says,
                f"{times['cold_s']:.1f}, {times['warm_s']:.1f}" if times else "",
                f"{min(peaks):.0f} to {max(peaks):.0f}",
            )
        )
    return documents.table(
        ("", "seconds to the first ten steps: cold, warm", "peak memory, MB"), rows
    )


def evaluation(found: dict[str, Any]) -> str:
    """L_5000 in images per second."""
    part = found["evaluate"]
    rows = []
    for row, line in part["rows"].items():
        low, high = line["fraction_quartiles"]
        rows.append(
            (
                ROWS[row].says,
                f"{line['images_per_s']:.1f}",
                f"{line['fraction']:.2f} ({low:.2f}, {high:.2f})",
                _ratio(line, "ours_over_this"),
                f"{line['value']:.2f}",
            )
        )
    rows.append(("the limit", f"{part['limit_images_per_s']:.1f}", "1", "", ""))
    head = (
        f"L_{part['draws']} of {part['images']} images",
        *("images/s", f"of the limit (target {EVALUATION})", "ours over", "mean L_5000"),
    )
    return documents.table(head, rows)


def replicates(found: dict[str, Any]) -> str:
    """Throughput of R replicates relative to one."""
    cells: dict[tuple, dict] = {}
    for cell in found["replicates"]:
        cells.setdefault((cell["batch"], cell["k"]), {})[cell["replicates"]] = cell
    numbers = sorted({number for cell in cells.values() for number in cell})
    rows = [
        (
            f"{batch}, {k}",
            *(_ratio(cell.get(number), "throughput_over_one") for number in numbers),
        )
        for (batch, k), cell in sorted(cells.items())
    ]
    heads = [
        f"R = {number}" + (f" (target {REPLICATES} at k = 1)" if number == 2 else "")
        for number in numbers
    ]
    return documents.table(("B, k", *heads), rows)


def speed(found: dict[str, Any]) -> str:
    """Ours, against the limit and against the two peers of most interest."""
    rows = []
    for cell in found["train"]:
        own = cell["rows"][OURS]
        low, high = own["fraction_quartiles"]
        peers = [_ratio(cell["rows"].get(row), "ours_over_this") for row in RATIOS]
        fraction = f"{own['fraction']:.2f} ({low:.2f}, {high:.2f})"
        rows.append((_cell(cell), _rate(own["steps_per_s"]), fraction, *peers))
    head = ("B, k", "steps/s", "of the limit", *(f"ours over {ROWS[row].says}" for row in RATIOS))
    return documents.table(head, rows)


def performance(text: str, found: dict[str, Any]) -> str:
    """docs/performance.md with its tables made anew."""
    parts = dict.fromkeys((speed, machine, limit, ratios, speeds, bounds, memory), "train")
    parts |= {systems: "systems", evaluation: "evaluate", replicates: "replicates"}
    for part, needed in parts.items():
        table = part(found) if needed in found else "Not measured on this machine yet."
        text = documents.replaced(text, part.__name__, table)
    return text


def _parts(found: dict[str, Any]) -> list[dict[str, Any]]:
    """All that was measured by a command of its own."""
    listed = [part for name in PARTS if name in found for part in _listed(found[name])]
    return [part for part in listed if "run" in part]


def _listed(part: Any) -> list[dict[str, Any]]:
    return part if isinstance(part, list) else [part]


def _command(run: dict[str, Any]) -> str:
    return re.sub(r" --json=\S+", f" --json={FIGURES.relative_to(ROOT)}", run["command"])


def _peer_rows(found: dict[str, Any]) -> list[str]:
    present = {row for cell in found["train"] for row in cell["rows"]}
    return [row for row in ROWS if row in present and row != OURS]


def _cell(cell: dict[str, Any]) -> str:
    return f"{cell['batch']}, {cell['k']}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 30 else f"{rate:.1f}"


def _ratio(line: dict[str, Any] | None, name: str) -> str:
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
