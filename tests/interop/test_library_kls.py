"""Closed-form KLs that Distrax and TFP compute, against quadrature of densities and sums over
masses; and those that are refused because the library's formula is not exact.
"""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special
from tensorflow_probability.substrates import jax as tfp

from elbo_lab import losses
from elbo_lab.losses.divergences import kl_per_dimension

tfb, tfd = tfp.bijectors, tfp.distributions
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("fast_compilation"),
    # The library's own calls of NumPy functions.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability"),
]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


LINE, HALF, UNIT, CIRCLE = (-np.inf, 0, np.inf), (0, 1, np.inf), (0, 0.5, 1), (-np.pi, 0, np.pi)
TWO = (0.3, 0.7), (-0.2, 1.4)  # Location and scale, or two shapes, of q and of p.
POSITIVE = (1.5, 2.0), (3.0, 0.8)
# The distribution, parameters of q and of p, and the ends of pieces of q's support.
DENSITIES = {
    "Cauchy": (tfd.Cauchy, *TWO, LINE),
    "Chi": (tfd.Chi, (3.0,), (2.4,), HALF),
    "Chi2": (tfd.Chi2, (3.0,), (2.4,), HALF),
    "Chi2, Gamma": ((tfd.Chi2, tfd.Gamma), (3.0,), (2.0, 0.7), HALF),
    "ContinuousBernoulli": (tfd.ContinuousBernoulli, (0.7,), (-2.0,), UNIT),
    "ExpGamma": (tfd.ExpGamma, *POSITIVE, LINE),
    "Gumbel": (tfd.Gumbel, *TWO, LINE),
    "Gumbel of Distrax": (distrax.Gumbel, *TWO, LINE),
    "HalfNormal": (tfd.HalfNormal, (0.7,), (1.4,), HALF),
    "LogitNormal": (tfd.LogitNormal, *TWO, UNIT),
    "Moyal": (tfd.Moyal, *TWO, LINE),
    "Pareto": (tfd.Pareto, (2.0, 1.5), (3.0, 1.0), (1.5, 3, np.inf)),
    "VonMises": (tfd.VonMises, *TWO, CIRCLE),
    "VonMises of Distrax": (distrax.VonMises, *TWO, CIRCLE),
    "Weibull": (tfd.Weibull, (1.3, 0.7), (0.8, 1.4), HALF),
    "Weibull, Gamma": ((tfd.Weibull, tfd.Gamma), (1.4, 1.7), (2.0, 0.7), HALF),
    "tanh": (
        lambda m, s: distrax.Transformed(distrax.Normal(m, s), distrax.Tanh()),
        *TWO,
        (-1, 0.1, 1),
    ),
    "tanh of TFP": (
        lambda m, s: tfd.TransformedDistribution(tfd.Normal(m, s), tfb.Tanh()),
        *TWO,
        (-1, 0.1, 1),
    ),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_densities(name):
    makes, parameters_q, parameters_p, ends = DENSITIES[name]
    make_q, make_p = makes if isinstance(makes, tuple) else (makes, makes)
    q, p = make_q(*map(jnp.float64, parameters_q)), make_p(*map(jnp.float64, parameters_p))
    log_q, log_p = jax.jit(q.log_prob), jax.jit(p.log_prob)

    def term(x):
        log_qx, log_px = float(log_q(jnp.float64(x))), float(log_p(jnp.float64(x)))
        return 0 if log_qx == -np.inf else np.exp(log_qx) * (log_qx - log_px)

    exact = sum(
        integrate.quad(term, *pair, limit=200)[0] for pair in zip(ends[:-1], ends[1:], strict=True)
    )
    np.testing.assert_allclose(losses.kl_divergence(q, p), exact, rtol=1e-7)


LOGITS = np.array([0.4, 0.0, 1.0]), np.array([0.0, 2.0, 1.0])
MASSES = {
    "ProbitBernoulli": lambda: [tfd.ProbitBernoulli(np.float64(x)) for x in (0.4, -1)],
    "EpsilonGreedy": lambda: [distrax.EpsilonGreedy(logits, 0.3) for logits in LOGITS],
    "Deterministic": lambda: [tfd.Deterministic(1), tfd.Categorical(LOGITS[1])],
}


@pytest.mark.parametrize("name", MASSES)
def test_masses(name):
    q, p = MASSES[name]()
    states = np.arange(2 if "Bernoulli" in name else 3)
    masses = np.float64(q.prob(states))
    exact = np.sum(masses * (np.log(np.maximum(masses, 1e-300)) - np.float64(p.log_prob(states))))
    np.testing.assert_allclose(losses.kl_divergence(q, p), exact, rtol=1e-7)


def test_one_hot_distributions():
    log_q, log_p = (special.log_softmax(logits) for logits in LOGITS)
    exact = np.sum(np.exp(log_q) * (log_q - log_p))
    forms = [tfd.OneHotCategorical, distrax.OneHotCategorical]
    forms += [lambda x, f=form: f(probs=jax.nn.softmax(x)) for form in forms]
    for form_q, form_p in zip(forms, forms[1:] + forms[:1], strict=True):
        pair = form_q(jnp.asarray(LOGITS[0])), form_p(jnp.asarray(LOGITS[1]))
        np.testing.assert_allclose(losses.kl_divergence(*pair), exact, rtol=1e-12)
    several = [tfd.Independent(tfd.OneHotCategorical(jnp.stack([x, x])), 1) for x in LOGITS]
    np.testing.assert_allclose(kl_per_dimension(*several), [exact, exact], rtol=1e-12)


def test_distraxs_joint_is_the_sum_over_its_parts():
    q, p = (
        distrax.Joint({"a": distrax.Normal(m, s), "b": distrax.Gumbel(m, s)})
        for m, s in (map(np.float64, parameters) for parameters in TWO)
    )
    parts = [losses.kl_divergence(q.distributions[n], p.distributions[n]) for n in "ab"]
    np.testing.assert_allclose(losses.kl_divergence(q, p), sum(parts), rtol=1e-12)


def scaled(scale):
    bijector = distrax.ScalarAffine(jnp.zeros(2), jnp.full(2, scale))
    return distrax.Transformed(distrax.Normal(jnp.zeros(2), jnp.ones(2)), bijector)


REFUSED = {
    # Distrax compares the bijectors' programs, not the scales in them. It gives 0; the KL is 0.807.
    "bijectors of other parameters": lambda: (scaled(2.0), scaled(1.0)),
    "within a joint": lambda: (distrax.Joint([scaled(2.0)]), distrax.Joint([scaled(1.0)])),
    "a point and a density": lambda: (tfd.Deterministic(0.3), tfd.Normal(0.0, 1.0)),
    "points and densities": lambda: (
        tfd.Independent(tfd.Deterministic(np.zeros(2)), 1),
        tfd.Independent(tfd.Normal(np.zeros(2), np.ones(2)), 1),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_inexact_forms_are_refused(name):
    with pytest.raises(ValueError, match="No closed-form KL is known between"):
        losses.kl_divergence(*REFUSED[name]())


def test_the_same_bijector_leaves_the_kl_as_it_is():
    bijector = distrax.ScalarAffine(np.zeros(2), np.full(2, 3.0))
    q, p = (
        distrax.Transformed(distrax.Normal(np.float64(m), np.float64(s)), bijector) for m, s in TWO
    )
    exact = losses.kl_divergence(q.distribution, p.distribution)
    np.testing.assert_allclose(losses.kl_divergence(q, p), [exact, exact], rtol=1e-12)
