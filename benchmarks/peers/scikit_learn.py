"""scikit-learn: `GaussianMixture` from given parameters, as many threads as cores."""

import warnings

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from benchmarks.peers.common import Peer, Task
from elbo_lab.models.mixture import MixtureOptions


def make(task: Task, dtype: str) -> Peer:
    """A peer whose `train` is one call of `fit` with `task.steps` iterations.

    `fit` ends with one more E-step, which is part of its time.

    Args:
      task: points and the parameters of a mixture with full covariances.
      dtype: of the data and the parameters; scikit-learn computes in it.
    """
    # Every fit ends at its last iteration, whether it has converged or not.
    warnings.simplefilter("ignore", ConvergenceWarning)
    x = task.images.astype(dtype)
    shares, means, covariances = (
        task.arrays[f"stats/{name}"].astype(dtype) for name in ("shares", "means", "covariances")
    )
    shares /= shares.sum()  # scikit-learn refuses weights with float32's rounding in float64.
    floor = MixtureOptions().variance_floor
    precisions = np.linalg.inv(covariances + floor * np.eye(x.shape[1], dtype=dtype))
    current: dict[str, GaussianMixture] = {}

    def restart() -> None:
        current["model"] = GaussianMixture(
            n_components=len(shares),
            tol=0,
            reg_covar=floor,
            max_iter=task.steps,
            weights_init=shares,
            means_init=means,
            precisions_init=precisions,
            warm_start=True,
        )

    def train() -> None:
        current["model"].fit(x)

    def log_px() -> float:
        model = current["model"]
        if hasattr(model, "weights_"):
            return float(model.score(x))
        # At the start: the bound of an iteration is the log-likelihood before it.
        return float(clone(model).set_params(max_iter=1).fit(x).lower_bound_)

    restart()
    return Peer(train, log_px, restart=restart)
