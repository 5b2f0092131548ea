"""Closed-form KLs of each law, in each library's classes, against quadrature and summation."""

import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions.kl import kl_divergence as numpyro_registry
from scipy import stats

from elbo_lab import losses
from elbo_lab.distributions import BernoulliVector
from elbo_lab.losses.divergences import kl_per_dimension
from tests.losses import law_forms
from tests.losses.law_forms import LAWS, kl_of_normals, random_covariances

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def divergences(name, forms):
    """Summed and per-dimension KLs, (scalar, [2]), of pairs of classes that write down one law.

    Each class is paired with the first class, itself and the next class, and also with itself
    without `Independent`.
    """
    _, q_parameters, p_parameters = LAWS[name]
    q_parameters = [jnp.asarray(values, float) for values in q_parameters]
    p_parameters = [jnp.full(2, value, float) for value in p_parameters]
    values = []
    for i, (make_q, independent_q) in enumerate(forms):
        for j in {0, i, (i + 1) % len(forms)}:
            make_p, independent_p = forms[j]
            q, p = independent_q(make_q(*q_parameters)), independent_p(make_p(*p_parameters))
            values.append((losses.kl_divergence(q, p), kl_per_dimension(q, p)))
        p = make_q(*(value[0] for value in p_parameters))
        by_dimension = losses.kl_divergence(make_q(*q_parameters), p)
        values.append((jnp.sum(by_dimension), by_dimension))
    return values


def check_laws(libraries):
    def forms(name):
        return [(f, independent) for forms, independent in libraries for f in forms.get(name, [])]

    computed = jax.jit(lambda: {name: divergences(name, forms(name)) for name in LAWS})()
    for name, pairs in computed.items():
        exact = law_forms.exact_kl(name)
        for summed, each in pairs:
            np.testing.assert_allclose(each, exact, rtol=1e-8, err_msg=name)
            np.testing.assert_allclose(summed, np.sum(exact), rtol=1e-8, err_msg=name)


