"""Updates the tables of docs/protocols.md, docs/bounds.md (measured gradients) and of pages in
docs/systems/ from code and results/.

    python -m tools.make_results_tables

A test fails if they are out of date.
"""

from collections.abc import Callable
from pathlib import Path

from elbo_lab import configs
from elbo_lab.cli import run_flags
from elbo_lab.cli.protocols import PROTOCOLS
from elbo_lab.reports import documents
from elbo_lab.studies import (
    autoencoder_results,
    collapse_results,
    comparison_results,
    computed,
    discrete_results,
    disentangle_results,
    fast_protocol,
    feature_results,
    halving_table,
    information_results,
    label_results,
    likelihood_results,
    likelihoods,
    mixture_results,
    published,
    table1_results,
    time_to_nll_results,
)

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, RESULTS = ROOT / "docs" / "protocols.md", ROOT / "results"
BOUNDS = ROOT / "docs" / "bounds.md"
SYSTEMS = ROOT / "docs" / "systems"


def protocols() -> str:
    """A row for each setting in which the protocols differ, and a column for each protocol.

    A cell is empty if the protocol leaves the setting open, or has another optimizer or objective.
    """
    settings = [configs.all_values(config) for config in PROTOCOLS.values()]
    rows = []
    for name in dict.fromkeys(name for values in settings for name in values):
        texts = [configs.flag_text(values.get(name)) for values in settings]
        if len(set(texts)) > 1:
            rows.append((f"`--{name}`", *texts))
    return documents.table(("", *(f"`{name}`" for name in PROTOCOLS)), rows)


def search() -> str:
    """The candidates of the study fast_protocol, if its results are stored."""
    path = RESULTS / f"{fast_protocol.STUDY.name}.json"
    if not path.exists():
        return "No search is complete yet."
    return halving_table.markdown(halving_table.read(path))


def document(text: str) -> str:
    """The document with its tables updated."""
    text = documents.replaced(text, "protocols", protocols())
    tables = {
        "table1": table1_results.markdown(table1_results.read(RESULTS)),
        "fast_protocol": search(),
        "time_to_nll": time_to_nll_results.markdown(time_to_nll_results.read(RESULTS)),
    }
    for name in published.COMPARISONS:
        tables[name] = comparison_results.markdown(name, comparison_results.read(RESULTS, name))
    for name, content in tables.items():
        text = documents.replaced(text, name, content)
    return text


def mixtures_page(text: str) -> str:
    """The page of the study mixtures with its tables updated."""
    results = mixture_results.markdown(mixture_results.read(RESULTS))
    return documents.replaced(text, "mixtures", results)


def features_page(text: str) -> str:
    """The page of the study features with its table updated."""
    results = feature_results.markdown(feature_results.read(RESULTS))
    return documents.replaced(text, "features", results)


def likelihoods_page(text: str) -> str:
    """The page of the study likelihoods with its tables updated."""
    stored = computed.read(likelihoods.STUDY, RESULTS)
    return documents.replaced(text, "likelihoods", likelihood_results.markdown(stored))


def autoencoder_page(text: str) -> str:
    """The page of the study autoencoder with its tables updated."""
    results = autoencoder_results.markdown(autoencoder_results.read(RESULTS))
    return documents.replaced(text, "autoencoder", results)


def discrete_page(text: str) -> str:
    """The page of the study discrete with its table updated."""
    results = discrete_results.markdown(discrete_results.read(RESULTS))
    return documents.replaced(text, "discrete", results)


def information_page(text: str) -> str:
    """The page of the study information with its tables updated."""
    results = information_results.markdown(information_results.read(RESULTS))
    return documents.replaced(text, "information", results)


def collapse_page(text: str) -> str:
    """The page of the study collapse with its table updated."""
    results = collapse_results.markdown(collapse_results.read(RESULTS))
    return documents.replaced(text, "collapse", results)


def labels_page(text: str) -> str:
    """The page of the study labels with its tables updated."""
    results = label_results.markdown(label_results.read(RESULTS))
    return documents.replaced(text, "labels", results)


def bounds_page(text: str) -> str:
    """The page of bounds with the measured gradients of binary draws updated."""
    results = discrete_results.gradients_markdown(discrete_results.read(RESULTS))
    return documents.replaced(text, "binary_gradients", results)


def disentanglement_page(text: str) -> str:
    """The page of the study disentangle with its table updated."""
    results = disentangle_results.markdown(disentangle_results.read(RESULTS))
    return documents.replaced(text, "disentangle", results)


# The documents, and the functions that update them.
PAGES: dict[Path, Callable[[str], str]] = {
    DOCUMENT: document,
    SYSTEMS / "mixtures.md": mixtures_page,
    SYSTEMS / "features.md": features_page,
    SYSTEMS / "likelihoods.md": likelihoods_page,
    SYSTEMS / "autoencoder.md": autoencoder_page,
    SYSTEMS / "discrete.md": discrete_page,
    SYSTEMS / "information.md": information_page,
    SYSTEMS / "collapse.md": collapse_page,
    SYSTEMS / "disentanglement.md": disentanglement_page,
    SYSTEMS / "labels.md": labels_page,
    BOUNDS: bounds_page,
}


def main() -> int:
    """Writes the documents."""
    for path, updated in PAGES.items():
        path.write_text(updated(path.read_text()))
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    run_flags.run(main, __doc__)
