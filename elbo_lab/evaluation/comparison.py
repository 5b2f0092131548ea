"""Differences between two configurations, with confidence intervals that say what they cover.

A configuration has values per test image, v_r [N], of replicates r; two of them are compared on the
same test images. What varies is the training (another seed trains another model) and the choice of
test images, and which of them an interval covers depends on what there is:

    PAIRED     common seeds, at least two: the replicates' mean differences, Student's t
    WELCH      at least two replicates each but no two common seeds: Welch's t
    IMAGES     one replicate each: the images' differences; nothing is known about other seeds

The first two hold for these test images and say what another seed may change; the third holds for
these two trained models and says what other test images may change.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

PAIRED, WELCH, IMAGES = "seeds", "replicates", "images"

# What each kind of interval says, and what it does not.
COVERS = {
    PAIRED: "over seeds, each seed's difference on the same test images (Student's t); it does not "
    "cover the choice of test images",
    WELCH: "over the replicates of either side, which share too few seeds to be paired (Welch's "
    "t); it does not cover the choice of test images",
    IMAGES: "over test images, paired, for these trained models; it does not cover what another "
    "seed would change",
}


class Difference(NamedTuple):
    """A mean difference, nats per image where the values are, and its confidence interval."""

    mean: float
    standard_error: float
    low: float
    high: float
    kind: str  # PAIRED, WELCH or IMAGES
    count: int  # pairs of seeds, replicates of both sides together, or images
    degrees: float  # of freedom of Student's t


def difference(
    values: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray], level: float = 0.95
) -> Difference:
    """The mean of `values` minus that of `baseline`, with a confidence interval.

    Over R >= 2 common seeds, with d_r = mean_i (v_ri - b_ri):

        mean_r d_r +- t(R - 1) s_d / sqrt(R)

    Without them, with v_r = mean_i v_ri, variances s^2 / R of both sides added and the degrees of
    freedom of Welch (1947). With one replicate on either side, the same as the first formula over
    images, d_i = mean_r v_ri - mean_r b_ri.

    Args:
      values: seed -> [N], each test image's value.
      baseline: the same of the other side, of the same images in the same order.
      level: of the interval.

    Raises:
      ValueError: a side has no replicate, the images are not equally many, or a lone image.
    """
    sizes = {len(v) for side in (values, baseline) for v in side.values()}
    if not values or not baseline or len(sizes) != 1:
        raise ValueError(f"need values of equally many images on both sides, not {sizes}")
    common = sorted(set(values) & set(baseline))
    if len(common) >= 2:
        own, other = _means(values, common), _means(baseline, common)
        return _student(own - other, PAIRED, level)
    own, other = _means(values, sorted(values)), _means(baseline, sorted(baseline))
    if len(own) >= 2 and len(other) >= 2:
        return _welch(own, other, level)
    # A common seed is compared with itself, though the other side may have more.
    mine, theirs = (common, common) if common else (sorted(values), sorted(baseline))
    images = _average(values, mine) - _average(baseline, theirs)
    return _student(images, IMAGES, level)


def mean_and_error(values: Mapping[int, np.ndarray]) -> tuple[float, float | None, str | None]:
    """The mean over replicates and images, its standard error, and what that is over.

    Over R >= 2 replicates it is s / sqrt(R) of the replicates' means, with their sample standard
    deviation s; for one replicate the same over its images; None of a single image.
    """
    means = _means(values, sorted(values))
    over, spread = "replicates", means
    if len(means) == 1:
        over, spread = "images", np.asarray(next(iter(values.values())), np.float64)
    if len(spread) < 2:
        return float(means.mean()), None, None
    return float(means.mean()), float(spread.std(ddof=1) / math.sqrt(len(spread))), over


def _student(differences: np.ndarray, kind: str, level: float) -> Difference:
    count = len(differences)
    if count < 2:
        raise ValueError("one image and one replicate have no spread to judge a difference by")
    error = float(differences.std(ddof=1) / math.sqrt(count))
    return _interval(float(differences.mean()), error, kind, count, count - 1, level)


def _welch(own: np.ndarray, other: np.ndarray, level: float) -> Difference:
    shares = np.array([side.var(ddof=1) / len(side) for side in (own, other)])  # s^2 / R
    error = math.sqrt(shares.sum())
    weights = shares**2 / np.array([len(own) - 1, len(other) - 1])
    # Without any spread on either side, the degrees of freedom of the smaller one.
    degrees = error**4 / weights.sum() if error else min(len(own), len(other)) - 1
    mean = float(own.mean() - other.mean())
    return _interval(mean, error, WELCH, len(own) + len(other), float(degrees), level)


def _interval(mean, error, kind, count, degrees, level) -> Difference:
    half = float(special.stdtrit(degrees, (1 + level) / 2)) * error
    return Difference(mean, error, mean - half, mean + half, kind, count, degrees)


def _means(values: Mapping[int, np.ndarray], seeds: list[int]) -> np.ndarray:
    """[R], each replicate's mean over images."""
    return np.array([np.mean(values[s], dtype=np.float64) for s in seeds])


def _average(values: Mapping[int, np.ndarray], seeds: list[int]) -> np.ndarray:
    """[N], each image's mean over replicates."""
    return np.mean([np.asarray(values[s], np.float64) for s in seeds], axis=0)
