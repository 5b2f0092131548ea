"""The study likelihoods: its closed forms against quadrature, its estimates against NumPy."""

import copy
import xml.dom.minidom

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from elbo_lab.errors import UserError
from elbo_lab.losses import bounds
from elbo_lab.studies import computed, likelihood_analysis, likelihood_problem, likelihood_results
from elbo_lab.studies.likelihood_analysis import Draws
from elbo_lab.studies.likelihood_problem import COUPLING, Problem, Proposal
from elbo_lab.studies.likelihoods import STUDY, figure

PROBLEM = likelihood_problem.make(2, views=2)
X = likelihood_problem.examples(PROBLEM, np.random.default_rng(0), 3)
STD = 0.5
DIRECTION = np.random.default_rng(4).normal(size=(3, 4, 2))


def grid(mean, cholesky, nodes=60):
    """Points [n, 2] and weights [n] of Gauss-Hermite quadrature under a Gaussian."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    plane = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    return mean + plane @ cholesky.T, np.outer(weights, weights).ravel() / np.sum(weights) ** 2


def test_the_closed_forms_are_those_of_quadrature():
    for x, log_px, mean in zip(
        X,
        likelihood_problem.log_px(PROBLEM, X),
        likelihood_problem.posterior_mean(PROBLEM, X),
        strict=True,
    ):
        # The first view of latent 2 is z_2 + 0.3 z_1 + noise; the second view is the same.
        z, weights = grid(mean, 0.6 * np.eye(2))
        means = np.stack([z[:, 0], z[:, 1] + COUPLING * z[:, 0]], axis=1)
        log_joint = norm.logpdf(x, np.tile(means, 2), STD).sum(1) + norm.logpdf(z).sum(1)
        terms = weights * np.exp(log_joint - norm.logpdf(z, mean, 0.6).sum(1))
        assert log_px == pytest.approx(np.log(terms.sum()), abs=1e-9)
        np.testing.assert_allclose(terms @ z / terms.sum(), mean, atol=1e-9)
        own = terms[:, None] * (z - mean)
        covariance = np.linalg.inv(likelihood_problem.precision(PROBLEM))
        np.testing.assert_allclose(own.T @ (z - mean) / terms.sum(), covariance, atol=1e-9)


def test_the_exact_gradient_is_that_of_finite_differences():
    slope = np.empty((3, 4, 2))
    for d, index in np.ndindex(4, 2):
        values = []
        for step in (1e-5, -1e-5):
            w = PROBLEM.w.copy()
            w[d, index] += step
            values.append(likelihood_problem.log_px(Problem(w), X))
        slope[:, d, index] = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(likelihood_problem.gradient(PROBLEM, X), slope, atol=1e-7)


def test_proposals_are_those_of_their_names():
    problem = likelihood_problem.make(2)
    many = likelihood_problem.examples(problem, np.random.default_rng(1), 100_000)
    means = likelihood_problem.posterior_mean(problem, many)
    inverse = np.linalg.inv(likelihood_problem.precision(problem))
    fixed = likelihood_problem.fixed(problem, many[:1])
    np.testing.assert_allclose(fixed.mean[0], means.mean(axis=0), atol=5 * 0.6 / np.sqrt(1e5))
    variances = means.var(axis=0) + np.diag(inverse)
    np.testing.assert_allclose(np.diag(fixed.cholesky) ** 2, variances, rtol=0.02)
    # The greatest ELBO of a diagonal q: any other scale has a greater KL to the posterior.
    exact, q = (f(problem, X[:, :2]) for f in (likelihood_problem.exact_posterior, amortized))
    np.testing.assert_allclose(exact.cholesky @ exact.cholesky.T, inverse, atol=1e-12)
    least = likelihood_problem.kl(q, exact)
    for scales in ((1.05, 1.0), (0.95, 1.0), (1.0, 1.05), (1.0, 0.95)):
        other = q._replace(cholesky=q.cholesky * np.array(scales))
        assert np.all(likelihood_problem.kl(other, exact) > least)


amortized = likelihood_problem.amortized


def test_the_kl_is_that_of_quadrature():
    first = Proposal(np.array([[0.3, -1.0]]), np.array([[0.7, 0.0], [0.4, 1.2]]))
    second = Proposal(np.array([[-0.2, 0.5]]), np.array([[1.1, 0.0], [-0.3, 0.6]]))
    z, weights = grid(first.mean[0], first.cholesky, 5)  # exact for quadratic functions
    logs = [multivariate_normal(p.mean[0], p.cholesky @ p.cholesky.T) for p in (first, second)]
    expected = weights @ (logs[0].logpdf(z) - logs[1].logpdf(z))
    assert likelihood_problem.kl(first, second) == pytest.approx(expected, rel=1e-10)


def draws_of(name, key, numbers):
    """`Draws` of an estimate at the examples X, and the draws z [K, N, L] that it made."""
    estimate = likelihood_analysis.ESTIMATES[name]
    proposal = estimate.proposal(PROBLEM, X)
    arrays = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), (X, PROBLEM.w, DIRECTION, proposal)
    )
    draws = likelihood_analysis.draw(key[None], *arrays, estimate.bound, numbers)
    noise = np.float64(jax.random.normal(jax.random.clone(key), (numbers[-1], len(X), 2)))
    return jax.device_get(draws), proposal.mean + noise @ proposal.cholesky.T, proposal


@pytest.mark.slow
@pytest.mark.parametrize("name", likelihood_analysis.ESTIMATES)
def test_estimates_and_gradients_are_those_of_numpy(name):
    draws, z, proposal = draws_of(name, jax.random.key(3), (1, 4))
    covariance = proposal.cholesky @ proposal.cholesky.T
    log_q = multivariate_normal(np.zeros(2), covariance).logpdf(z - proposal.mean)
    mean_of_logs = name.endswith("ELBO")

    def estimate(w, k):
        log_px_z = norm.logpdf(X, z[:k] @ w.T, STD).sum(-1)
        log_w = log_px_z + norm.logpdf(z[:k]).sum(-1) - log_q[:k]
        return log_w.mean(0) if mean_of_logs else logsumexp(log_w, axis=0) - np.log(k)

    for index, k in enumerate((1, 4)):
        np.testing.assert_allclose(draws.values[0, index], estimate(PROBLEM.w, k), rtol=1e-4)
        slope = np.empty((3, 4, 2))
        for place in np.ndindex(4, 2):
            move = np.zeros((4, 2))
            move[place] = 1e-5
            values = estimate(PROBLEM.w + move, k) - estimate(PROBLEM.w - move, k)
            slope[(slice(None), *place)] = values / 2e-5
        norms = np.sqrt(np.sum(slope**2, (1, 2)))
        np.testing.assert_allclose(draws.norms[0, index], norms, rtol=1e-3)
        products = np.sum(slope * DIRECTION, (1, 2)) / np.sqrt(np.sum(DIRECTION**2, (1, 2)))
        np.testing.assert_allclose(draws.cosines[0, index], products / norms, atol=1e-3)


def test_statistics_of_made_estimates():
    slope, exact = likelihood_problem.gradient(PROBLEM, X), likelihood_problem.log_px(PROBLEM, X)
    offsets = np.array([-3.0, -1.0])  # in two repeats
    values = exact + offsets[:, None, None]
    ones = np.ones((2, 1, 3))
    norms = 2 * np.sqrt(np.sum(slope**2, axis=(1, 2))) * ones
    same = Draws(values, norms, 0.25 * ones, 2 * ones, ones > 0, np.array(-7.0))
    row = likelihood_analysis.row(PROBLEM, X, same)
    assert row["bias"] == pytest.approx([-2.0]) and row["sd"] == pytest.approx([np.sqrt(2)])
    assert row["bias_error"] == pytest.approx([1.0]) and row["norm"] == pytest.approx([2.0])
    assert row["cosine"] == [0.25]
    assert row["log_ratio"] == pytest.approx([(np.log(2) - 2.0) / np.log(10)])
    assert row["effective"] == [2.0] and row["underflow"] == [1.0]


@pytest.mark.slow
def test_one_draw_is_too_low_by_the_kl_and_the_posterior_is_exact():
    problem = likelihood_problem.make(2)
    x = likelihood_problem.examples(problem, np.random.default_rng(2), 5)
    names = tuple(likelihood_analysis.ESTIMATES)
    model = likelihood_analysis.measure(jax.random.key(0), problem, x, names, 10, 300)
    assert model["draws"] == [1, 10] and (model["latent_dim"], model["data_dim"]) == (2, 2)
    by_name = {estimate["estimate"]: estimate for estimate in model["estimates"]}
    for estimate in by_name.values():
        error = max(estimate["bias_error"][0], 1e-5)
        assert estimate["bias"][0] == pytest.approx(-estimate["kl"], abs=5 * error)
    exact, elbo, iwae = (by_name[f"{name}"] for name in names[2:])
    assert np.max(np.abs(exact["bias"] + exact["sd"])) < 1e-4
    assert elbo["bias"][1] == pytest.approx(-elbo["kl"], abs=5 * elbo["bias_error"][1])
    assert elbo["sd"][1] == pytest.approx(elbo["sd"][0] / np.sqrt(10), rel=0.2)
    assert -elbo["kl"] < iwae["bias"][1] < 0
    assert exact["cosine"][1] > exact["cosine"][0] > by_name["prior"]["cosine"][0]


def test_numbers_of_draws_end_with_the_greatest():
    assert likelihood_analysis.numbers_of_draws(1) == (1,)
    assert likelihood_analysis.numbers_of_draws(100) == (1, 10, 100)
    assert likelihood_analysis.numbers_of_draws(250) == (1, 10, 100, 250)
    assert likelihood_analysis.ESTIMATES["prior"].bound is bounds.iwae


def made_results():
    """Results of two models, the second with draws from the prior alone."""
    numbers = {"bias": [-3.25, -1.5], "bias_error": [0.1, 0.05], "sd": [2.0, 0.75]}
    numbers |= {"norm": [1.5, 1.25], "cosine": [0.25, 0.5]}
    numbers |= {"effective": [1.0, 4.5], "underflow": [0.5, 0.25], "log_ratio": [-9.0, -2.5]}
    estimate = {"estimate": "prior", "kl": 3.0, "kl_of_posterior": 2.0, "log_px_z": -20.0}
    model = {"latent_dim": 2, "data_dim": 2, "log_px": -4.0, "draws": [1, 10]}
    estimates = [{**estimate, **numbers}, {**estimate, **numbers, "estimate": "q(z|x), IWAE"}]
    both, prior_only = {**model, "estimates": estimates}, {**model, "estimates": estimates[:1]}
    return {"examples": 5, "repeats": 30, "models": [both, {**prior_only, "data_dim": 8}]}


def test_the_figure_is_svg_and_the_tables_are_made_of_the_stored_file(tmp_path):
    results = made_results()
    svg = figure(results)
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
    conditions = {"command": "x", "date": "x", "device": "cpu", "elbo_lab": "1", "jax": "1"}
    content = {**conditions, "seconds": 3.0, "settings": {}, "results": results}
    assert likelihood_results.markdown(computed.read(STUDY, tmp_path)) == "No study is stored yet."
    computed.stored_results.write(tmp_path / "likelihoods.json", content)
    text = likelihood_results.markdown(computed.read(STUDY, tmp_path))
    assert "| 2 | prior | 2.00 | -3.00 | -3.25 (2.00) | -1.50 (0.75) |" in text
    assert "| 2 | 8 | -4.0 | -20.0 | 4.5 | 25% | 10^-2.5 | 1.25 | 0.50 |" in text
    assert "at most 0.10)" in text
    damaged = copy.deepcopy(content)
    del damaged["results"]["models"][0]["log_px"]
    computed.stored_results.write(tmp_path / "likelihoods.json", damaged)
    with pytest.raises(UserError, match="is damaged: results.models.0.log_px is missing"):
        computed.read(STUDY, tmp_path)
