"""Precision of closed-form KLs: parameters at the ends of ranges, nearly equal laws, bfloat16."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.distributions import BernoulliVector
from elbo_lab.losses.divergences import kl_per_dimension

fast = pytest.mark.usefixtures("fast_compilation")  # Not for tests of the last digits.

# Parameters at the ends of their ranges. Law: (class, [(q, p, KL)]).

INF, LOG_2 = np.inf, np.log(2)
ENDS = {
    "Bernoulli probs": (
        dist.BernoulliProbs,
        [(0, 0.5, LOG_2), (1, 0.5, LOG_2), (0, 0, 0), (1, 1, 0), (0, 1, INF), (0.5, 1, INF)],
    ),
    "Bernoulli logits": (
        dist.BernoulliLogits,
        [(-INF, 0, LOG_2), (INF, 0, LOG_2), (-INF, -INF, 0), (0, INF, INF), (200, 0, LOG_2)],
    ),
    "categorical probs": (
        dist.CategoricalProbs,
        [
            ((0, 1, 0), (0.25, 0.25, 0.5), 2 * LOG_2),
            ((0.5, 0.5, 0), (0.5, 0.5, 0), 0),
            ((0.5, 0.5, 0), (0.25, 0.25, 0.5), LOG_2),  # One ratio in all states of q.
            ((0.5, 0.25, 0.25), (0.5, 0.5, 0), INF),
        ],
    ),
    "categorical logits": (
        dist.CategoricalLogits,
        [
            ((-INF, 3, -INF), (0, 0, LOG_2), 2 * LOG_2),
            ((-200, 0, 0), (-INF, 0, 0), INF),
            ((-200, 0, 0), (200, 0, 0), 200 - LOG_2),
        ],
    ),
    "Poisson": (dist.Poisson, [(0, 3, 3), (0, 0, 0), (2, 0, INF), (1e-30, 50, 50)]),
    "uniform": (
        lambda ends: dist.Uniform(ends[..., 0], ends[..., 1]),
        [
            ((0, 1), (0, 2), LOG_2),
            ((0, 1), (0, 1), 0),
            ((0, 2), (0, 1), INF),
            ((0, 1), (2, 3), INF),
        ],
    ),
}


@fast
def test_the_ends_of_the_parameters_ranges():
    """Divergences are exact and derivatives finite."""

    @jax.jit
    def compute(ends):
        def kl(q, p, make):
            return losses.kl_divergence(make(q), make(p))

        results = {}
        for name, (q, p) in ends.items():
            slopes = jax.value_and_grad(functools.partial(kl, make=ENDS[name][0]), (0, 1))
            results[name] = jax.vmap(slopes)(q, p)
        return results

    ends = {
        name: [np.array([case[i] for case in cases], np.float32) for i in (0, 1)]
        for name, (_, cases) in ENDS.items()
    }
    for name, (value, slopes) in compute(ends).items():
        exact = [case[2] for case in ENDS[name][1]]
        np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-6, err_msg=name)
        assert all(np.all(np.isfinite(slope)) for slope in slopes), (name, slopes)


def test_categorical_distributions_with_different_numbers_of_states_are_refused():
    q, p = dist.CategoricalLogits(jnp.zeros(3)), dist.CategoricalLogits(jnp.zeros(4))
    with pytest.raises(ValueError, match="posterior has 3 states and the prior 4"):
        losses.kl_divergence(q, p)


# Parameters in half precision. conftest.py refuses promotions of ranks and types.


def half_precision_pairs(dtype):
    """Posterior and prior by name; bfloat16 represents their parameters exactly."""
    one, half, several = (jnp.asarray(x, dtype) for x in (1.0, 0.5, [0.25, -3.0, 1.5]))
    scales, probs = jnp.asarray([0.5, 2.0, 1.25], dtype), jnp.asarray([0.25, 0.5, 0.75], dtype)
    batch = several[None] * jnp.asarray([[1.0], [2.0]], dtype)  # [2, 3] against [3]
    return {
        "normal": (dist.Normal(batch, scales), dist.Normal(several, one)),
        "log_normal": (dist.LogNormal(batch, scales), dist.LogNormal(several, one)),
        "laplace": (dist.Laplace(batch, scales), dist.Laplace(several, one)),
        "uniform": (dist.Uniform(several, several + 1), dist.Uniform(-4 * one, 4 * one)),
        "gamma": (dist.Gamma(scales, one), dist.Gamma(one, half)),
        "exponential": (dist.Exponential(scales), dist.Exponential(half)),
        "beta": (dist.Beta(scales, one), dist.Beta(one, half)),
        "dirichlet": (dist.Dirichlet(scales), dist.Dirichlet(probs)),
        "poisson": (dist.Poisson(scales), dist.Poisson(half)),
        "bernoulli logits": (dist.BernoulliLogits(batch), dist.BernoulliLogits(several)),
        "bernoulli probs": (dist.BernoulliProbs(probs), dist.BernoulliProbs(half)),
        "categorical": (dist.CategoricalLogits(batch), dist.CategoricalLogits(several)),
        "vector": (BernoulliVector(batch), BernoulliVector(several)),
        "independent": (
            dist.Normal(batch, scales).to_event(1),
            dist.Normal(several, jnp.ones(3)).to_event(1),  # The scale is float32.
        ),
        "low rank": (
            dist.Normal(several, scales).to_event(1),
            dist.LowRankMultivariateNormal(jnp.zeros(3), jnp.ones((3, 1)), jnp.ones(3)),
        ),
    }


@fast
def test_kls_of_half_precision_equal_those_of_float32():
    def compute(dtype):
        pairs = half_precision_pairs(dtype)
        values = {name: losses.kl_divergence(*pair) for name, pair in pairs.items()}
        values["per dimension"] = kl_per_dimension(*pairs["independent"])
        values["moments"] = losses.divergences.moments(pairs["independent"][0])
        return values

    half, single = jax.jit(lambda: (compute(jnp.bfloat16), compute(jnp.float32)))()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((half, single)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), half, single)


@fast
def test_gaussian_kls_of_half_precision_and_several_ranks():
    """They equal the KLs of the parameters cast to float32; derivatives keep the type."""
    mean, scale = jnp.asarray([[0.25, -3.0]], jnp.bfloat16), jnp.asarray([0.5, 2.0], jnp.bfloat16)
    cov = jnp.asarray([[2.0, 0.5], [0.5, 1.0]], jnp.bfloat16)

    def kls(mean, scale, cov):
        full = losses.gaussian_kl_full(mean, cov, jnp.zeros(2), jnp.eye(2))
        return jnp.sum(losses.gaussian_kl(mean, scale)), jnp.sum(full)

    arguments = mean, scale, cov
    values, slopes = jax.jit(lambda *a: (kls(*a), jax.jacrev(kls, (0, 1, 2))(*a)))(*arguments)
    exact = jax.jit(kls)(*(array.astype(jnp.float32) for array in arguments))
    assert [value.dtype for value in values] == [jnp.float32] * 2
    np.testing.assert_array_equal(values, exact)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(slopes))


# Nearly equal posterior and prior, against mpmath.


def mp_normal(m_q, s_q, m_p, s_p):
    r = s_q / s_p
    return (r**2 - 1 - 2 * mpmath.log(r) + ((m_q - m_p) / s_p) ** 2) / 2


def mp_laplace(m_q, s_q, m_p, s_p):
    distance = abs(m_q - m_p)
    spread = (s_q * mpmath.exp(-distance / s_q) + distance) / s_p
    return spread - 1 - mpmath.log(s_q / s_p)


def mp_exponential(r_q, r_p):
    return r_p / r_q - 1 - mpmath.log(r_p / r_q)


def mp_poisson(r_q, r_p):
    return r_q * mpmath.log(r_q / r_p) - r_q + r_p


def mp_bernoulli(l_q, l_p):
    q, p = (1 / (1 + mpmath.exp(-logit)) for logit in (l_q, l_p))
    return q * mpmath.log(q / p) + (1 - q) * mpmath.log((1 - q) / (1 - p))


# Name: (class, parameters, KL in mpmath, index of the parameter of q that is moved).
NEARLY_EQUAL = {
    "normal": (dist.Normal, (0.7, 1.3), mp_normal, 1),
    "normal, mean": (dist.Normal, (0.7, 1.3), mp_normal, 0),
    "laplace": (dist.Laplace, (0.7, 1.3), mp_laplace, 1),
    "laplace, mean": (dist.Laplace, (0.7, 1.3), mp_laplace, 0),
    "exponential": (dist.Exponential, (0.7,), mp_exponential, 0),
    "poisson": (dist.Poisson, (0.7,), mp_poisson, 0),
    "bernoulli": (dist.BernoulliLogits, (-0.7,), mp_bernoulli, 0),
    "bernoulli, nearly certain": (dist.BernoulliLogits, (9.3,), mp_bernoulli, 0),
}
STEPS = np.array([1e-6, -3e-6, 1e-4, -1e-3, 1e-2, 0.09, -0.2, 0.45, 0.55, 3.0, -0.6])


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_digits_of_nearly_equal_laws(dtype):
    """Value and derivative by the parameter that is moved."""

    @jax.jit
    def compute(cases):
        def kl(moved, name, p):
            make, _, _, index = NEARLY_EQUAL[name]
            q = [*p[:index], moved, *p[index + 1 :]]
            return losses.kl_divergence(make(*q), make(*p))

        results = {}
        for name, (moved, p) in cases.items():
            slope = jax.value_and_grad(functools.partial(kl, name=name, p=p))
            results[name] = jax.vmap(slope)(moved)
        return results

    with jax.enable_x64(dtype == np.float64):
        cases = {
            name: (dtype(parameters[index] * (1 + STEPS)), [dtype(x) for x in parameters])
            for name, (_, parameters, _, index) in NEARLY_EQUAL.items()
        }
        computed = compute(cases)
    tolerance = 8 * float(np.finfo(dtype).eps)
    for name, (moved, parameters) in cases.items():
        exact, index = NEARLY_EQUAL[name][2:]
        p = [mpmath.mpf(float(x)) for x in parameters]

        def kl(x):
            return exact(*p[:index], x, *p[index + 1 :], *p)  # noqa: B023

        with mpmath.workdps(50):
            values = [float(kl(mpmath.mpf(float(x)))) for x in moved]
            slopes = [float(mpmath.diff(kl, mpmath.mpf(float(x)))) for x in moved]
        np.testing.assert_allclose(computed[name][0], values, rtol=tolerance, err_msg=name)
        np.testing.assert_allclose(computed[name][1], slopes, rtol=tolerance, err_msg=name)
