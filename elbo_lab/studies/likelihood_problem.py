"""The linear-Gaussian model of the study likelihoods, with every exact answer in NumPy float64.

    z ~ N(0, I_L)                     the prior
    x|z ~ N(W z, s^2 I_D)             s^2 = 1/4; view d of latent d is z_d + 0.3 z_{d-1} + noise
    z|x ~ N(m(x), P^-1)               P = I + W^T W / s^2,  m(x) = P^-1 W^T x / s^2
    x ~ N(0, W W^T + s^2 I)           log p(x), the value that is estimated

The examples are of one kind, as images of one digit are: their z come from N(1, I/4), a part of the
prior. So draws from the prior are seldom where an example is. Each latent adds the same amount of
information, and neighbouring latents are correlated given x, which a diagonal q(z|x) cannot be.
"""

from typing import NamedTuple

import numpy as np

COUPLING, VARIANCE = 0.3, 0.25
EXAMPLE_MEAN, EXAMPLE_STD = 1.0, 0.5


class Problem(NamedTuple):
    """A model of L latents and D values."""

    w: np.ndarray  # [D, L]

    @property
    def data_dim(self) -> int:
        return self.w.shape[0]

    @property
    def latent_dim(self) -> int:
        return self.w.shape[1]


class Proposal(NamedTuple):
    """A Gaussian from which z is drawn, N(mean, C C^T)."""

    mean: np.ndarray  # [N, L], of each example
    cholesky: np.ndarray  # C [L, L], lower triangular, the same for all examples


def make(latent_dim: int, views: int = 1) -> Problem:
    """The model in which every latent is seen `views` times, each time with noise of its own:
    D = views x L.
    """
    once = np.eye(latent_dim) + COUPLING * np.eye(latent_dim, k=-1)
    return Problem(np.tile(once, (views, 1)))


def examples(problem: Problem, rng: np.random.Generator, number: int) -> np.ndarray:
    """Examples [number, D] whose z come from a part of the prior."""
    z = EXAMPLE_MEAN + EXAMPLE_STD * rng.normal(size=(number, problem.latent_dim))
    noise = np.sqrt(VARIANCE) * rng.normal(size=(number, problem.data_dim))
    return z @ problem.w.T + noise


def log_px(problem: Problem, x: np.ndarray) -> np.ndarray:
    """Exact log p(x) [N], nats; x [N, D]."""
    covariance = problem.w @ problem.w.T + VARIANCE * np.eye(problem.data_dim)
    distance = np.einsum("nd,nd->n", x, np.linalg.solve(covariance, x.T).T)
    return -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])


def precision(problem: Problem) -> np.ndarray:
    """P, the precision of p(z|x), [L, L]."""
    return np.eye(problem.latent_dim) + problem.w.T @ problem.w / VARIANCE


def posterior_mean(problem: Problem, x: np.ndarray) -> np.ndarray:
    """m(x), the mean of p(z|x), [N, L]; x [N, D]."""
    return np.linalg.solve(precision(problem), problem.w.T @ x.T / VARIANCE).T


def gradient(problem: Problem, x: np.ndarray) -> np.ndarray:
    """Exact d log p(x) / dW, [N, D, L]: the mean of (x - W z) z^T / s^2 under p(z|x)."""
    mean, covariance = posterior_mean(problem, x), np.linalg.inv(precision(problem))
    outer = np.einsum("nd,nl->ndl", x - mean @ problem.w.T, mean)
    return (outer - problem.w @ covariance) / VARIANCE


def prior(problem: Problem, x: np.ndarray) -> Proposal:
    """p(z), for each of the examples x [N, D]."""
    return Proposal(np.zeros((len(x), problem.latent_dim)), np.eye(problem.latent_dim))


def fixed(problem: Problem, x: np.ndarray) -> Proposal:
    """The best diagonal Gaussian that is the same for all examples.

    It has the mean and the variances of z under p(z|x) and the law of the examples x, which
    minimizes the mean of KL(p(z|x) || q(z)) over them.
    """
    inverse = np.linalg.inv(precision(problem))
    projection = inverse @ problem.w.T / VARIANCE  # m(x) = projection @ x
    of_x = EXAMPLE_STD**2 * problem.w @ problem.w.T + VARIANCE * np.eye(problem.data_dim)
    mean = projection @ problem.w @ np.full(problem.latent_dim, EXAMPLE_MEAN)
    variance = np.diag(inverse + projection @ of_x @ projection.T)
    return Proposal(np.tile(mean, (len(x), 1)), np.diag(np.sqrt(variance)))


def exact_posterior(problem: Problem, x: np.ndarray) -> Proposal:
    """p(z|x), with all its covariances."""
    inverse = np.linalg.inv(precision(problem))
    return Proposal(posterior_mean(problem, x), np.linalg.cholesky(inverse))


def amortized(problem: Problem, x: np.ndarray) -> Proposal:
    """q(z|x), the diagonal Gaussian with the greatest ELBO: a trained inference network.

    Its mean is a linear function of x, m(x), and its variances are 1 / P_ll (Bishop 2006, 10.1.2).
    """
    scale = 1 / np.sqrt(np.diag(precision(problem)))
    return Proposal(posterior_mean(problem, x), np.diag(scale))


def kl(first: Proposal, second: Proposal) -> np.ndarray:
    """KL(first || second) [N], nats, of two Gaussians (13.23).

    One log-weight has the mean log p(x) - KL(q || p(z|x)) (13.3), the bias of one draw. About
    exp(KL(p(z|x) || q)) draws are needed for an estimate (Chatterjee and Diaconis 2018).
    """
    scale = second.cholesky
    ratio = np.linalg.solve(scale, first.cholesky)
    distance = np.linalg.solve(scale, (first.mean - second.mean).T)
    log_dets = 2 * np.sum(np.log(np.diag(scale)) - np.log(np.diag(first.cholesky)))
    squares = np.sum(ratio**2) + np.sum(distance**2, axis=0)
    return 0.5 * (squares - len(scale) + log_dets)
