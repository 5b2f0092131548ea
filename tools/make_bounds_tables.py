"""Updates the tables of docs/bounds.md from the catalogue of objectives and the estimators.

    python -m tools.make_bounds_tables

A test fails if they are out of date.
"""

from pathlib import Path

from elbo_lab import losses
from elbo_lab.cli import run_flags
from elbo_lab.losses import catalogue, estimator_notes
from elbo_lab.reports import documents

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "bounds.md"
KINDS = (
    catalogue.LOG_WEIGHTS,
    catalogue.PER_EXAMPLE,
    catalogue.WHOLE_BATCH,
    catalogue.TWO_TARGETS,
)


def objectives() -> str:
    """A table for each kind of objective."""
    parts = []
    for kind in KINDS:
        rows = [
            (f"`{name}`", e.formula, e.population, e.finite, e.cost, e.paper, _estimators_of(e))
            for name, e in losses.CATALOGUE.items()
            if e.kind == kind
        ]
        head = ("", "quantity", "unlimited draws", "K draws", "draws per example", "source")
        parts.append(f"**Objectives {kind}**\n\n{documents.table((*head, 'estimators'), rows)}")
    return "\n\n".join(parts)


def estimators() -> str:
    """A table of all estimators."""
    rows = [
        (f"`{name}`", *entry)
        for name, entry in estimator_notes.ESTIMATOR_NOTES.items()
        if name in losses.ESTIMATORS
    ]
    head = ("", "p's parameters", "path of a draw", "d log q(z_k)", "bias", "needs", "source")
    return documents.table(head, rows)


def document(text: str) -> str:
    """The document with its tables updated."""
    text = documents.replaced(text, "objectives", objectives())
    return documents.replaced(text, "estimators", estimators())


def _estimators_of(entry: catalogue.Entry) -> str:
    """The estimators that an objective takes, in few words."""
    if not entry.estimators:
        return "its own"
    if set(entry.estimators) == set(losses.ESTIMATORS):
        return "all"
    missing = [name for name in losses.ESTIMATORS if name not in entry.estimators]
    if len(missing) <= 4:
        return f"all but {', '.join(missing)}"
    binary = losses.estimators.BINARY_ESTIMATORS
    names = [name for name in entry.estimators if name not in binary]
    if binary <= set(entry.estimators):
        names.append("those of binary draws")
    return ", ".join(names)


def main() -> int:
    """Writes docs/bounds.md."""
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    run_flags.run(main, __doc__)
