"""Distributions that NumPyro lacks: hierarchies, laws of pixels, autoregressive laws."""

from elbo_lab.distributions.autoregressive import Autoregressive
from elbo_lab.distributions.base import Chain, Distribution
from elbo_lab.distributions.levels import LevelCategorical, LogisticMixture
from elbo_lab.distributions.pixels import (
    BernoulliVector,
    ContinuousBernoulli,
    DiscretizedLogistic,
    bernoulli_log_prob,
    continuous_bernoulli_mean,
)
from elbo_lab.distributions.tokens import TokenCategorical

__all__ = [
    "Autoregressive",
    "BernoulliVector",
    "Chain",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Distribution",
    "LevelCategorical",
    "LogisticMixture",
    "TokenCategorical",
    "bernoulli_log_prob",
    "continuous_bernoulli_mean",
]
