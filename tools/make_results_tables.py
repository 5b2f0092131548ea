"""Writes the tables of docs/protocols.md anew, from the code and results/.

    python -m tools.make_results_tables

A test fails where they are out of date.
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
    """The settings in which the protocols differ from each other, one a line."""
    values = [configs.flat(config) for config in PROTOCOLS.values()]
    names = [name for name in values[0] if all(name in each for each in values)]
    differing = [name for name in names if len({each[name] for each in values}) > 1]
    rows = [(f"`--{name}`", *(configs.shown(each[name]) for each in values)) for name in differing]
    return documents.table(("", *(f"`{name}`" for name in PROTOCOLS)), rows)


def document(text: str) -> str:
    """The document with its tables made anew."""
    text = documents.replaced(text, "protocols", protocols())
    return documents.replaced(text, "table1", table1_results.markdown(table1_results.read(RESULTS)))


def main() -> int:
    """Writes docs/protocols.md."""
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
    print(f"wrote {DOCUMENT}")
    return 0


if __name__ == "__main__":
    run_flags.run(main, __doc__)
