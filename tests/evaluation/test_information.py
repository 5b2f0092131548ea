"""Bounds of mutual information: exact expectations by enumeration, closed forms of Gaussians."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from elbo_lab.evaluation import information


def by_definition(log_q: np.ndarray) -> np.ndarray:
    """Lower, corrected and upper of each row of log q(z_i|x_j) [N, N], by loops in float64."""
    number = len(log_q)

    def lower(i: int, members: list[int]) -> float:
        return log_q[i, i] - logsumexp(log_q[i, members]) + np.log(len(members))

    rows = []
    for i in range(number):
        everyone = list(range(number))
        others = [j for j in everyone if j != i]
        left_out = [lower(i, [j for j in everyone if j != k]) for k in others]
        corrected = number * lower(i, everyone) - (number - 1) * np.mean(left_out)
        upper = log_q[i, i] - logsumexp(log_q[i, others]) + np.log(number - 1)
        rows.append((lower(i, everyone), corrected, upper))
    return np.array(rows)


of_matrix = jax.jit(information.of_matrix)


def run(log_q: np.ndarray) -> list[np.ndarray]:
    """Lower, corrected and upper of each row."""
    return [np.float64(values) for values in of_matrix(jnp.asarray(log_q, jnp.float32))]


def test_the_estimates_are_those_of_loops():
    rng = np.random.default_rng(0)
    log_q = 3 * rng.normal(size=(9, 9))
    log_q[2, 5] += 40.0  # z_2 fits x_5: 1 - p is exp(-40), which float32 cannot hold as 1 - p
    log_q[4, 4] += 60.0
    log_q[7] -= 5000.0
    np.testing.assert_allclose(
        np.stack(run(log_q), axis=1), by_definition(log_q), rtol=3e-5, atol=2e-3
    )


def test_directions_and_the_order_of_the_bias_hold_in_exact_expectation():
    """x in {0, 1} and z in {0, 1}: every draw of a pair and of N - 1 other x is enumerated."""
    p, q = np.array([0.4, 0.6]), np.array([[0.8, 0.2], [0.3, 0.7]])
    marginal = p @ q
    exact = np.sum(p[:, None] * q * np.log(q / marginal))
    chi2 = np.sum(p[:, None] * q**2 / marginal) - 1
    x = np.array(list(itertools.product((0, 1), repeat=8)))  # x_1, ..., x_8
    # Rows with z = 0, then those with z = 1.
    log_q = np.log(np.concatenate([q[x, 0], q[x, 1]]))
    weights = np.exp(log_q[:, 0]) * np.tile(np.prod(p[x], axis=1), 2)
    place, of_rows = np.arange(8) + np.zeros((512, 1), int), jax.jit(information.estimates)
    means = {}
    for number in (2, 4, 8):
        masks = place == 0, (0 < place) & (place < number)
        means[number] = [weights @ np.float64(v) for v in of_rows(log_q.astype(np.float32), *masks)]
    for number, (lower, corrected, upper) in means.items():
        first_order = chi2 / (2 * number)
        assert exact - lower == pytest.approx(first_order, rel=1 / (2 * number))
        assert upper - exact == pytest.approx(first_order, rel=3 / number)
        assert abs(corrected - exact) < 0.05 * first_order
    assert means[2][0] < means[4][0] < means[8][0] < exact


def gaussians(dim_x: int, dim_z: int, strength: float):
    """A, S and I(x; z) of x ~ N(0, I) and z|x ~ N(A x, S), with any A and S."""
    rng = np.random.default_rng([dim_x, dim_z])
    coupling = strength * rng.normal(size=(dim_z, dim_x)) / np.sqrt(dim_x)
    root = rng.normal(size=(dim_z, dim_z)) / np.sqrt(dim_z)
    noise = root @ root.T + np.eye(dim_z)
    signal = np.linalg.solve(noise, coupling @ coupling.T)
    return coupling, noise, 0.5 * np.linalg.slogdet(np.eye(dim_z) + signal)[1]


def log_densities(x, z, coupling, noise) -> np.ndarray:
    """log q(z_i|x_j), [N, N]."""
    offsets = z[:, None] - (x @ coupling.T)[None]
    squares = np.einsum("ijk,kl,ijl->ij", offsets, np.linalg.inv(noise), offsets)
    return -0.5 * (squares + np.linalg.slogdet(2 * np.pi * noise)[1])


@jax.jit
def means_of(log_q):
    return jnp.stack([jnp.mean(values) for values in information.of_matrix(log_q)])


@pytest.mark.slow
@pytest.mark.parametrize(("dim_x", "dim_z", "strength"), [(1, 1, 1.0), (3, 2, 1.0), (6, 8, 0.7)])
def test_correlated_gaussians_of_any_dimensions(dim_x, dim_z, strength):
    """The bounds hold, and the corrected one is the closed form within its standard error."""
    coupling, noise, exact = gaussians(dim_x, dim_z, strength)
    rng, repeats, values = np.random.default_rng(1), 40, []
    for _ in range(repeats):
        x = rng.normal(size=(200, dim_x))
        z = x @ coupling.T + rng.multivariate_normal(np.zeros(dim_z), noise, 200)
        values.append(means_of(jnp.asarray(log_densities(x, z, coupling, noise), jnp.float32)))
    values = np.float64(values)
    means, errors = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(repeats)
    lower, corrected, upper = means
    assert lower < exact + 4 * errors[0] and upper > exact - 4 * errors[2]
    assert lower < corrected < upper
    assert corrected == pytest.approx(exact, abs=4 * errors[1])


def test_a_code_that_says_all_of_x_ends_at_log_n():
    """Laws far apart: N log N - (N - 1) log(N - 1) is the jackknife of log N."""
    lower, corrected, upper = run(np.where(np.eye(9, dtype=bool), 3.0, -400.0))
    np.testing.assert_allclose(lower, np.log(9), rtol=1e-6)
    np.testing.assert_allclose(corrected, 9 * np.log(9) - 8 * np.log(8), rtol=1e-6)
    np.testing.assert_allclose(upper, 403.0, rtol=1e-6)
    # A density of 0 at other examples' draws has no finite upper bound.
    lower, corrected, upper = run(np.where(np.eye(9, dtype=bool), 3.0, -np.inf))
    np.testing.assert_allclose(lower, np.log(9), rtol=1e-6)
    assert np.all(np.isfinite(corrected)) and np.all(upper == np.inf)


@pytest.mark.slow
def test_a_collapsed_posterior_has_no_information_and_no_noise():
    """With the entropy in closed form half of the estimates are negative, by the draws' noise."""
    rng, dim, number = np.random.default_rng(2), 20, 100
    with_entropy = []
    for _ in range(400):
        z = rng.normal(size=(number, dim))
        log_q = np.broadcast_to(
            -0.5 * np.sum(z**2, axis=1) - dim / 2 * np.log(2 * np.pi), (100,) * 2
        )
        entropy = dim / 2 * np.log(2 * np.pi * np.e)
        with_entropy.append(-entropy - np.mean(logsumexp(log_q.T, axis=1) - np.log(number)))
    found = information.of_matrix(jnp.asarray(log_q.T, jnp.float32))
    np.testing.assert_allclose(np.stack(found), 0, atol=2e-5)
    assert np.std(with_entropy) == pytest.approx(np.sqrt(dim / (2 * number)), rel=0.15)
    assert 0.4 < np.mean(np.array(with_entropy) < 0) < 0.6


@pytest.mark.slow
def test_other_scores_are_a_lower_bound_below_the_best():
    coupling, noise, exact = gaussians(2, 2, 1.0)
    rng, best, other = np.random.default_rng(3), [], []
    for _ in range(40):
        x = rng.normal(size=(200, 2))
        z = x @ coupling.T + rng.multivariate_normal(np.zeros(2), noise, 200)
        best.append(means_of(jnp.asarray(log_densities(x, z, coupling, noise), jnp.float32))[0])
        other.append(means_of(jnp.asarray(z @ coupling @ x.T, jnp.float32))[0])
    assert np.mean(other) < np.mean(best) - 3 * np.std(best) / np.sqrt(40) < exact


def test_wrong_matrices_are_named():
    for shape in ((3, 4), (1, 1), (2, 2, 2)):
        with pytest.raises(ValueError, match=r"log_q must be \[N, N\] with N of at least 2; got"):
            information.of_matrix(jnp.zeros(shape))


def test_the_numbers_of_a_curve_end_with_all():
    assert information.sizes(2) == (2,)
    assert information.sizes(16) == (4, 16)
    assert information.sizes(100) == (4, 16, 64, 100)
