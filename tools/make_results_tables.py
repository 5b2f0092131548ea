"""Updates the tables of documents (PAGES) and figures of studies (FIGURES) from code and results/.

    python -m tools.make_results_tables

A test fails if they are out of date.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from elbo_lab import configs
from elbo_lab.cli import run_flags
from elbo_lab.cli.protocols import PROTOCOLS
from elbo_lab.reports import (
    codebook_figures,
    collapse_figures,
    discrete_figures,
    disentangle_figures,
    documents,
    feature_figures,
    information_figures,
    svg_figures,
)
from elbo_lab.studies import (
    autoencoder_results,
    codebook_results,
    collapse_results,
    comparison_results,
    computed,
    discrete_results,
    disentangle_results,
    explicit_results,
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
RESULTS, DOCS = ROOT / "results", ROOT / "docs"
SYSTEMS = DOCS / "systems"


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


def stored(results: ModuleType) -> Callable[[], str]:
    """The function that makes a study's tables of its stored results."""
    return lambda: results.markdown(results.read(RESULTS))


def comparison(name: str) -> Callable[[], str]:
    """The function that makes the table of a published comparison of its stored results."""
    return lambda: comparison_results.markdown(name, comparison_results.read(RESULTS, name))


def likelihood_tables() -> str:
    """The tables of the study likelihoods."""
    return likelihood_results.markdown(computed.read(likelihoods.STUDY, RESULTS))


def binary_gradients() -> str:
    """The gradients of binary draws, as the study discrete measured them."""
    return discrete_results.gradients_markdown(discrete_results.read(RESULTS))


def explicit_table() -> str:
    """The systems on MNIST beside published values, as README.md shows them."""
    return explicit_results.readme(explicit_results.read(RESULTS))


def collapse_figure() -> str:
    """KL and L_K over the steps, of the study collapse."""
    results = collapse_results.read(RESULTS)
    return collapse_figures.figure(results["rows"], results["eval_k"])


def likelihood_figure() -> str:
    """The estimates of the study likelihoods."""
    return likelihoods.figure(computed.read(likelihoods.STUDY, RESULTS)["results"])


# Document -> the name of each of its tables, and the function that makes it.
PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"explicit": explicit_table},
    DOCS / "protocols.md": {
        "protocols": protocols,
        "table1": stored(table1_results),
        "fast_protocol": search,
        "time_to_nll": stored(time_to_nll_results),
        **{name: comparison(name) for name in published.COMPARISONS},
    },
    DOCS / "bounds.md": {"binary_gradients": binary_gradients},
    SYSTEMS / "mixtures.md": {"mixtures": stored(mixture_results)},
    SYSTEMS / "features.md": {"features": stored(feature_results)},
    SYSTEMS / "likelihoods.md": {"likelihoods": likelihood_tables},
    SYSTEMS / "autoencoder.md": {"autoencoder": stored(autoencoder_results)},
    SYSTEMS / "discrete.md": {"discrete": stored(discrete_results)},
    SYSTEMS / "information.md": {"information": stored(information_results)},
    SYSTEMS / "collapse.md": {"collapse": stored(collapse_results)},
    SYSTEMS / "disentanglement.md": {"disentangle": stored(disentangle_results)},
    SYSTEMS / "labels.md": {"labels": stored(label_results)},
    SYSTEMS / "explicit.md": {"explicit": stored(explicit_results)},
    SYSTEMS / "codebooks.md": {"codebooks": stored(codebook_results)},
}


# Study -> the function that draws the figure of its page. The figures of autoencoder, labels and
# mixtures show more than their results hold, and are copied from the study's folder.
FIGURES: dict[str, Callable[[], str]] = {
    "codebooks": lambda: codebook_figures.figure(codebook_results.read(RESULTS)["rows"]),
    "collapse": collapse_figure,
    "discrete": lambda: discrete_figures.figure(discrete_results.read(RESULTS)["rows"]),
    "disentangle": lambda: disentangle_figures.figure(disentangle_results.read(RESULTS)["rows"]),
    "features": lambda: feature_figures.accuracies(feature_results.read(RESULTS)["rows"]),
    "information": lambda: information_figures.study(information_results.read(RESULTS)),
    "likelihoods": likelihood_figure,
}


def updated(path: Path) -> str:
    """The text of a document with its tables made anew."""
    text = path.read_text()
    for name, content in PAGES[path].items():
        text = documents.replaced(text, name, content())
    return text


def source(study: str) -> str:
    """The last line of a study's figure: which results it shows.

    A test compares it, since the drawing itself is another in each version of matplotlib.
    """
    digest = hashlib.sha256((RESULTS / f"{study}.json").read_bytes()).hexdigest()
    return f"<!-- results/{study}.json, sha256 {digest} -->"


def main() -> int:
    """Writes the documents and the figures whose results have changed."""
    for path in PAGES:
        path.write_text(updated(path))
        print(f"wrote {path}")
    for study, draw in FIGURES.items():
        path = SYSTEMS / f"{study}.svg"
        if not path.exists() or source(study) not in path.read_text():
            path.write_text(f"{svg_figures.standalone(draw())}\n{source(study)}\n")
            print(f"drew {path}")
    return 0


if __name__ == "__main__":
    run_flags.run(main, __doc__)
