"""The results of table1: a small JSON file for each cell, and the table made from these files."""

import contextlib
import hashlib
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from elbo_lab import configs, evaluation, json_files
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.evaluation import ACTIVE_THRESHOLD, quantities
from elbo_lab.reports import documents
from elbo_lab.runs import completing, run_files, rundir
from elbo_lab.studies import published, stored_results
from elbo_lab.sweeps import sweep_reporting, sweep_results

PREFIX = "table1-"
# Pattern of the run directories of an earlier version, which were named by `slug`.
EARLIER = "*-[12]-*ae-k*-s*-r*"
# The fields of a row that the table shows; active_units is [replicates, layers].
_KIND = {
    "data": str,
    "model": str,
    "protocol": str,
    "device": str,
    "layers": int,
    "k": int,
    "steps": int,
    "budget": float,
    "nll": list[float],
    "active_units": list[list[float]],
    "nll_standard_error_over_images": float | None,  # null for one image
    "config": {"batch_size": int, "eval_k": int, "au_images": int | None},
}
# K of L_K in the paper's table.
PAPER_K = 5000
HEAD = (
    "data",
    "layers",
    "model",
    "k",
    "protocol",
    "steps x B",
    "NLL",
    "AU",
    "paper",
    "AU",
    "diff.",
    "reached",
)


def slug(row: dict[str, Any]) -> str:
    """A name for a directory or a file, different for each cell of the table."""
    data, config = row["data"], row["config"]
    if data.endswith(".npz"):  # files in different folders may have the same name
        data = f"{Path(data).stem}_{hashlib.sha256(data.encode()).hexdigest()[:6]}"
    name = f"{data.replace('/', '_')}-{row['layers']}-{row['model']}-k{row['k']}-{row['protocol']}"
    name += f"-{row['budget']:g}-s{config['seed']}-r{config['replicates']}"
    if start := config.get("init_from"):
        name += f"-from-{Path(start).name}"
    return name + (f"-L{config['eval_k']}" if config["eval_k"] != PAPER_K else "")


def rows_of_sweep(
    path: Path, sweep: dict[str, Any], settings: dict[str, str]
) -> list[dict[str, Any]]:
    """The rows of the cells whose replicates have all been trained, or have failed.

    Args:
      path: the sweep's folder.
      sweep: the content of sweep.json.
      settings: flag -> text, of all cells; "protocol" and "budget" are read.
    """
    return [
        make_row(entry, path, sweep["command"], settings["protocol"], float(settings["budget"]))
        for entry in sweep["cells"]
        if "results" in entry and sweep_results.WAITING not in entry["failures"].values()
    ]


def make_row(
    entry: dict[str, Any], path: Path, command: str, protocol: str, budget: float
) -> dict[str, Any]:
    """What is stored of a complete cell.

    Args:
      entry: the cell's entry in sweep.json; its replicates may be in several runs.
      path: the sweep's folder.
      command: the command line of the sweep.
      protocol: the protocol of the cell.
      budget: the factor on its epochs.
    """
    values, config = entry["values"], entry["config"]
    runs = {name: path / name for name in dict.fromkeys(run["run"] for run in entry["runs"])}
    summaries = {name: run_files.read_summary(run) for name, run in runs.items()}
    stored = {n: completing.stored_evaluations(run, summaries[n]) for n, run in runs.items()}
    evaluations = [stored[run["run"]][run["replicate"]] for run in entry["runs"]]
    nll = [float(-np.mean(e["log_likelihood"], dtype=np.float64)) for e in evaluations]
    images = -np.mean([e["log_likelihood"] for e in evaluations], axis=0, dtype=np.float64)
    seconds, speeds = zip(*map(run_files.timing, summaries.values()), strict=True)
    any_summary = next(iter(summaries.values()))
    return {
        "data": values["data"],
        "layers": int(values["layers"]),
        "model": values["model"],
        "k": int(values["k"]),
        "protocol": protocol,
        "budget": budget,
        "nll": nll,
        "nll_standard_error_over_images": float(np.std(images, ddof=1) / math.sqrt(len(images))),
        "unit": f"nats per test image, minus L_{config['eval_k']}",
        "test_images": len(images),
        "active_units": [_active_units(e) for e in evaluations],
        "seeds": [run["seed"] for run in entry["runs"]],
        "failed_replicates": sorted(int(seed) - config["seed"] for seed in entry["failures"]),
        "steps": any_summary["steps"],
        "training_seconds": sum(seconds),
        "steps_per_second": sum(speeds) / len(speeds),  # the mean over runs
        "device": any_summary["device"],
        "elbo_lab": any_summary["elbo_lab"],
        "jax": any_summary["jax"],
        "date": max(stored_results.day(run / rundir.SUMMARY) for run in runs.values()),
        "command": stored_results.shown_command(command),
        "config": config,
    }


