"""Results of explicit models: a small JSON file for each system, and the table made of these files
beside published values.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elbo_lab import configs, json_files
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.evaluation import comparison, quantities
from elbo_lab.reports import documents, html_page, tables
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.runs import completing, evaluating, run_files, rundir
from elbo_lab.runs.instruments import Settings
from elbo_lab.studies import explicit, published, stored_results
from elbo_lab.studies.published import Likelihood
from elbo_lab.studies.study import Texts
from elbo_lab.sweeps import sweep_reporting

HEAD = (
    "system",
    "NLL",
    "estimate",
    "minus the VAE's",
    "published, dynamic",
    "published, static",
    "passes",
    "steps",
    "s of training",
)
# The columns of the table in README.md.
README_HEAD = ("system", "NLL", "estimate", "published, dynamic", "published, static")
_BINARIZATIONS = ("dynamic", "static")
_KIND = {
    "system": str,
    "nll": float,
    "standard_error": float,
    "symbol": str,
    "direction": str,
    "test_images": int,
    "difference?": {"mean": float, "low": float, "high": float, "kind": str},
    # By how much the second evaluation's bound is higher, over its images, paired.
    "gain?": {"symbol": str, "mean": float, "standard_error": float, "test_images": int},
    "seed": int,
    "commands": list[str],
    # One of each run of the system, in their order.
    "passes": list[int],
    "steps": list[int],
    "training_seconds": list[float],
    "device": str,
}
# What is compared to decide that a stored row has the same result.
_RESULT = ("nll", "standard_error", "difference", "gain", "commands", "steps")


def row_of_runs(
    name: str, folder: Path, config_of: Callable[[Texts], Config]
) -> dict[str, Any] | None:
    """The row of a system by its runs; None if one of them, or the evaluation, is not complete.

    Args:
      name: of the system.
      folder: of the runs, each named as in `explicit.stages`.
      config_of: the resolved config of flags.

    Raises:
      UserError: a run is not the one of the system's command, or it diverged.
    """
    system, stages = explicit.SYSTEMS[name], explicit.stages(name)
    if not all(completing.is_complete(folder / run) for run in stages):
        return None
    summaries = {run: run_files.read_summary(folder / run) for run in stages}
    configurations = {run: config_of(flags) for run, flags in stages.items()}
    for run, summary in summaries.items():
        _check(folder / run, summary, configurations[run])
    config, last = configurations[name], summaries[name]
    values = _values(name, folder, last)
    if values is None:
        return None
    log_px, gain = values
    nll = -log_px
    draws = {} if system.nll_draws is None else {"eval_k": system.nll_draws}
    quantity = quantities.QUANTITIES[system.quantity]
    row = {
        "system": name,
        "nll": float(nll.mean()),
        "standard_error": float(nll.std(ddof=1) / np.sqrt(len(nll))),
        "symbol": quantities.symbol(quantity, configs.to_dict(config) | draws),
        "direction": quantity.direction,
        "test_images": len(nll),
        "seed": config.seed,
        "commands": explicit.commands(name),
        "passes": [c.epochs for c in configurations.values()],
        "steps": [summary["steps"] for summary in summaries.values()],
        "training_seconds": [run_files.timing(summary)[0] for summary in summaries.values()],
        "date": max(stored_results.day(folder / run / rundir.SUMMARY) for run in stages),
        **{field: last[field] for field in ("device", "elbo_lab", "jax")},
        "config": configs.to_dict(config),
    }
    optional = {"difference": _difference(name, nll, folder), "gain": gain}
    return row | {field: value for field, value in optional.items() if value is not None}


def _check(path: Path, summary: Mapping[str, Any], config: Config) -> None:
    """Raises a UserError if a run has another config than that of its command, or diverged.

    The folder of a first stage may be another one.
    """
    stored = dict(summary["config"])
    if config.dataset.startswith("codes:") and stored["dataset"].startswith("codes:"):
        stored["dataset"] = config.dataset
    if different := configs.differences(config, stored):
        raise UserError(
            f"{path} is not the run of the table's command: {'; '.join(different)}. "
            "(The command: python -m tools.make_explicit_rows --list.)"
        )
    if summary["failed_replicates"]:
        raise UserError(f"{path} diverged; its row cannot be made.")


def _values(
    name: str, folder: Path, summary: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any] | None] | None:
    """The log-likelihood, or its bound, of each test image [N], nats; and "gain" of the row, None
    without one. None if the run still has to be evaluated by the system's number of draws.
    """
    system, path = explicit.SYSTEMS[name], folder / name
    own = completing.stored_evaluations(path, summary)[0][system.quantity].astype(np.float64)
    if system.draws is None:
        return own, None
    settings = Settings(eval_k=system.draws, test_examples=system.examples)
    evaluation = evaluating.stored_values(path, settings, summary["data"]["test_images"])
    if evaluation is None:
        return None
    second = evaluation[system.quantity].astype(np.float64)
    return (second, None) if system.examples is None else (own, _gain(system, own, second))


def _gain(system: explicit.System, own: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The mean of the second evaluation's bound [n] minus the run's own [N] of the same images."""
    pairs = comparison.difference({0: second}, {0: own[: len(second)]})
    quantity = quantities.QUANTITIES[system.quantity]
    return {
        "symbol": quantities.symbol(quantity, {"eval_k": system.draws}),
        "mean": pairs.mean,
        "standard_error": pairs.standard_error,
        "test_images": pairs.count,
    }


