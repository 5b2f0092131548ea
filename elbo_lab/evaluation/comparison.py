"""Differences between two configurations, with confidence intervals.

A configuration has values v_r [N] of the test images for each replicate r. Two configurations are
compared on the same test images. Their difference varies with the seed, which trains another model,
and with the choice of test images. The numbers of replicates decide which of the two an interval
covers:

    PAIRED     two or more common seeds: Student's t of the replicates' mean differences
    WELCH      fewer than two common seeds, two or more replicates on each side: Welch's t
    IMAGES     otherwise: Student's t of the images' differences

The first two cover other seeds, for these test images. The third covers other test images, for
these trained models.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

PAIRED, WELCH, IMAGES = "seeds", "replicates", "images"

# Descriptions of the kinds, for notes below tables: "Intervals ...".
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
    degrees: float  # degrees of freedom of Student's t


def difference(
    values: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray], level: float = 0.95
) -> Difference:
    """The mean of `values` minus that of `baseline`, with a confidence interval.

    Over R >= 2 common seeds, with d_r = mean_i (v_ri - b_ri):

        mean_r d_r +- t(R - 1) s_d / sqrt(R)

    Without them it is the difference of the means of v_r = mean_i v_ri, with the variances s^2 / R
    of both sides added and the degrees of freedom of Welch (1947). If one side has a single
    replicate, the first formula is used over images, d_i = mean_r v_ri - mean_r b_ri, with the
    common seed alone if there is one.

    Args:
      values: seed -> [N], each test image's value.
      baseline: seed -> [N], the other side's values of the same images in the same order.
      level: probability that the interval covers the true difference.

    Raises:
      ValueError: a side has no replicate, the numbers of images differ, or there is only one image
        where images are compared.
    """
    sizes = {len(array) for side in (values, baseline) for array in side.values()}
    if not values or not baseline or len(sizes) != 1:
        raise ValueError(f"need values of equally many images on both sides, not {sizes}")
    common = sorted(set(values) & set(baseline))
    if len(common) >= 2:
        return _student(_means(values, common) - _means(baseline, common), PAIRED, level)
    if len(values) >= 2 and len(baseline) >= 2:
        return _welch(_means(values, sorted(values)), _means(baseline, sorted(baseline)), level)
    # Two models of one seed are compared with each other, even if one side has further seeds.
    value_seeds, baseline_seeds = common or sorted(values), common or sorted(baseline)
    images = _average(values, value_seeds) - _average(baseline, baseline_seeds)
    return _student(images, IMAGES, level)


def mean_and_error(values: Mapping[int, np.ndarray]) -> tuple[float, float | None, str | None]:
    """The mean over replicates and images, and its standard error.

    For R >= 2 replicates the error is s / sqrt(R), with s the sample standard deviation of the
    replicates' means; for one replicate it is the same over its images.

    Args:
      values: seed -> [N], each image's value.

    Returns:
      Mean, error, and "replicates" or "images", over which the error is; None and None instead of
      these for a single image.
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
        raise ValueError("a single image has no spread to judge the difference by")
    error = float(differences.std(ddof=1) / math.sqrt(count))
    return _interval(float(differences.mean()), error, kind, count, count - 1, level)


def _welch(means: np.ndarray, baseline: np.ndarray, level: float) -> Difference:
    """Welch's interval for the difference of two sides' replicate means, [R_1] and [R_2]."""
    counts = np.array([len(means), len(baseline)])
    variances = np.array([means.var(ddof=1), baseline.var(ddof=1)]) / counts  # s^2 / R
    error = math.sqrt(variances.sum())
    # If neither side has any spread, Welch's formula is 0 / 0; take the smaller side's degrees.
    degrees = counts.min() - 1
    if error:
        degrees = error**4 / np.sum(variances**2 / (counts - 1))
    mean = float(means.mean() - baseline.mean())
    return _interval(mean, error, WELCH, int(counts.sum()), float(degrees), level)


def _interval(
    mean: float, error: float, kind: str, count: int, degrees: float, level: float
) -> Difference:
    half_width = float(special.stdtrit(degrees, (1 + level) / 2)) * error
    return Difference(mean, error, mean - half_width, mean + half_width, kind, count, degrees)


def _means(values: Mapping[int, np.ndarray], seeds: list[int]) -> np.ndarray:
    """[R], each replicate's mean over images."""
    return np.array([np.mean(values[seed], dtype=np.float64) for seed in seeds])


def _average(values: Mapping[int, np.ndarray], seeds: list[int]) -> np.ndarray:
    """[N], each image's mean over replicates."""
    return np.mean([np.asarray(values[seed], np.float64) for seed in seeds], axis=0)
