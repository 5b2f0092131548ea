"""Bounds as NumPy functions of log-weights [K, *batch], of real or complex numbers.

For derivatives by complex steps: Im f(x + ih) / h is the derivative of an analytic f without a
subtraction, and so to the last digits. Nothing is kept from overflowing here: log-weights are
small.
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


def left_out(log_w, order):
    """Mean of IWAE over all ways to leave out so many draws."""
    size = len(log_w) - order
    kept = itertools.combinations(range(len(log_w)), size)
    return np.mean([log_mean_exp(log_w[list(subset)]) for subset in kept], axis=0)


def jackknife_1(log_w):
    number = len(log_w)
    return number * left_out(log_w, 0) - (number - 1) * left_out(log_w, 1)


def jackknife_2(log_w):
    number = len(log_w)
    terms = [(number - j) ** 2 * left_out(log_w, j) for j in range(3)]
    return terms[0] / 2 - terms[1] + terms[2] / 2


def thermodynamic(log_w):
    """Points 0, 0.2, 0.7 and 1."""
    value = 0.2 * mean(log_w)
    for point, width in ((0.2, 0.5), (0.7, 0.3)):
        weights = np.exp(point * log_w)
        value = value + width * np.sum(weights * log_w, axis=0) / np.sum(weights, axis=0)
    return value


def roulette_2(log_w):
    """SUMO of two terms, whose survival probabilities are 1 and 1/2."""
    one, two, three = (log_mean_exp(log_w[: k + 1]) for k in range(3))
    return one + (two - one) + 2 * (three - two)


def uneven(log_w, module=np):
    """A user's own: smooth, and of no symmetry between draws, each of which has its own weight."""
    scales = SCALES[: len(log_w)].reshape(-1, *(1,) * (log_w.ndim - 1))
    return module.sum(scales * module.tanh(log_w / 4 + 1), axis=0) ** 2


def mixed(log_w, beta):
    return beta * mean(log_w) + (1 - beta) * log_mean_exp(log_w)


def grouped(log_w):
    """Two groups of two draws."""
    return (log_mean_exp(log_w[:2]) + log_mean_exp(log_w[2:])) / 2


def gradient(function, log_w):
    """d f / d log_w, [K]."""
    return np.array([function(log_w + 1j * STEP * unit).imag / STEP for unit in np.eye(len(log_w))])


def diagonal_hessian(function, log_w, step=1e-5):
    """d^2 f / d log_w_k^2, [K]: central differences of the gradient, to some 1e-10."""
    moved = [(k, step * unit) for k, unit in enumerate(np.eye(len(log_w)))]
    return np.array(
        [
            (gradient(function, log_w + by)[k] - gradient(function, log_w - by)[k]) / (2 * step)
            for k, by in moved
        ]
    )
