"""What table1 leaves: a small JSON file per cell, and the table made of them."""

import contextlib
import datetime
import hashlib
import math
import re
import shlex
import textwrap
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elbo_lab import configs, evaluation, json_files
from elbo_lab.configs import Config
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.evaluation import ACTIVE_THRESHOLD, quantities
from elbo_lab.files import write_summary
from elbo_lab.reports import documents
from elbo_lab.runs import completing, run_files, rundir
from elbo_lab.studies import published

PREFIX = "table1-"
# Names of the directories that the version before made for cells, as `slug` gives them.
EARLIER = "*-[12]-*ae-k*-s*-r*"
# What of a command decides no numbers: folders are everyone's own.
_OWN = re.compile(
    r"--(workdir|results_dir|data_dir|manual_dir|platform|compilation_cache_dir|jobs)="
)
# What of a result the table shows; arrays of AU are [replicates, layers].
_KIND = {
    **{"data": str, "model": str, "protocol": str, "device": str},
    **{"layers": int, "k": int, "steps": int, "budget": float},
    "nll": list[float],
    "active_units": list[list[float]],
    "nll_standard_error_over_images": float | None,  # null where there is one image
    "config": {"batch_size": int, "eval_k": int, "au_images": int | None},
}
# K of L_K in the paper's table.
PAPER_K = 5000
HEAD = (
    *("data", "layers", "model", "k", "protocol", "steps x B"),
    *("NLL", "AU", "paper", "AU", "diff."),
)


class Cell(NamedTuple):
    """One cell of Table 1, by one protocol at one budget."""

    data: str
    layers: int
    model: str  # "vae", "iwae"
    k: int
    protocol: str
    budget: float
    config: Config


def slug(cell: Cell) -> str:
    """A directory's or file's name, of its own for each cell."""
    data = cell.data
    if data.endswith(".npz"):  # Files of one name may lie in several folders.
        data = f"{Path(data).stem}_{hashlib.sha256(data.encode()).hexdigest()[:6]}"
    name = f"{data.replace('/', '_')}-{cell.layers}-{cell.model}-k{cell.k}-{cell.protocol}"
    name += f"-{cell.budget:g}-s{cell.config.seed}-r{cell.config.replicates}"
    return name + (f"-L{cell.config.eval_k}" if cell.config.eval_k != PAPER_K else "")


def row(cell: Cell, entry: dict[str, Any], path: Path, command: str) -> dict[str, Any]:
    """What is stored of a complete cell.

    Args:
      cell: which one.
      entry: its own in sweep.json; its replicates may lie in several runs.
      path: the sweep's folder.
      command: that made it.
    """
    runs = {name: path / name for name in dict.fromkeys(run["run"] for run in entry["runs"])}
    summaries = {name: run_files.read_summary(run) for name, run in runs.items()}
    stored = {n: completing.stored_evaluations(run, summaries[n]) for n, run in runs.items()}
    kept = [stored[run["run"]][run["replicate"]] for run in entry["runs"]]
    nll = [float(-np.mean(e["log_likelihood"], dtype=np.float64)) for e in kept]
    layers = [quantities.layers(e, "train") or quantities.layers(e) for e in kept]
    active = [[int(np.sum(evaluation.activity(m) > ACTIVE_THRESHOLD)) for m in ms] for ms in layers]
    images = -np.mean([e["log_likelihood"] for e in kept], axis=0, dtype=np.float64)
    seconds, speeds = zip(*map(run_files.timing, summaries.values()), strict=True)
    any_summary = next(iter(summaries.values()))
    return {
        "data": cell.data,
        "layers": cell.layers,
        "model": cell.model,
        "k": cell.k,
        "protocol": cell.protocol,
        "budget": cell.budget,
        "nll": nll,
        "nll_standard_error_over_images": float(np.std(images, ddof=1) / math.sqrt(len(images))),
        "unit": f"nats per test image, minus L_{cell.config.eval_k}",
        "test_images": len(images),
        "active_units": active,
        "seeds": [run["seed"] for run in entry["runs"]],
        "failed_replicates": sorted(int(seed) - cell.config.seed for seed in entry["failures"]),
        "steps": any_summary["steps"],
        "training_seconds": sum(seconds),
        "steps_per_second": sum(speeds) / len(speeds),  # of a run
        "device": any_summary["device"],
        "elbo_lab": any_summary["elbo_lab"],
        "jax": any_summary["jax"],
        "date": max(_day(run / rundir.SUMMARY) for run in runs.values()),
        "command": shlex.join(part for part in shlex.split(command) if not _OWN.match(part)),
        "config": configs.to_dict(cell.config),
    }


