"""Bounds as NumPy functions of log-weights [K, *batch], of real or complex numbers.

Complex numbers give derivatives: Im f(x + ih) / h is the derivative of an analytic f, exact to the
last digits because nothing is subtracted. Nothing here guards against overflow: log-weights must
be small.
"""

import itertools

import numpy as np

SCALES = np.array([0.5, 1.0, 2.0])
STEP = 1e-30


def mean(log_w):
    return np.mean(log_w, axis=0)


def log_mean_exp(log_w):
    return np.log(np.mean(np.exp(log_w), axis=0))


def power_mean(log_w, power):
    return log_mean_exp(power * log_w) / power


def greatest(log_w):
    first = np.argmax(log_w.real, axis=0)
    return np.take_along_axis(log_w, first[None], axis=0)[0]


def left_out(log_w, number):
    """Mean of IWAE over all ways to leave out a number of draws."""
    size = len(log_w) - number
    kept = itertools.combinations(range(len(log_w)), size)
    return np.mean([log_mean_exp(log_w[list(subset)]) for subset in kept], axis=0)


def jackknife_1(log_w):
    number = len(log_w)
    return number * left_out(log_w, 0) - (number - 1) * left_out(log_w, 1)


def jackknife_2(log_w):
    number = len(log_w)
    terms = [(number - j) ** 2 * left_out(log_w, j) for j in range(3)]
    return terms[0] / 2 - terms[1] + terms[2] / 2


def thermodynamic(log_w, partition):
    """TVO's left Riemann sum over the points of a partition."""
    value = 0
    for left, right in itertools.pairwise(partition):
        weights = np.exp(left * log_w)
        value = value + (right - left) * np.sum(weights * log_w, axis=0) / np.sum(weights, axis=0)
    return value


def roulette_2(log_w):
    """SUMO of two terms, whose survival probabilities are 1 and 1/2."""
    iwae_1, iwae_2, iwae_3 = (log_mean_exp(log_w[:k]) for k in (1, 2, 3))
    return iwae_1 + (iwae_2 - iwae_1) + 2 * (iwae_3 - iwae_2)


def uneven(log_w, module=np):
    """A user's own bound: smooth, and not symmetric, as each draw has its own weight."""
    scales = SCALES[: len(log_w)].reshape(-1, *(1,) * (log_w.ndim - 1))
    return module.sum(scales * module.tanh(log_w / 4 + 1), axis=0) ** 2


def mixed(log_w, beta):
    return beta * mean(log_w) + (1 - beta) * log_mean_exp(log_w)


def grouped(log_w, num_outer=2):
    """MIWAE: the mean of IWAE over groups of draws."""
    return sum(log_mean_exp(group) for group in np.split(log_w, num_outer)) / num_outer


def gradient(function, log_w):
    """d f / d log_w, [K]."""
    return np.array([function(log_w + 1j * STEP * unit).imag / STEP for unit in np.eye(len(log_w))])


def diagonal_hessian(function, log_w, step=1e-5):
    """d^2 f / d log_w_k^2, [K]: central differences of the gradient, to about 1e-10."""
    values = []
    for k, unit in enumerate(np.eye(len(log_w))):
        above, below = (gradient(function, log_w + sign * step * unit)[k] for sign in (1, -1))
        values.append((above - below) / (2 * step))
    return np.array(values)
