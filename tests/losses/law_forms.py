"""Probability laws with their exact KLs, and the classes of NumPyro, Distrax and TFP for each.

A law is a SciPy distribution, the parameters of two posteriors and those of one prior.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import integrate, special, stats


def scipy_categorical(*log_odds):
    """SciPy's categorical law; log_odds are the logits of states 1, 2, ..., state 0 has logit 0."""
    masses = special.softmax([0, *log_odds])
    return stats.rv_discrete(values=(np.arange(len(masses)), masses))


LAWS = {
    "normal": (stats.norm, ([0.3, -1.0], [0.7, 1.2]), (-0.2, 1.4)),
    "log_normal": (
        lambda mean, scale: stats.lognorm(scale, scale=np.exp(mean)),
        ([0.3, -1.0], [0.7, 0.2]),
        (-0.2, 0.9),
    ),
    "laplace": (stats.laplace, ([0.3, -1.0], [0.7, 1.2]), (-0.2, 1.4)),
    "uniform": (
        lambda low, high: stats.uniform(low, high - low),
        ([0.3, -1.0], [0.7, 1.2]),
        (-1.2, 1.4),
    ),
    "gamma": (lambda a, rate: stats.gamma(a, scale=1 / rate), ([1.5, 3], [2, 0.7]), (3, 0.8)),
    "exponential": (lambda rate: stats.expon(scale=1 / rate), ([0.4, 3.0],), (1.3,)),
    "beta": (stats.beta, ([1.5, 3.0], [2.0, 0.7]), (3.0, 0.8)),
    "poisson": (stats.poisson, ([0.4, 7.0],), (3.1,)),
    "bernoulli": (scipy_categorical, ([-1.3, 0.7],), (0.4,)),
    "categorical": (scipy_categorical, ([-1.3, 0.7], [2.0, 0.1]), (0.4, -0.6)),
}
STATES = np.arange(100)  # A Poisson variable of rate 7 exceeds them with probability 1e-80.


def integral(function, law):
    """The integral of a function over all but 2e-13 of the law's mass."""
    ends = law.ppf(1e-13), law.median(), law.isf(1e-13)
    options = {"limit": 200, "epsabs": 1e-10, "epsrel": 1e-10}
    return sum(integrate.quad(function, *pair, **options)[0] for pair in pairwise(ends))


def exact_kl(name):
    """KL of each posterior, [2], by quadrature or summation of SciPy's densities."""
    law, posterior_parameters, prior_parameters = LAWS[name]
    p, values = law(*prior_parameters), []
    for parameters in zip(*posterior_parameters, strict=True):
        q = law(*parameters)
        if hasattr(q, "pmf"):
            log_q, log_p = (np.log(np.maximum(d.pmf(STATES), 1e-300)) for d in (q, p))
            values.append(np.sum(q.pmf(STATES) * (log_q - log_p)))
        else:
            values.append(integral(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), q))  # noqa: B023
    return np.array(values)


def random_covariances(seed, *batch):
    """Covariances [*batch, 3, 3]."""
    factor = np.random.default_rng(seed).normal(size=(*batch, 3, 3))
    return factor @ np.swapaxes(factor, -1, -2) + 0.5 * np.eye(3)


def kl_of_normals(mean_q, cov_q, mean_p, cov_p):
    """The textbook's KL between two normals on R^3, by determinants and an inverse."""
    inverse, distance = np.linalg.inv(cov_p), mean_p - mean_q
    log_dets = np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]
    return 0.5 * (np.trace(inverse @ cov_q) + distance @ inverse @ distance - 3 + log_dets)


def stacked_logits(*log_odds):
    return jnp.stack([jnp.zeros_like(log_odds[0]), *log_odds], axis=-1)


def stacked_probs(*log_odds):
    return jax.nn.softmax(stacked_logits(*log_odds), axis=-1)


def bernoulli_probs(logits):
    return stacked_probs(logits)[..., 1]


NUMPYRO = {
    "normal": [dist.Normal],
    "log_normal": [dist.LogNormal],
    "laplace": [dist.Laplace],
    "uniform": [dist.Uniform],
    "gamma": [dist.Gamma],
    "exponential": [dist.Exponential, lambda rate: dist.Gamma(1.0, rate)],
    "beta": [dist.Beta],
    "poisson": [dist.Poisson],
    "bernoulli": [
        dist.BernoulliLogits,
        lambda logits: dist.BernoulliProbs(bernoulli_probs(logits)),
        lambda logits: dist.CategoricalLogits(stacked_logits(logits)),
    ],
    "categorical": [
        lambda *odds: dist.CategoricalLogits(stacked_logits(*odds)),
        lambda *odds: dist.CategoricalProbs(stacked_probs(*odds)),
    ],
}


def numpyro_independent(distribution):
    return distribution.to_event(len(distribution.batch_shape))


def every_library():
    """Pairs (classes by law, the library's `Independent`) of NumPyro, Distrax and TFP.

    Imports Distrax and TFP, which are slow to import.
    """
    import distrax
    from tensorflow_probability.substrates import jax as tfp

    tfd = tfp.distributions
    distrax_forms = {
        "normal": [distrax.Normal, lambda m, s: distrax.LogStddevNormal(m, jnp.log(s))],
        "laplace": [distrax.Laplace],
        "uniform": [distrax.Uniform],
        "gamma": [distrax.Gamma],
        "beta": [distrax.Beta],
        "bernoulli": [
            distrax.Bernoulli,
            lambda logits: distrax.Bernoulli(probs=bernoulli_probs(logits)),
        ],
        "categorical": [
            lambda *odds: distrax.Categorical(stacked_logits(*odds)),
            lambda *odds: distrax.Categorical(probs=stacked_probs(*odds)),
            lambda *odds: distrax.Softmax(2 * stacked_logits(*odds), 2.0),
        ],
    }
    tfp_forms = {
        "normal": [tfd.Normal],
        "log_normal": [tfd.LogNormal],
        "laplace": [tfd.Laplace],
        "uniform": [tfd.Uniform],
        "gamma": [tfd.Gamma, lambda a, rate: tfd.Gamma(a, log_rate=jnp.log(rate))],
        "exponential": [tfd.Exponential],
        "beta": [tfd.Beta],
        "poisson": [tfd.Poisson, lambda rate: tfd.Poisson(log_rate=jnp.log(rate))],
        "bernoulli": [tfd.Bernoulli, lambda logits: tfd.Bernoulli(probs=bernoulli_probs(logits))],
        "categorical": [
            lambda *odds: tfd.Categorical(stacked_logits(*odds)),
            lambda *odds: tfd.Categorical(probs=stacked_probs(*odds)),
        ],
    }
    return [
        (NUMPYRO, numpyro_independent),
        (distrax_forms, lambda d: distrax.Independent(d, len(d.batch_shape))),
        (tfp_forms, lambda d: tfd.Independent(d, len(d.batch_shape))),
    ]
