"""The results of the study labels: their file, and the tables made of it."""

from pathlib import Path
from typing import Any

from elbo_lab.models.conditions import LABEL
from elbo_lab.reports import documents
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.reports.tables import with_error
from elbo_lab.studies import stored_results
from elbo_lab.studies.label_analysis import AXIS, VALUE
from elbo_lab.sweeps import sweep_reporting

FILE = "labels.json"
_MODEL = {
    "name": str,
    "log_px_y?": VALUE,
    "log_px": VALUE,
    "over": str | None,
    "is_exact": bool,
    "steps": int,
    "seconds": float,
}
_CLASSIFIER = {"name": str, "accuracy": VALUE, "log_py": VALUE, "calibration_error": float}
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "test": int,
    "draws": int,
    "batch_size": int,
    "replicates": int,
    "models": list[_MODEL],
    "classifiers": list[_CLASSIFIER],
}
_Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def content(sweep: dict[str, Any], classified: dict[str, Any]) -> dict[str, Any]:
    """The stored results of a sweep and of what `label_analysis` has computed, JSON-ready."""
    done = [cell for cell in sweep["cells"] if stored_results.is_complete(cell)]
    config = done[0]["config"]
    return {
        **stored_results.conditions(sweep),
        "data": config["dataset"],
        "test": sweep["data"][0]["test_images"],
        "draws": config["eval_k"],
        "batch_size": config["batch_size"],
        "replicates": config["replicates"],
        "models": [_model(cell, classified["log_px"]) for cell in done],
        "classifiers": [
            {name: classifier[name] for name in ("name", "accuracy", "log_py")}
            | {"calibration_error": classifier["calibration"]["error"]}
            for classifier in classified["classifiers"]
        ],
    }


def _model(cell: dict[str, Any], summed: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """A model's log-likelihoods: with labels, that given the class and that summed over classes."""
    name, headline = cell["values"][AXIS], cell["results"][cell["headline"]]
    own = {field: headline[field] for field in VALUE}
    likelihoods = {"log_px": own}
    if cell["config"].get("condition") == LABEL:
        likelihoods = {"log_px_y": own, "log_px": summed[name]}
    return {
        "name": name,
        **likelihoods,
        "over": headline["over"],
        "is_exact": cell["headline"] == "log_px",
        "steps": cell["steps"],
        "seconds": cell["training_seconds"],
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def models_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of log-likelihoods."""
    head = ("model", "log p(x|y), the true class", "log p(x)", "by", "steps", "training, s")
    rows = [
        (
            row["name"],
            _text(row["log_px_y"]) if "log_px_y" in row else NOT_APPLICABLE,
            _text(row["log_px"]),
            "exact" if row["is_exact"] else f"L_{results['draws']}",
            f"{row['steps']:,}",
            f"{row['seconds']:.0f}",
        )
        for row in results["models"]
    ]
    return head, rows


def classifiers_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of classifiers."""
    head = ("classifier", "accuracy, %", "log p(y|x), nats", "calibration error")
    rows = [
        (
            row["name"],
            _text(row["accuracy"], 100),
            _text(row["log_py"]),
            f"{row['calibration_error']:.3f}",
        )
        for row in results["classifiers"]
    ]
    return head, rows


def _text(value: dict[str, float | None], scale: float = 1) -> str:
    """A mean with its standard error, both multiplied by `scale`."""
    error = value["standard_error"]
    return with_error(scale * value["mean"], None if error is None else scale * error)


def models_note(results: dict[str, Any]) -> str:
    """Explanations of the table of log-likelihoods."""
    over = " or ".join(dict.fromkeys(row["over"] for row in results["models"] if row["over"]))
    error = f"; +- one standard error over {over}" if over else ""
    return (
        f"Nats per test image of {results['data']}{error}. log p(x) of a model with labels: "
        "log sum_y p(y) p(x|y). L_K is a lower bound in expectation. "
        f"Batches of {results['batch_size']}; replicates: {results['replicates']}; "
        f"devices: {'; '.join(results['devices'])}."
    )


def classifiers_note(results: dict[str, Any]) -> str:
    """Explanations of the table of classifiers."""
    return (
        f"The {results['test']:,} test images, the models by Bayes' rule. log p(y|x): of the true "
        "class. Calibration error: mean distance between confidence and accuracy, in ten bins. "
        "Errors of the classifiers of pixels are over images."
    )


def text(results: dict[str, Any]) -> str:
    """The tables for a terminal."""
    parts = []
    for (head, rows), note in _tables(results):
        parts.append(sweep_reporting.with_notes([head, *rows], [note]))
    return "\n\n".join(parts)


def markdown(results: dict[str, Any] | None) -> str:
    """The tables for a document."""
    if results is None:
        return "No study is stored yet."
    parts = []
    for table, note in _tables(results):
        parts += [documents.table(*table), note]
    return "\n\n".join(parts)


def _tables(results: dict[str, Any]) -> list[tuple[_Table, str]]:
    """Each table with the note below it."""
    return [
        (models_table(results), models_note(results)),
        (classifiers_table(results), classifiers_note(results)),
    ]
