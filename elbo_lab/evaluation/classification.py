"""Classification by Bayes' rule from the likelihoods of every class (textbook section 13.1.3).

    p(y|x) = p(y) p(x|y) / p(x),    p(x) = sum_y p(y) p(x|y)

p(y) is the frequency of the class among the training examples. Where log p(x|y) is estimated by
L_K, each p(x|y) is estimated without bias, and so is their sum: by Jensen's inequality log p(x) is
then a lower bound in expectation. p(y|x) is an estimate whose bias falls with K.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from elbo_lab.evaluation.evaluator import Evaluation

# Bins of equal width of the calibration curve.
BINS = 10
# Arrays of a method's `measure_classes`, [N, C] -> the name of log p(x) made of them.
SUMMED = {"log_px_y": "log_px_summed", "log_likelihood_y": "log_likelihood_summed"}


class Calibration(NamedTuple):
    """Confidence and accuracy of the predictions, in bins of their confidence; [bins] each.

    Bins without predictions are left out.
    """

    confidence: np.ndarray  # the mean of max_y p(y|x)
    accuracy: np.ndarray  # the share of predictions that are right
    count: np.ndarray  # examples
    error: float  # expected calibration error


def frequencies(label: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class among labels [N] of 0..C-1: [C], float64."""
    return np.bincount(label, minlength=classes) / len(label)


def posterior(log_px_y: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) and log p(y|x) by Bayes' rule, in float64.

    Args:
      log_px_y: log p(x|y) of every class, [N, C], nats.
      prior: p(y), [C], positive.

    Returns:
      log p(x) [N], and log p(y|x) [N, C], nats.
    """
    log_joint = np.asarray(log_px_y, np.float64) + np.log(prior)
    log_px = logsumexp(log_joint, axis=1)
    return log_px, log_joint - log_px[:, None]


def calibration(probability: np.ndarray, label: np.ndarray, bins: int = BINS) -> Calibration:
    """The calibration curve of a classifier, and its expected calibration error

        ECE = sum_b n_b / N |accuracy_b - confidence_b|

    (Guo et al. 2017, equation 3), over bins of equal width of the confidence max_y p(y|x).

    Args:
      probability: p(y|x), [N, C].
      label: the true classes, [N].
      bins: their number.
    """
    confidence = probability.max(axis=1)
    is_right = probability.argmax(axis=1) == label
    # The last bin has its upper end, 1.
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    kept = count > 0

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, values, minlength=bins)[kept] / count[kept]

    confidences, accuracies = mean(confidence), mean(is_right.astype(float))
    gap = np.abs(accuracies - confidences)
    error = float(np.sum(count[kept] * gap) / len(label))
    return Calibration(confidences, accuracies, count[kept], error)


def confusion(predicted: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Numbers of examples by true class (rows) and predicted class (columns), [C, C]."""
    return np.bincount(label * classes + predicted, minlength=classes**2).reshape(classes, classes)


def per_example(log_posterior: np.ndarray, label: np.ndarray) -> Evaluation:
    """Quantities of a classifier for each example.

    accuracy  [N], 1 where the most probable class is the true one, else 0
    log_py    [N], log p(y|x) of the true class y, nats

    Args:
      log_posterior: log p(y|x), [N, C].
      label: the true classes, [N].
    """
    chosen = np.take_along_axis(log_posterior, label[:, None], axis=1)[:, 0]
    is_right = log_posterior.argmax(axis=1) == label
    return {"accuracy": is_right.astype(np.float64), "log_py": chosen}


def likelihoods(values: Evaluation) -> tuple[str, np.ndarray]:
    """Name and array [N, C] of the likelihoods of every class in an evaluation."""
    return next((name, values[name]) for name in SUMMED if name in values)