def _day(file: Path) -> str:
    """The day of its last change."""
    return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).date().isoformat()


def write(folder: Path, cell: Cell, found: dict[str, Any]) -> None:
    """Writes a result beside the others, unless the same one is there (its date stays).

    Raises:
      UserError: the disk refuses.
    """
    path = folder / f"{PREFIX}{slug(cell)}.json"
    with contextlib.suppress(UserError):  # what is lost or damaged is written anew
        old = json_files.read(path, _KIND)
        same = all(old[key] == found[key] for key in ("nll", "active_units"))
        # Other versions store other fields of the same configuration.
        if same and not configs.differences(configs.from_dict(found["config"]), old["config"]):
            return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
    write_summary(path, found)


def read(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder, in the table's order; those that are damaged are left out, with a
    warning.
    """
    rows = []
    for path in sorted(folder.glob(f"{PREFIX}*.json")):
        try:
            rows.append(json_files.read(path, _KIND))
        except UserError as error:
            warnings.warn(f"{error}; its cell is left out", DamageWarning, stacklevel=1)
    return sorted(
        rows,
        key=lambda r: (
            r["data"],
            r["layers"],
            r["protocol"],
            -r["budget"],
            r["k"],
            r["model"] != "vae",
        ),
    )


def cells_of(found: dict[str, Any]) -> tuple[str, ...]:
    """A result as the texts of a row under HEAD."""
    nll = np.asarray(found["nll"])
    mean = float(np.mean(nll))
    ours = f"{mean:.2f}"
    if len(nll) > 1:
        ours += f" +- {np.std(nll, ddof=1) / math.sqrt(len(nll)):.2f} ({len(nll)})"
    units = np.mean(found["active_units"], axis=0)
    paper = None
    if found["config"]["eval_k"] == PAPER_K:  # Bounds of other K do not compare.
        paper = published.TABLE1.get(tuple(found[n] for n in ("data", "layers", "model", "k")))
    theirs = ("", "", "")
    if paper:
        mark = "" if paper.verified else "?"
        theirs = (f"{paper.nll:.2f}{mark}", paper.active_units + mark, f"{mean - paper.nll:+.2f}")
    return (
        found["data"],
        str(found["layers"]),
        found["model"],
        str(found["k"]),
        found["protocol"],
        f"{found['steps']:,} x {found['config']['batch_size']} ({found['budget']:g})",
        ours,
        "+".join(f"{unit:g}" for unit in units),
        *theirs,
    )


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the columns mean, as far as the rows need it."""
    bounds = " or ".join(f"L_{k}" for k in sorted({r["config"]["eval_k"] for r in rows}))
    of_train = sorted(
        {(r["protocol"], r["config"]["au_images"]) for r in rows if r["config"]["au_images"]}
    )
    # NaN of one image.
    errors = [r["nll_standard_error_over_images"] or math.nan for r in rows]
    found = [
        f"NLL: nats per test image by {bounds}, lower is better; +- one standard error over "
        "(replicates) where there are several. Over the test images the standard error of a value "
        f"is {np.nanmin(errors):.2f} to {np.nanmax(errors):.2f}, most of which runs on the same "
        "images share.",
        "AU: latent dimensions whose posterior mean has a variance above 0.01 over the test images"
        + "".join(f" ({name}: the first {n:,} training images)" for name, n in of_train)
        + ".",
        "steps x B (budget): steps of so many images each, and the share of the protocol's passes.",
        f"Devices: {'; '.join(sorted({r['device'] for r in rows}))}.",
    ]
    keys = [tuple(r[n] for n in ("data", "layers", "model", "k")) for r in rows]
    if any(key in published.TABLE1 and not published.TABLE1[key].verified for key in keys):
        found.append("?: the paper's number is quoted from elsewhere, and was not verified.")
    return found


def text(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    if not rows:
        return "No cell is complete yet."
    lines = [HEAD, *map(cells_of, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    shown = [
        "  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    wrapped = [textwrap.fill(note, 100, subsequent_indent="  ") for note in notes(rows)]
    return "\n".join([*shown, "", *wrapped])


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for a document."""
    if not rows:
        return "No cell is complete yet."
    return "\n\n".join([documents.table(HEAD, [*map(cells_of, rows)]), *notes(rows)])
