"""A linear-Gaussian model whose exact answers are known, for tests.

z ~ N(0, I_L), x|z ~ N(Wz + b, sigma^2 I_D), q(z|x) = N(Ax + c, diag exp(log_scale)^2).
Answers are NumPy float64 and share no code with elbo_lab. JAX is used in `affine` and
`distributions` alone.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

SIGMA = 0.8


class Params(NamedTuple):
    w: np.ndarray  # [D, L]
    b: np.ndarray  # [D]
    a: np.ndarray  # [L, D]
    c: np.ndarray  # [L]
    log_scale: np.ndarray  # [L]


def make_params(data_dim: int = 3, latent_dim: int = 2, seed: int = 0) -> Params:
    """A random model, and q near its exact posterior but not equal to it."""
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=(data_dim, latent_dim)), 0.5 * rng.normal(size=data_dim)
    cov = np.linalg.inv(np.eye(latent_dim) + w.T @ w / SIGMA**2)
    a = cov @ w.T / SIGMA**2 + 0.1 * rng.normal(size=(latent_dim, data_dim))
    c = -a @ b + 0.1 * rng.normal(size=latent_dim)
    return Params(w, b, a, c, 0.5 * np.log(np.diag(cov)) + 0.1)


def one_latent(shift: float = 0.3, widening: float = 0.2) -> Params:
    """A model with D = 2 and L = 1, for quadrature, and a q that is visibly wrong."""
    params = make_params(data_dim=2, latent_dim=1, seed=1)
    return params._replace(c=params.c + shift, log_scale=params.log_scale + widening)


def cast(params: Params, dtype) -> Params:
    """The parameters as NumPy arrays of another type."""
    return Params(*(np.asarray(leaf, dtype) for leaf in params))


def affine(x, matrix, shift):
    """x @ matrix^T + shift in the matrix's type, nothing promoted; x [*batch, n] -> [*batch, m]."""
    product = jnp.asarray(x, matrix.dtype) @ matrix.T
    return product + jnp.broadcast_to(shift, product.shape)


def distributions(params: Params, x):
    """posterior, prior and log_likelihood as elbo_lab takes them; x [*batch, D]."""
    scale = jnp.exp(params.log_scale)
    posterior = dist.Normal(affine(x, params.a, params.c), scale).to_event(1)
    latent_dim = params.w.shape[1]
    prior = dist.Normal(jnp.zeros(latent_dim), jnp.ones(latent_dim)).to_event(1)

    def log_likelihood(z):
        return dist.Normal(affine(z, params.w, params.b), SIGMA).to_event(1).log_prob(x)

    return posterior, prior, log_likelihood


def log_normal(value, mean, cov):
    """log N(value; mean, cov), value [*any, D]."""
    distance = value - mean
    mahalanobis = np.einsum("...i,ij,...j->...", distance, np.linalg.inv(cov), distance)
    return -0.5 * (mahalanobis + np.linalg.slogdet(2 * np.pi * np.asarray(cov))[1])


def log_px(params: Params, x):
    """Exact log p(x), nats; x [*batch, D]."""
    return log_normal(x, params.b, params.w @ params.w.T + SIGMA**2 * np.eye(len(params.b)))


def exact_posterior(params: Params, x):
    """Mean [L] and covariance [L, L] of p(z|x); x [D]."""
    cov = np.linalg.inv(np.eye(params.w.shape[1]) + params.w.T @ params.w / SIGMA**2)
    return cov @ params.w.T @ (x - params.b) / SIGMA**2, cov


def log_weight(params: Params, x, z):
    """log w of draws z [*any, L] for one example x [D]."""
    eye = np.eye(z.shape[-1])
    log_px_z = log_normal(x, z @ params.w.T + params.b, SIGMA**2 * np.eye(len(x)))
    q = log_normal(z, params.a @ x + params.c, np.diag(np.exp(2 * params.log_scale)))
    return log_px_z + log_normal(z, np.zeros(len(eye)), eye) - q


def reconstruction_and_kl(params: Params, x):
    """Exact E_q[log p(x|z)] and KL(q(z|x) || p(z)); x [D]."""
    mean, variance = params.a @ x + params.c, np.exp(2 * params.log_scale)
    residual = x - params.w @ mean - params.b
    squares = residual @ residual + np.sum(params.w**2 @ variance)
    reconstruction = -0.5 * (len(x) * np.log(2 * np.pi * SIGMA**2) + squares / SIGMA**2)
    kl = 0.5 * np.sum(variance + mean**2 - 1 - np.log(variance))
    return reconstruction, kl