def test_every_law_of_numpyro(float64):
    check_laws([(law_forms.NUMPYRO, law_forms.numpyro_independent)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability")
def test_every_law_across_libraries(float64):
    check_laws(law_forms.every_library())


# Laws of vectors.


def numpyro_normals(mean, scale, factor, tril):
    """Pairs (normal of batch [2] and events [3], its covariance): diagonal, low rank, full."""
    cov = factor @ np.swapaxes(factor, -1, -2) + scale[..., None] ** 2 * np.eye(3)
    return [
        (dist.Normal(mean, scale).to_event(1), scale[..., None] ** 2 * np.eye(3)),
        (dist.LowRankMultivariateNormal(mean, factor, scale**2), cov),
        (dist.MultivariateNormal(mean, scale_tril=tril), tril @ np.swapaxes(tril, -1, -2)),
    ]


def normals_of_every_library(mean, scale, factor, tril):
    """Pairs (normal, its covariance); None where the distribution itself says its covariance."""
    import distrax
    from tensorflow_probability.substrates import jax as tfp

    tfd = tfp.distributions
    numpyro = numpyro_normals(mean, scale, factor, tril)
    (_, diagonal), (_, low_rank), (_, full) = numpyro
    upper = np.swapaxes(np.linalg.cholesky(np.linalg.inv(full)), -1, -2)
    upper = np.linalg.inv(upper)  # full = upper upper^T
    return [
        *numpyro,
        (distrax.MultivariateNormalDiag(mean, scale), diagonal),
        (distrax.MultivariateNormalDiagPlusLowRank(mean, scale, factor), None),
        (distrax.MultivariateNormalFullCovariance(mean, full), full),
        (distrax.MultivariateNormalTri(mean, -tril), full),
        (distrax.MultivariateNormalTri(mean, upper, is_lower=False), full),
        (tfd.MultivariateNormalDiag(mean, -scale), diagonal),
        (tfd.MultivariateNormalFullCovariance(mean, full), full),
        (tfd.MultivariateNormalTriL(mean, tril), full),
        (tfd.MultivariateNormalDiagPlusLowRankCovariance(mean, scale**2, factor), low_rank),
    ]


def check_normals(make):
    """Checks the KL of every pair of normals; `make` as `numpyro_normals`."""
    rng = np.random.default_rng(0)
    arguments = [
        (
            rng.normal(size=(2, 3)),
            rng.uniform(0.5, 2, size=(2, 3)),
            rng.normal(size=(2, 3, 1)),
            np.linalg.cholesky(random_covariances(seed, 2)),
        )
        for seed in (1, 2)
    ]

    @jax.jit
    def compute():
        qs, ps = ([normal for normal, _ in make(*each)] for each in arguments)
        return [losses.kl_divergence(q, p) for q, p in itertools.product(qs, ps)]

    def covariances(each):
        return [np.asarray(d.covariance()) if cov is None else cov for d, cov in make(*each)]

    mean_q, mean_p = arguments[0][0], arguments[1][0]
    pairs = itertools.product(*map(covariances, arguments))
    for value, (cov_q, cov_p) in zip(compute(), pairs, strict=True):
        exact = [kl_of_normals(mean_q[i], cov_q[i], mean_p[i], cov_p[i]) for i in range(2)]
        np.testing.assert_allclose(value, exact, rtol=1e-9)


def test_normals_of_diagonal_low_rank_and_full_covariance(float64):
    check_normals(numpyro_normals)


@pytest.mark.slow
@pytest.mark.promotes  # TFP's covariance promotes.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability")
def test_normals_across_libraries(float64):
    check_normals(normals_of_every_library)


@pytest.mark.slow
def test_a_product_of_normals_against_a_product_of_multivariate_ones(float64):
    """Event shape [2, 3]: two vectors, each of a full covariance."""
    cov, scale = random_covariances(3, 2), np.linspace(0.5, 2, 6).reshape(2, 3)
    q = dist.Normal(0.3, scale).to_event(2)
    p = dist.MultivariateNormal(jnp.zeros(3), cov).to_event(1)
    exact = [kl_of_normals(np.full(3, 0.3), np.diag(scale[i] ** 2), 0, cov[i]) for i in range(2)]
    np.testing.assert_allclose(losses.kl_divergence(q, p), sum(exact), rtol=1e-10)
    np.testing.assert_allclose(kl_per_dimension(p, p), [0, 0], atol=1e-14)
    zero = [dist.MultivariateNormal(0.0, each) for each in cov]  # One mean for all dimensions.
    exact = kl_of_normals(np.zeros(3), cov[0], 0, cov[1])
    np.testing.assert_allclose(losses.kl_divergence(*zero), exact, rtol=1e-10)


def dirichlet_kl(a, b):
    """KL(Dirichlet(a) || Dirichlet(b)), by quadrature of E[log x_c].

    x_c ~ Beta(a_c, sum(a) - a_c).
    """

    def log_normalizer(concentration):
        return sum(map(mpmath.loggamma, concentration)) - mpmath.loggamma(sum(concentration))

    total = float(log_normalizer(b) - log_normalizer(a))
    for a_c, b_c in zip(a, b, strict=True):
        law = stats.beta(a_c, sum(a) - a_c)
        total += (a_c - b_c) * law_forms.integral(lambda x: law.pdf(x) * np.log(x), law)  # noqa: B023
    return total


@pytest.mark.slow
def test_dirichlet_distributions(float64):
    q, p = np.array([[1.5, 2.0, 0.7], [3.0, 1.0, 1.0]]), np.array([0.8, 3.0, 1.1])
    exact = [dirichlet_kl(list(each), list(p)) for each in q]
    value = losses.kl_divergence(dist.Dirichlet(q), dist.Dirichlet(p))
    np.testing.assert_allclose(value, exact, rtol=1e-8)
    pair = dist.Dirichlet(q).to_event(1), dist.Dirichlet(p).expand([2]).to_event(1)
    np.testing.assert_allclose(kl_per_dimension(*pair), exact, rtol=1e-8)


def test_objectives_with_closed_forms_take_discrete_posteriors():
    _, (logits,), (prior_logit,) = LAWS["bernoulli"]
    q = BernoulliVector(jnp.array([logits, logits]))
    p = dist.BernoulliLogits(prior_logit).expand([2]).to_event(1)
    each = law_forms.exact_kl("bernoulli")
    expected = {
        "capacity_vae": 3 * np.abs(np.sum(each) - 0.2),
        "free_bits": np.sum(np.maximum(each, 0.1)),
        "elbo": np.sum(each),
    }
    options = {
        "capacity_vae": {"gamma": 3.0, "capacity": 0.2},
        "free_bits": {"min_kl": 0.1},
        "elbo": {"kl": "analytic"},
    }

    @jax.jit
    def compute():
        def call(name):
            function, likelihood = getattr(losses, name), lambda z: jnp.zeros(z.shape[:-1])
            key = jax.random.key(0)
            return function(key, q, p, likelihood, estimator="score", **options[name])

        return {name: call(name) for name in options}

    for name, (loss, aux) in compute().items():
        np.testing.assert_allclose(loss, np.full(2, expected[name]), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(aux.kl, np.full(2, np.sum(each)), rtol=1e-5, err_msg=name)


# Other pairs in NumPyro's registry, and pairs that are not exact there.

POINT = {"Delta": dist.Delta(jnp.array([0.5])), "Normal": dist.Normal(jnp.zeros(1), 1.0)}
MASK = jnp.array([True, False])
REFUSED = {
    "Kumaraswamy and Beta": (dist.Kumaraswamy(1.4, 1.7), dist.Beta(2.0, 0.7)),
    "Independent.Kumaraswamy. and Independent.ExpandedDistribution.Beta..": (
        dist.Kumaraswamy(jnp.ones(2), 1.7).to_event(1),
        dist.Beta(2.0, 0.7).expand([2]).to_event(1),
    ),
    "Delta and Normal": (POINT["Delta"], POINT["Normal"]),
    "Delta and Independent.Normal.": (
        dist.Delta(jnp.zeros(2), event_dim=1),
        dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    ),
    "Independent.Delta. and Independent.Normal.": (
        dist.Delta(jnp.zeros((2, 3)), event_dim=1).to_event(1),
        dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(2),
    ),
    # Densities of dimensions that only one of the two counts do not cancel.
    "MaskedDistribution and MaskedDistribution": (
        dist.Normal(jnp.zeros(2), 1.0).mask(MASK),
        dist.Normal(jnp.zeros(2), 2.0).mask(~MASK),
    ),
    "MaskedDistribution and Normal": (
        dist.Normal(jnp.zeros(2), 1.0).mask(MASK),
        dist.Normal(jnp.zeros(2), 2.0),
    ),
    "Normal and Laplace": (dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0)),
    "Independent.BernoulliProbs. and Dirichlet": (
        dist.BernoulliProbs(jnp.full(2, 0.5)).to_event(1),
        dist.Dirichlet(jnp.ones(2)),
    ),
}


@pytest.mark.parametrize("names", REFUSED)
def test_pairs_without_an_exact_form_are_refused(names):
    for function in (losses.kl_divergence, kl_per_dimension):
        with pytest.raises(ValueError, match=rf'{names}: use kl="mc"|not seen to be a product'):
            function(*REFUSED[names])


def weibull_against_gamma():
    q, p = stats.weibull_min(1.7, scale=1.4), stats.gamma(2.0, scale=1 / 0.7)
    return law_forms.integral(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), q)


def test_a_pair_that_numpyro_computes(float64):
    q, p = dist.Weibull(1.4, 1.7), dist.Gamma(2.0, 0.7)
    np.testing.assert_allclose(losses.kl_divergence(q, p), weibull_against_gamma(), rtol=1e-9)
    each = kl_per_dimension(q.expand([2]).to_event(1), p.expand([2]).to_event(1))
    np.testing.assert_allclose(each, np.full(2, weibull_against_gamma()), rtol=1e-9)


@pytest.mark.slow
def test_independent_normals_against_a_circulant_one(float64):
    row, scale = np.array([1.5, 0.4, 0.4]), np.array([0.5, 1.0, 1.5])
    p = dist.CirculantNormal(jnp.arange(3.0), covariance_row=row)
    cov = row[np.subtract.outer(np.arange(3), np.arange(3)) % 3]
    q = dist.Normal(jnp.zeros(3), scale).to_event(1)
    exact = kl_of_normals(0, np.diag(scale**2), np.arange(3.0), cov)
    np.testing.assert_allclose(losses.kl_divergence(q, p), exact, rtol=1e-10)


@pytest.mark.slow
def test_a_point_mass_against_masses():
    q, p = dist.Delta(jnp.array([2, 0])), dist.Poisson(1.3)
    exact = 1.3 - np.array([2, 0]) * np.log(1.3) + np.log([2, 1])
    np.testing.assert_allclose(losses.kl_divergence(q, p), exact, rtol=1e-6)
    same = losses.kl_divergence(dist.Delta(jnp.zeros(2)), dist.Delta(jnp.array([0.0, 1.0])))
    np.testing.assert_array_equal(same, [0, np.inf])


def test_masked_dimensions_count_as_zero():
    q, p = (dist.Normal(m, 1.0).mask(MASK).to_event(1) for m in (jnp.ones(2), jnp.zeros(2)))
    np.testing.assert_allclose(kl_per_dimension(q, p), [0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(losses.kl_divergence(q, p), 0.5, rtol=1e-6)


# Every pair of types in NumPyro's registry; the tests above compare or refuse each.
CHECKED = {
    ("Beta", "Beta"),
    ("CategoricalProbs", "CategoricalProbs"),
    ("Delta", "Distribution"),
    ("Delta", "ExpandedDistribution"),
    ("Dirichlet", "Dirichlet"),
    ("Distribution", "ExpandedDistribution"),
    ("ExpandedDistribution", "Distribution"),
    ("ExpandedDistribution", "ExpandedDistribution"),
    ("Gamma", "Gamma"),
    ("Independent", "CirculantNormal"),
    ("Independent", "Independent"),
    ("Kumaraswamy", "Beta"),  # refused
    ("MaskedDistribution", "MaskedDistribution"),
    ("MultivariateNormal", "MultivariateNormal"),
    ("Normal", "Normal"),
    ("Weibull", "Gamma"),
}


def test_every_pair_of_numpyros_registry_has_been_checked():
    pairs = {tuple(cls.__name__ for cls in pair) for pair in numpyro_registry.funcs}
    assert pairs <= CHECKED