def _active_units(values: evaluation.Evaluation) -> list[int]:
    """The number of active units of each layer, over training images if these were evaluated."""
    layers = quantities.layers(values, "train") or quantities.layers(values)
    return [int(np.sum(evaluation.activity(means) > ACTIVE_THRESHOLD)) for means in layers]


def write(folder: Path, row: dict[str, Any]) -> None:
    """Writes a row into a folder, unless the same result is there, whose date is kept.

    Raises:
      UserError: the file cannot be written.
    """
    path = folder / f"{PREFIX}{slug(row)}.json"
    with contextlib.suppress(UserError):  # a file that is missing or damaged is written again
        old = json_files.read(path, _KIND)
        same = all(old[key] == row[key] for key in ("nll", "active_units"))
        # Versions differ in the fields of a configuration that they store.
        if same and not configs.differences(configs.from_dict(row["config"]), old["config"]):
            return
    stored_results.write(path, row)


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows in a folder, in the order of the table; damaged files are skipped with a warning."""
    rows = []
    for path in sorted(folder.glob(f"{PREFIX}*.json")):
        try:
            rows.append(json_files.read(path, _KIND))
        except UserError as error:
            warnings.warn(f"{error}; its cell is left out", DamageWarning, stacklevel=1)
    return sorted(
        rows,
        key=lambda row: (
            row["data"],
            row["layers"],
            row["protocol"],
            -row["budget"],
            row["k"],
            row["model"] != "vae",
        ),
    )


def texts_of(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts, one for each column of HEAD."""
    nll = np.asarray(row["nll"])
    mean = float(np.mean(nll))
    ours = f"{mean:.2f}"
    if len(nll) > 1:
        ours += f" +- {np.std(nll, ddof=1) / math.sqrt(len(nll)):.2f} ({len(nll)} seeds)"
    elif (error := row["nll_standard_error_over_images"]) is not None:
        ours += f" +- {error:.2f}"
    units = np.mean(row["active_units"], axis=0)
    paper = None
    if row["config"]["eval_k"] == PAPER_K:  # bounds of other K do not compare
        paper = published.TABLE1.get(_key(row))
    paper_texts = ("", "", "", "")
    if paper:
        mark = "" if paper.verified else "?"
        difference = f"{mean - paper.nll:+.2f}"
        reached = "yes" if mean <= paper.nll else "no"
        paper_texts = (f"{paper.nll:.2f}{mark}", paper.active_units + mark, difference, reached)
    return (
        row["data"],
        str(row["layers"]),
        row["model"],
        str(row["k"]),
        _shown_protocol(row),
        f"{row['steps']:,} x {row['config']['batch_size']} ({row['budget']:g})",
        ours,
        "+".join(f"{unit:g}" for unit in units),
        *paper_texts,
    )


def _shown_protocol(row: dict[str, Any]) -> str:
    """The protocol, and the run at whose parameters the row's run started, if any."""
    start = row["config"].get("init_from")
    return row["protocol"] + (f" from {Path(start).name}" if start else "")


def _key(row: dict[str, Any]) -> tuple[str, int, str, int]:
    """The key of a row's cell in `published.TABLE1`."""
    return row["data"], row["layers"], row["model"], row["k"]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Explanations of the columns, as far as the rows need them."""
    bounds = " or ".join(f"L_{k}" for k in sorted({r["config"]["eval_k"] for r in rows}))
    of_train = sorted(
        {(r["protocol"], r["config"]["au_images"]) for r in rows if r["config"]["au_images"]}
    )
    lines = [
        f"NLL: nats per test image by {bounds}, lower is better; +- one standard error, over seeds "
        "where there are several and else over the test images. Most of the latter is common to "
        "runs on the same images, so that their differences are known more closely.",
        "diff.: ours minus the paper's. reached: ours is at or below the paper's.",
        "AU: latent dimensions whose posterior mean has a variance above 0.01 over the test images"
        + "".join(f" ({name}: the first {n:,} training images)" for name, n in of_train)
        + ".",
        *_notes_of_starts(rows),
        "steps x B (budget): steps of so many images each, and the share of the protocol's passes.",
        f"Devices: {'; '.join(sorted({r['device'] for r in rows}))}.",
    ]
    papers = [published.TABLE1.get(_key(row)) for row in rows]
    if any(paper and not paper.verified for paper in papers):
        lines.append("?: the paper's number is quoted from elsewhere, and was not verified.")
    return lines


def _notes_of_starts(rows: list[dict[str, Any]]) -> list[str]:
    if not any(row["config"].get("init_from") for row in rows):
        return []
    return [
        "from RUN: started at the parameters of that run (--init_from); steps are those after it."
    ]


def text(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    if not rows:
        return "No cell is complete yet."
    return sweep_reporting.with_notes([HEAD, *map(texts_of, rows)], notes(rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for a document."""
    if not rows:
        return "No cell is complete yet."
    return "\n\n".join([documents.table(HEAD, [*map(texts_of, rows)]), *notes(rows)])