def elbo_gradient(params: Params, x, beta: float = 1.0) -> Params:
    """Exact gradient of E_q[log p(x|z)] - beta KL; x [D]."""
    mean, variance = params.a @ x + params.c, np.exp(2 * params.log_scale)
    residual = x - params.w @ mean - params.b
    by_mean = params.w.T @ residual / SIGMA**2 - beta * mean
    column_squares = np.sum(params.w**2, axis=0)
    return Params(
        w=(np.outer(residual, mean) - params.w * variance) / SIGMA**2,
        b=residual / SIGMA**2,
        a=np.outer(by_mean, x),
        c=by_mean,
        log_scale=-variance * column_squares / SIGMA**2 + beta * (1 - variance),
    )


def relative_moment(params: Params, x, order: int):
    """E_q[(w / p(x))^n] = integral of p(z|x)^n / q(z|x)^(n - 1), for order n; x [D]."""
    mean_p, cov_p = exact_posterior(params, x)
    mean_q, precision_q = params.a @ x + params.c, np.diag(np.exp(-2 * params.log_scale))
    n, m, precision_p = order, order - 1, np.linalg.inv(cov_p)
    # Up to a factor, the integrand is a Gaussian of precision n P_p - (n - 1) P_q.
    precision = n * precision_p - m * precision_q
    assert np.all(np.linalg.eigvalsh(precision) > 0), "the moment is infinite"
    linear = n * precision_p @ mean_p - m * precision_q @ mean_q
    constant = n * mean_p @ precision_p @ mean_p - m * mean_q @ precision_q @ mean_q
    log_det_p, log_det_q, log_det = (
        np.linalg.slogdet(matrix)[1] for matrix in (precision_p, precision_q, precision)
    )
    exponent = linear @ np.linalg.solve(precision, linear) - constant
    return np.exp(0.5 * (n * log_det_p - m * log_det_q - log_det + exponent))


def pairs(params: Params, x, nodes: int = 80):
    """Pairs of draws [2, N, 1] and weights [N]: Gauss-Hermite quadrature over two draws, L = 1."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / np.sum(weights)
    z = params.a @ x + params.c + np.exp(params.log_scale) * points[:, None]  # [nodes, 1]
    both = np.stack([np.repeat(z, nodes, axis=0), np.tile(z, (nodes, 1))])
    return both, np.outer(weights, weights).ravel()


def expectation_2(params: Params, x, bound, nodes: int = 80):
    """Exact E[bound(log w_1, log w_2)] by quadrature, L = 1; bound: [2, N] -> [N]."""
    z, weights = pairs(params, x, nodes)
    return weights @ bound(log_weight(params, x, z))


def iwae_2(params: Params, x, nodes: int = 120):
    """Exact E[log((w_1 + w_2) / 2)] by quadrature, L = 1."""
    return expectation_2(params, x, lambda w: np.logaddexp(w[0], w[1]) - np.log(2), nodes)


def log_weight_slopes(params: Params, x, z):
    """d log w / dz through all three densities, and d log q / d mean at fixed z, [*any, L] each."""
    mean, variance = params.a @ x + params.c, np.exp(2 * params.log_scale)
    by_mean = (z - mean) / variance
    return (x - z @ params.w.T - params.b) @ params.w / SIGMA**2 - z + by_mean, by_mean


def with_exact_posterior(params: Params) -> Params:
    """The model with W's columns made orthogonal, and q equal to its posterior, now diagonal."""
    w = np.linalg.qr(params.w)[0] * np.linalg.norm(params.w, axis=0)
    _, cov = exact_posterior(params._replace(w=w), np.zeros(len(w)))
    a = cov @ w.T / SIGMA**2
    return Params(w, params.b, a, -a @ params.b, 0.5 * np.log(np.diag(cov)))


def finite_difference(function, params: Params, step: float = 1e-5) -> Params:
    """Central differences of a scalar function in float64."""

    def along(field: int, index) -> float:
        values = []
        for sign in (1, -1):
            moved = [np.array(leaf, np.float64) for leaf in params]
            moved[field][index] += sign * step
            values.append(function(Params(*moved)))
        return (values[0] - values[1]) / (2 * step)

    leaves = []
    for field, leaf in enumerate(params):
        slopes = [along(field, index) for index in np.ndindex(leaf.shape)]
        leaves.append(np.reshape(slopes, leaf.shape))
    return Params(*leaves)
