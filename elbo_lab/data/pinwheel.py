"""The pinwheel: two-dimensional data of five bent arms (Johnson et al. 2016), made by a seed."""

import numpy as np

from elbo_lab.data.dataset import Dataset

ARMS, TRAIN, TEST = 5, 2000, 1000
# Standard deviations along and across an arm, the mean radius, and the twist of an arm by radius.
_ALONG, _ACROSS, _RADIUS, _TWIST = 0.3, 0.05, 1.0, 0.25
# The average of the coordinates' variances is about this.
_SCALE = 1.4
_SEED = 2016


def load() -> Dataset:
    """2,000 training and 1,000 test points, float32 [N, 2], with the arm of each as its label.

    A point of arm a has a Gaussian radius and offset, and is turned by 2 pi a / 5 + exp(radius) / 4
    (the authors' code). No small mixture of Gaussians is this density: the arms are bent.
    """
    rng = np.random.RandomState(_SEED)  # its stream is the same in every version of NumPy
    total = TRAIN + TEST
    arms = rng.randint(ARMS, size=total)
    radius = _RADIUS + _ALONG * rng.standard_normal(total)
    offset = _ACROSS * rng.standard_normal(total)
    angle = 2 * np.pi * arms / ARMS + _TWIST * np.exp(radius)
    cos, sin = np.cos(angle), np.sin(angle)
    points = np.stack([radius * cos - offset * sin, radius * sin + offset * cos], axis=1)
    x, y = np.asarray(_SCALE * points, np.float32), arms.astype(np.int32)
    return Dataset("pinwheel", x[:TRAIN], x[TRAIN:], y[:TRAIN], y[TRAIN:], (2,), kind="real")
