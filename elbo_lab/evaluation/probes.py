"""Linear probes: multinomial logistic regression on features, and what it needs of a split."""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

# The largest component of the gradient of the mean loss at which a fit has converged, and the most
# iterations.
TOLERANCE, ITERATIONS = 1e-5, 2000


class Probe(NamedTuple):
    """A linear classifier: the class of x is the largest of x W + b."""

    weights: np.ndarray  # W, [L, C]
    biases: np.ndarray  # b, [C]

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """The share of examples x [N, L] whose class is y [N]."""
        return accuracy(np.asarray(x, np.float64) @ self.weights + self.biases, y)


def fit(
    x: np.ndarray, y: np.ndarray, classes: int, l2: float, tolerance: float = TOLERANCE
) -> Probe:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS in float64.

        minimize  sum_i -log softmax(x_i W + b)[y_i] + l2 / 2 |W|^2

    The biases are not penalized. This is scikit-learn's `LogisticRegression(C=1 / l2)`.

    Args:
      x: features, [N, L].
      y: classes, [N], in 0 .. classes - 1; a class without examples is allowed.
      classes: C.
      l2: the weight of the penalty, positive: without it separable classes have no minimum.
      tolerance: the largest component of the gradient of the loss divided by N at the end.

    Raises:
      ValueError: l2 is not positive, or there are not as many classes y as examples x.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be positive; got {l2}.")
    x, number = np.asarray(x, np.float64), len(x)
    if len(y) != number:
        raise ValueError(f"x and y must have the same length; got {number} and {len(y)}.")
    is_class = np.eye(classes)[y]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(-1, classes)  # [L + 1, C], the biases last
        weights = parameters[:-1]
        log_p = special.log_softmax(x @ weights + parameters[-1], axis=1)
        loss = l2 / 2 * np.sum(weights**2) - np.sum(log_p * is_class)
        residual = np.exp(log_p) - is_class
        gradient = np.vstack([x.T @ residual + l2 * weights, residual.sum(axis=0)])
        return loss / number, gradient.ravel() / number

    result = optimize.minimize(
        loss_and_gradient,
        np.zeros((x.shape[1] + 1) * classes),
        method="L-BFGS-B",
        jac=True,
        options={"gtol": tolerance, "ftol": 0.0, "maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS},
    )
    parameters = result.x.reshape(-1, classes)
    return Probe(parameters[:-1], parameters[-1])


def scaled(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Features minus their mean, divided so that the mean squared norm is 1, in float64.

    One number divides all dimensions, so that angles stay as they are, and an L2 penalty means the
    same for representations of any number and unit of dimensions.

    Args:
      train: [N, L], whose mean and norm are taken.
      *others: [any, L], e.g. the test split.

    Returns:
      `train` and the others, each moved and divided.
    """
    mean = np.mean(train, axis=0, dtype=np.float64)
    centred = np.asarray(train, np.float64) - mean
    norm = np.sqrt(np.mean(np.sum(centred**2, axis=1))) or 1.0  # all examples may be equal
    return [centred / norm, *((np.asarray(x, np.float64) - mean) / norm for x in others)]


def balanced_order(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of examples in which every start has the classes in equal numbers.

    The first n have numbers of each class that differ by at most one, while no class is used up. So
    the first 10 are among the first 100.

    Args:
      y: classes, [N].
      rng: draws the order.

    Returns:
      Indices, [N].
    """
    order = rng.permutation(len(y))
    rank = np.empty(len(y), np.int64)  # of an example among those of its class
    for label in np.unique(y):
        members = order[y[order] == label]
        rank[members] = np.arange(len(members))
    return order[np.argsort(rank[order], kind="stable")]


def accuracy(scores: np.ndarray, y: np.ndarray) -> float:
    """The share of examples whose class y [N] has the largest of the scores [N, C]."""
    return float(np.mean(np.argmax(scores, axis=-1) == y))
