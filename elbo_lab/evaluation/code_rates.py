"""Rates of discrete codes: their lengths, in nats, under priors that are simple to state."""

import math
from typing import NamedTuple

import numpy as np


class Rates(NamedTuple):
    """-log p(codes) of each example under three priors, each [n], nats per example."""

    fixed: np.ndarray  # M log K: all K^M arrays of codes are equally likely
    usage: np.ndarray  # one table of frequencies for all positions
    by_position: np.ndarray  # a table of frequencies for each position


def rates(train: np.ndarray, test: np.ndarray, num_codes: int) -> Rates:
    """The rates of the codes of test examples, by tables counted on those of training examples.

        R(x) = -sum_m log p_m(c_m),    p_m(k) = (n_mk + 1) / (sum_j n_mj + K)

    n_mk is how often code k occurs at position m; for the rate `usage`, n_k summed over positions
    takes its place. The added count keeps codes possible that no training example has (Laplace).

    Each of the three is the length that an arithmetic coder needs without knowing the test
    examples. p(codes) is a prior, so that log p(x|codes) - R(x) <= log p(x). A prior in which
    positions depend on each other, such as an autoregressive one, can have a smaller mean rate.

    Args:
      train: codes of training examples, whole numbers in 0..K-1, [N, M].
      test: codes of test examples, [n, M].
      num_codes: K.
    """
    positions = train.shape[1]
    counts = np.stack([np.bincount(column, minlength=num_codes) for column in train.T])  # [M, K]
    usage = _lengths(counts.sum(axis=0))[test]  # [n, M]
    by_position = _lengths(counts)[np.arange(positions), test]  # [n, M]
    fixed = np.full(len(test), positions * math.log(num_codes))
    return Rates(fixed, usage.sum(axis=1), by_position.sum(axis=1))


def _lengths(counts: np.ndarray) -> np.ndarray:
    """-log of the smoothed frequencies of counts [..., K]."""
    total = counts.sum(axis=-1, keepdims=True)
    return -np.log((counts + 1) / (total + counts.shape[-1]))
