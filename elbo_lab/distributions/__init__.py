"""Distributions that NumPyro lacks: hierarchies, laws of pixels, autoregressive laws, flows."""

from elbo_lab.distributions.autoregressive import Autoregressive, Steps
from elbo_lab.distributions.base import Chain, Distribution
from elbo_lab.distributions.flows import Bijection, Flow
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
    "Bijection",
    "Chain",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Distribution",
    "Flow",
    "LevelCategorical",
    "LogisticMixture",
    "Steps",
    "TokenCategorical",
    "bernoulli_log_prob",
    "continuous_bernoulli_mean",
]
