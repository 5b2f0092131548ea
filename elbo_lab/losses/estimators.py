"""Gradient estimators: rules for differentiating a bound f(log_w).

An estimator draws z_1..z_K ~ q(z|x), forms log-weights and returns a scalar per example that is
differentiated in place of -f. Its *value* is always -f. One implementation serves every bound:

    surrogate, draws = ESTIMATORS[name](key, problem, bound, weigh)

`bound` maps log-weights [K, *batch] to [*batch] (`bounds.py`), and `weigh` maps log p(x|z), log
p(z) and log q(z|x), [K, *batch] each, to the log-weights that the bound sees (`log_w_of` for
ordinary bounds). With v = df / d log_w and h the diagonal of f's Hessian:

    estimator    prior, likelihood   draws of q (path)   log q (score)
    reparam      v                   v                   -v
    stl          v                   v                   -
    dreg         v                   v - h               -
    score        v                   -                   f - baseline - v
    vimco        v                   -                   f - f(log_w_k replaced) - v
    ovis         v                   -                   see `ovis`
    wake         v                   -                   w
    wake_dreg    v                   w - w^2             -
    enumerate    no draws: the sum over all values of z, see `exact_estimators.py`

Each entry weighs d log_w_k / dz through the draw or d log q(z_k) / d phi, in ascent direction.

For binary draws there are arm and disarm (`antithetic_estimators.py`), rebar, gumbel_softmax and
straight_through (`relaxed_estimators.py`): prior and likelihood have the weight v, and the
inference network is differentiated through the noise of the draws.
"""

from collections.abc import Callable

from jax import Array

from elbo_lab.losses.antithetic_estimators import arm, disarm
from elbo_lab.losses.derivatives import derivative, diagonal_hessian, path_weight
from elbo_lab.losses.exact_estimators import enumerated
from elbo_lab.losses.path_estimators import Bound, Weigh, dreg, log_w_of, reparam, stl, wake_dreg
from elbo_lab.losses.relaxed_estimators import gumbel_softmax, rebar, straight_through
from elbo_lab.losses.score_estimators import ovis, score, score_loo, vimco, wake
from elbo_lab.losses.weights import LogWeights, Problem

__all__ = [
    "BINARY_ESTIMATORS",
    "COMPARING_ESTIMATORS",
    "DISCRETE_ESTIMATORS",
    "ESTIMATORS",
    "FINITE_ESTIMATORS",
    "PATH_ESTIMATORS",
    "Bound",
    "Estimator",
    "Weigh",
    "arm",
    "derivative",
    "diagonal_hessian",
    "disarm",
    "dreg",
    "enumerated",
    "gumbel_softmax",
    "has_enough",
    "log_w_of",
    "ovis",
    "path_weight",
    "rebar",
    "reparam",
    "score",
    "score_loo",
    "stl",
    "straight_through",
    "vimco",
    "wake",
    "wake_dreg",
]

Estimator = Callable[[Array, Problem, Bound, Weigh], tuple[Array, LogWeights]]

ESTIMATORS: dict[str, Estimator] = {
    "reparam": reparam,
    "stl": stl,
    "dreg": dreg,
    "score": score,
    "score_loo": score_loo,
    "vimco": vimco,
    "ovis": ovis,
    "wake": wake,
    "wake_dreg": wake_dreg,
    "enumerate": enumerated,
    "arm": arm,
    "disarm": disarm,
    "rebar": rebar,
    "gumbel_softmax": gumbel_softmax,
    "straight_through": straight_through,
}

# Estimators that differentiate through the draws, and so need a reparameterizable posterior.
PATH_ESTIMATORS = frozenset({"reparam", "stl", "dreg", "wake_dreg"})
# Estimators that compare draws, and so need at least two.
COMPARING_ESTIMATORS = frozenset({"score_loo", "vimco", "ovis"})
# Estimators that sum over the values of z, and so need a posterior with finitely many.
FINITE_ESTIMATORS = frozenset({"enumerate"})
# Estimators that use the noise of Bernoulli draws, and so need a posterior of binary variables.
BINARY_ESTIMATORS = frozenset({"arm", "disarm", "rebar", "gumbel_softmax", "straight_through"})
# Estimators that need a discrete posterior.
DISCRETE_ESTIMATORS = FINITE_ESTIMATORS | BINARY_ESTIMATORS


def has_enough(estimator: str, num_draws: int) -> bool:
    """True if the estimator, a name in `ESTIMATORS`, works for that number of draws."""
    return num_draws > 1 or estimator not in COMPARING_ESTIMATORS
