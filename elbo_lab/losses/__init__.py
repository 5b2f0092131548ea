"""Variational objectives for any JAX project: needs jax alone, and none of our models.

Objectives (functions of a key), bounds (functions of log-weights), estimators, divergences.
"""

from elbo_lab.losses import bounds, divergences, estimators
from elbo_lab.losses.divergences import KL_REGISTRY, gaussian_kl, gaussian_kl_full, kl_divergence
from elbo_lab.losses.estimators import ESTIMATORS, LogWeights, log_weights
from elbo_lab.losses.objectives import OBJECTIVES, Aux, beta_vae, elbo, iwae, miwae

__all__ = [
    # objectives
    "OBJECTIVES",
    "Aux",
    "beta_vae",
    "elbo",
    "iwae",
    "miwae",
    # log-weights, bounds, estimators
    "ESTIMATORS",
    "LogWeights",
    "bounds",
    "estimators",
    "log_weights",
    # divergences
    "KL_REGISTRY",
    "divergences",
    "gaussian_kl",
    "gaussian_kl_full",
    "kl_divergence",
]
