"""The measure `classification` of a stored run: Bayes' rule, beside two classifiers of pixels."""

from typing import Any

import numpy as np

from elbo_lab.data import Dataset
from elbo_lab.evaluation import (
    Evaluation,
    classification,
    measures,
    pixel_classifiers,
    scikit_learn,
)
from elbo_lab.reports import classification_figures, results
from elbo_lab.runs import examples
from elbo_lab.runs.instruments import Instrument, Outcome, Settings
from elbo_lab.runs.loading import Trained

NAME = "classification"
# The name of the run's own classifier in tables and figures.
OWN = "the model"


def check(trained: Trained, settings: Settings, dataset: Dataset) -> None:
    """Refuses a run that cannot be classified by, before anything is computed.

    Raises:
      ValueError: the run's model is no p(x|y).
      UserError: scikit-learn is not installed.
    """
    del settings, dataset
    measures.classification(trained.method)
    if trained.spec.kind == "image":
        scikit_learn.check_installed(f"--measures={NAME}")


def measure(
    trained: Trained, settings: Settings, dataset: Dataset, values: Evaluation, seed: int
) -> Outcome:
    """Classifies the test examples by Bayes' rule, and images by their pixels.

    Args:
      trained: a run; its training examples give p(y), and fit the classifiers of pixels.
      settings: of the evaluation; not read.
      dataset: its test examples are classified.
      values: of the measure `classification` over the test examples.
      seed: not read.

    Returns:
      Quantities of each test example, beside the likelihoods; rows of all classifiers; and
      "classes", "prior" [C] and "classifiers": name -> "confusion" [C, C] and "calibration".
    """
    del settings, seed
    classes, label = trained.method.classes, np.asarray(dataset.y_test)
    prior = classification.frequencies(trained.dataset.y_train, classes)
    name, log_px_y = classification.likelihoods(values)
    log_px, log_posterior = classification.posterior(log_px_y, prior)
    own = classification.per_example(log_posterior, label)
    log_posteriors = {OWN: log_posterior} | _by_pixels(trained, dataset)
    rows, classifiers = [], {}
    for classifier, log_py_x in log_posteriors.items():
        curve = classification.calibration(np.exp(log_py_x), label)
        measured = classification.per_example(log_py_x, label)
        rows += results.classifier_results(classifier, measured, curve.error, trained.spec.kind)
        counts = classification.confusion(log_py_x.argmax(axis=1), label, classes)
        classifiers[classifier] = {"confusion": counts, "calibration": curve._asdict()}
    summary = {"classes": classes, "prior": prior, "classifiers": classifiers}
    return Outcome({classification.SUMMED[name]: log_px} | own, rows, summary)


def _by_pixels(trained: Trained, dataset: Dataset) -> dict[str, np.ndarray]:
    """log p(y|x) of the test images by each classifier of pixels; {} for other kinds of data."""
    if trained.spec.kind != "image":
        return {}
    train = examples.all_of_train(trained.config, trained.dataset, trained.spec)
    test = examples.test_examples(trained.config, dataset, trained.spec)
    return pixel_classifiers.log_posteriors(
        np.asarray(train.x), np.asarray(train.label), np.asarray(test.x), trained.method.classes
    )


def _figure(summary: dict[str, Any]) -> str:
    return classification_figures.figure(summary["classifiers"], OWN)


INSTRUMENT = Instrument(check, measure, ("classification.svg", _figure))
