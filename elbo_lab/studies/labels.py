"""Models p(x|y) as classifiers by Bayes' rule, beside classifiers of pixels; and what they give as
models of x, beside one without labels.
"""

from pathlib import Path
from typing import Any

from elbo_lab.evaluation import scikit_learn
from elbo_lab.reports import classification_figures
from elbo_lab.studies import analysed_study, label_analysis, label_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed
from elbo_lab.sweeps import sweep_results

MODELS: dict[str, Texts] = {
    "mlp, p(x|y)": {"model": "mlp", "condition": "label"},
    "mlp, p(x)": {"model": "mlp", "condition": "none"},
    "pixelcnn, p(x|y)": {"model": "pixelcnn", "condition": "label"},
}


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """The models.

    Raises:
      UserError: scikit-learn is not installed.
    """
    del settings, config_of
    scikit_learn.check_installed("The study labels")
    return crossed({label_analysis.AXIS: MODELS})


def results(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results; None while a cell waits, and without a classifier."""
    classified = _classified(path, sweep)
    return None if classified is None else label_results.content(sweep, classified)


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of the best model's confusion, and of all calibration curves; "" without a classifier."""
    classified = _classified(path, sweep)
    if classified is None:
        return ""
    classifiers = {classifier["name"]: classifier for classifier in classified["classifiers"]}
    models = [name for name in classifiers if name in MODELS]
    best = max(models, key=lambda name: classifiers[name]["accuracy"]["mean"])
    return classification_figures.figure(classifiers, best)


def _classified(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    return None if sweep_results.is_waiting(sweep) else label_analysis.read(path)


_table, _kept_in = analysed_study.table_and_file(label_results.FILE, results, label_results.text)

STUDY = Study(
    "labels",
    "How well does a generative model classify, by Bayes' rule?",
    {
        "dataset": "mnist_small",
        "batch_size": "50",
        "epochs": "15",
        "learning_rate": "0.002",
        "eval_k": "100",
        "replicates": "1",
        # Settings of the cells of mlp.
        "objective": "elbo",
        "k": "1",
        # Settings of the cell of pixelcnn, which is small: it takes most of the time.
        "width": "8",
        "layers": "3",
        "output_width": "16",
    },
    choices,
    caption="Left: test images by their class and the class that Bayes' rule gives them, by the "
    "model that is right most often. Right: the share of predictions that are right against their "
    "confidence, and the expected calibration error (ECE).",
    table=_table,
    kept_in=_kept_in,
    drawing=drawing,
    after_training=label_analysis.compute,
    needs_labels=True,
)
