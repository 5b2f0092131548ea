"""Variational objectives for any JAX project: needs jax alone, and none of our models.

Objectives (functions of a key), bounds (functions of log-weights), estimators, divergences.
`docs/bounds.md` lists them all, with formulas, directions and valid pairs.

Accuracy of a bound, relative to the greatest |log_w| (at least 1, at most 1e6): 5e-14 for float64
log-weights (`jax.enable_x64`), 5e-7 for float32; times the sum of the coefficients' magnitudes for
SUMO and jackknifes of order 3 and more. First and second derivatives by log-weights: 64 roundings,
relative to the greatest of them (at least 1). Half-precision log densities are cast to float32
before they are added and bounds are computed.

Nothing here promotes ranks or types of arrays implicitly: everything runs under
`jax.numpy_rank_promotion("raise")` and `jax.numpy_dtype_promotion("strict")`, provided that the
distributions do (NumPyro's promote ranks).
"""

from elbo_lab.losses import bounds, divergences, estimators
from elbo_lab.losses.aggregate import (
    BatchAux,
    beta_tcvae,
    dip_vae_i,
    dip_vae_ii,
    free_bits_batch,
    info_vae,
)
from elbo_lab.losses.catalogue import CATALOGUE, OBJECTIVES
from elbo_lab.losses.common import Aux
from elbo_lab.losses.divergences import KL_REGISTRY, gaussian_kl, gaussian_kl_full, kl_divergence
from elbo_lab.losses.estimators import ESTIMATORS
from elbo_lab.losses.objectives import (
    beta_vae,
    ciwae,
    elbo,
    from_bound,
    iwae,
    jackknife,
    miwae,
    renyi,
    tvo,
)
from elbo_lab.losses.regularized import capacity_vae, free_bits, lambda_vae
from elbo_lab.losses.roulette import sumo, sumo_log_px
from elbo_lab.losses.two_targets import cubo, iwae_elbo, piwae, rws, wake_sleep
from elbo_lab.losses.weights import LogWeights, log_weights

__all__ = [
    # objectives that are one function of log-weights
    "beta_vae",
    "ciwae",
    "elbo",
    "from_bound",
    "iwae",
    "jackknife",
    "miwae",
    "renyi",
    "sumo",
    "sumo_log_px",
    "tvo",
    # objectives with a regularizer per example
    "capacity_vae",
    "free_bits",
    "lambda_vae",
    # objectives that need the whole batch
    "beta_tcvae",
    "dip_vae_i",
    "dip_vae_ii",
    "free_bits_batch",
    "info_vae",
    # objectives with different targets for the two networks
    "cubo",
    "iwae_elbo",
    "piwae",
    "rws",
    "wake_sleep",
    # return types and the list of objectives
    "Aux",
    "BatchAux",
    "CATALOGUE",
    "OBJECTIVES",
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
