"""Every objective of the catalogue, called on the linear-Gaussian model with K = 6 draws."""

import inspect

import numpyro.distributions as dist

from elbo_lab import losses
from elbo_lab.losses import catalogue, common
from tests.losses import linear_gaussian

K = 6
OPTIONS = {
    "beta_vae": {"beta": 2.0, "kl": "mc"},
    "lambda_vae": {"regularization": 0.5, "kl": "mc"},
    "capacity_vae": {"gamma": 3.0, "capacity": 0.7},
    "free_bits": {"min_kl": 0.6},
    "free_bits_batch": {"min_kl": 0.6},
    "beta_tcvae": {"dataset_size": 50, "beta": 3.0},
    "dip_vae_i": {"lambda_diag": 10.0},
    "info_vae": {"kl_weight": 0.5, "mmd_weight": 10.0},
    "miwae": {"num_outer": 2, "num_samples": K // 2},
    "piwae": {"num_outer": 2, "num_samples": K // 2},
    "rws": {"phase": "both"},
}
# Estimators that a Gaussian posterior takes.
GAUSSIAN = tuple(
    name for name in losses.ESTIMATORS if name not in losses.estimators.DISCRETE_ESTIMATORS
)
# Those that take any bound.
ANY_BOUND = tuple(name for name in GAUSSIAN if name in common.ANY_BOUND)
# Every (objective, estimator) that is valid for a Gaussian posterior; estimator None where the
# objective takes none.
PAIRS = [
    (name, estimator)
    for name, entry in losses.CATALOGUE.items()
    for estimator in entry.estimators or (None,)
    if estimator is None or estimator in GAUSSIAN
]
NEEDS_BATCH = [
    name for name, entry in losses.CATALOGUE.items() if entry.kind == catalogue.WHOLE_BATCH
]


def arguments(name, params, x, **replaced):
    """Positional arguments after the key, and keyword arguments, of the objective called `name`.

    Args:
      name: the objective.
      params: the model's parameters.
      x: [*batch, D].
      **replaced: a posterior, prior or log_likelihood to use instead of the model's, or options
        such as num_samples. `estimator=None` passes no estimator.
    """
    posterior, prior, log_likelihood = linear_gaussian.distributions(params, x)
    accepted = inspect.signature(losses.OBJECTIVES[name]).parameters
    options = {"num_samples": K} | OPTIONS.get(name, {})

    def mean(z):
        return linear_gaussian.affine(z, params.w, params.b)

    if "x" in accepted:
        options["x"], log_likelihood = x, mean
    if "inference" in accepted:
        options["inference"] = lambda x: linear_gaussian.distributions(params, x)[0]
        options["generation"] = lambda z: dist.Normal(mean(z), linear_gaussian.SIGMA).to_event(1)
    posterior = replaced.pop("posterior", posterior)
    prior = replaced.pop("prior", prior)
    log_likelihood = replaced.pop("log_likelihood", log_likelihood)
    options |= replaced
    if "estimator" in options and options["estimator"] is None:
        del options["estimator"]
    return (posterior, prior, log_likelihood), options


def call(name, key, params, x, **replaced):
    """(loss, aux) of an objective; x [*batch, D]."""
    positional, options = arguments(name, params, x, **replaced)
    return losses.OBJECTIVES[name](key, *positional, **options)