def _difference(name: str, nll: np.ndarray, folder: Path) -> dict[str, Any] | None:
    """The paired difference to the baseline's NLL; None for the baseline, or without its run.

    All runs see the same binary test images.
    """
    baseline = folder / explicit.BASELINE
    if name == explicit.BASELINE or not completing.is_complete(baseline):
        return None
    other = _values(explicit.BASELINE, folder, run_files.read_summary(baseline))
    if other is None:
        return None
    return comparison.difference({0: nll}, {0: -other[0]}, html_page.LEVEL)._asdict()


def write(folder: Path, row: dict[str, Any]) -> None:
    """Writes a row into a folder, unless the same result is there, whose date is kept.

    Raises:
      UserError: the file cannot be written, or the one that is there is damaged.
    """
    path = folder / f"{explicit.NAME}-{row['system']}.json"
    old = json_files.read(path, _KIND) if path.exists() else {}
    if any(old.get(field) != row.get(field) for field in _RESULT):
        stored_results.write(path, row)


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows in a folder, in the order of `explicit.SYSTEMS`.

    Raises:
      UserError: a row is damaged.
    """
    paths = [folder / f"{explicit.NAME}-{name}.json" for name in explicit.SYSTEMS]
    return [json_files.read(path, _KIND) for path in paths if path.exists()]


def texts_of(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts, one for each column of HEAD."""
    name = row["system"]
    difference = "the baseline" if name == explicit.BASELINE else NOT_APPLICABLE
    if "difference" in row:
        difference = tables.interval(row["difference"])
    shown = [
        " / ".join(map(published_text, _published(name, binarization)))
        for binarization in _BINARIZATIONS
    ]
    return (
        explicit.SYSTEMS[name].title,
        f"{row['nll']:.2f} +- {row['standard_error']:.2f}",
        f"{row['symbol']}, {row['direction']}{_gain_text(row)}",
        difference,
        *(text or NOT_APPLICABLE for text in shown),
        " + ".join(map(str, row["passes"])),
        " + ".join(f"{steps:,}" for steps in row["steps"]),
        " + ".join(f"{seconds:.0f}" for seconds in row["training_seconds"]),
    )


def _gain_text(row: dict[str, Any]) -> str:
    """ " (L_5000: 0.52 +- 0.04 higher, 100 images)"; "" for a row without a gain."""
    if "gain" not in row:
        return ""
    gain = row["gain"]
    value = tables.with_error(abs(gain["mean"]), gain["standard_error"])
    side = "lower" if gain["mean"] < 0 else "higher"
    return f" ({gain['symbol']}: {value} {side}, {gain['test_images']:,} images)"


