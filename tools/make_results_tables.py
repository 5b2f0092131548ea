"""Updates the tables of docs/protocols.md from the code and results/.

    python -m tools.make_results_tables

A test fails if they are out of date.
"""

from pathlib import Path

from elbo_lab import configs
from elbo_lab.cli import run_flags
from elbo_lab.cli.protocols import PROTOCOLS
from elbo_lab.reports import documents
from elbo_lab.studies import table1_results

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, RESULTS = ROOT / "docs" / "protocols.md", ROOT / "results"


def protocols() -> str:
    """A row for each setting in which the protocols differ, and a column for each protocol."""
    settings = [configs.all_values(config) for config in PROTOCOLS.values()]
    rows = []
    for name in settings[0]:
        if not all(name in values for values in settings):
            continue
        texts = [configs.flag_text(values[name]) for values in settings]
        if len(set(texts)) > 1:
            rows.append((f"`--{name}`", *texts))
    return documents.table(("", *(f"`{name}`" for name in PROTOCOLS)), rows)


def document(text: str) -> str:
    """The document with its tables updated."""
    text = documents.replaced(text, "protocols", protocols())
    return documents.replaced(text, "table1", table1_results.markdown(table1_results.read(RESULTS)))


def main() -> int:
    """Writes docs/protocols.md."""
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    run_flags.run(main, __doc__)