def _published(name: str, binarization: str) -> list[Likelihood]:
    return [p for p in published.EXPLICIT[name] if p.binarization == binarization]


def published_text(value: Likelihood) -> str:
    """A published value: "79.02 (bound 79.66)", "80.54?"."""
    bound = "" if value.bound is None else f" (bound {value.bound:.2f})"
    return f"{value.nll:.2f}{'' if value.verified else '?'}{bound}"


def orders(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for our order of the systems, the best first, and one for each published order of the
    same systems.
    """
    if len(rows) < 2:
        return []
    ours = {row["system"]: row["nll"] for row in rows}
    lines = [f"Order by our numbers: {_order(ours)}."]
    for binarization in _BINARIZATIONS:
        values = {name: _published(name, binarization) for name in ours}
        first = {name: found[0].nll for name, found in values.items() if found}
        if len(first) > 1:
            lines.append(f"Published, {binarization}: {_order(first)}.")
    return lines


def _order(nll: Mapping[str, float]) -> str:
    return " < ".join(explicit.SYSTEMS[name].title for name in sorted(nll, key=nll.get))


def notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Explanations of the columns, as far as the rows need them."""
    images = " or ".join(f"{number:,}" for number in sorted({row["test_images"] for row in rows}))
    kinds = dict.fromkeys(row["difference"]["kind"] for row in rows if "difference" in row)
    sources = dict.fromkeys(p.source for row in rows for p in published.EXPLICIT[row["system"]])
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    lines = [
        "NLL: minus the estimate in the third column, nats per test image, lower is better; +- one "
        f"standard error over {images} images; seed {seeds}. From a lower bound of log p(x) it is "
        "at or above the true NLL. All systems are measured on the same binary test images.",
        f"minus the VAE's: the difference of NLL with its {html_page.LEVEL:.0%} interval"
        + "".join(f", {comparison.COVERS[kind]}" for kind in kinds)
        + ".",
        *orders(rows),
        "Published: NLL with dynamic binarization, as ours, and with Larochelle's static images, "
        f"which do not compare with ours. Sources: {'; '.join(sources)}.",
        f"Devices: {'; '.join(sorted({row['device'] for row in rows}))}.",
    ]
    if any("gain" in row for row in rows):
        lines.append(
            "In brackets: by how many nats the bound of more draws is higher or lower, the mean "
            "over the first test images +- one standard error, paired. NLL and difference of such "
            "a row are by the bound before the brackets, over all images."
        )
    if any(not p.verified for row in rows for p in published.EXPLICIT[row["system"]]):
        lines.append("?: the published number was not read in the paper.")
    return lines


def text(rows: Sequence[dict[str, Any]]) -> str:
    """The table for a terminal."""
    if not rows:
        return "No system is complete yet."
    return sweep_reporting.with_notes([HEAD, *map(texts_of, rows)], notes(rows))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for a document, and the commands of all systems."""
    lines = [_wrapped(line) for name in explicit.SYSTEMS for line in explicit.commands(name)]
    block = "\n".join(["```", *lines, "```"])
    if not rows:
        return f"No system is complete yet.\n\n{block}"
    table = documents.table(HEAD, [texts_of(row) for row in rows])
    return "\n\n".join([table, *notes(rows), block])


def readme(rows: Sequence[dict[str, Any]]) -> str:
    """The table for README.md: the columns README_HEAD of all rows."""
    columns = [HEAD.index(name) for name in README_HEAD]
    return documents.table(README_HEAD, [tuple(texts_of(row)[i] for i in columns) for row in rows])


def _wrapped(command: str) -> str:
    """A command line as a document shows it, on several lines."""
    parts = textwrap.wrap(
        f".venv/bin/{command}", 112, break_long_words=False, break_on_hyphens=False
    )
    return " \\\n    ".join(parts)
