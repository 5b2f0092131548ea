"""Laws of x and z whose mutual information is known, in NumPy float64, for the study information.

Two laws in the plane have the same marginals N(0, 1) and the same covariance, the identity:

    independent   z ~ N(0, 1)
    crossed       z = s r x + sqrt(1 - r^2) e,  s = -1 or 1 with equal probability, e ~ N(0, 1)

Correlated Gaussians have d independent pairs of one correlation r:

    x ~ N(0, I_d),  z|x ~ N(r x, (1 - r^2) I_d),  I(x; z) = -d/2 log(1 - r^2)

Barber and Agakov's bound of these takes a q(z|x) that is not the true one, N(a x, v I_d) with
a = 0.8 r and the best v for it, (1 - r^2) + (r - a)^2: H(z) + E log q(z|x) = -d/2 log v.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# The correlation of x and z on each arm of the crossed law; a / r of the bound's q(z|x).
CROSSED, SHARE = 0.98, 0.8
_LOG_2PI = math.log(2 * math.pi)


class Law(NamedTuple):
    """A law of x and z, [N, d] each."""

    name: str
    exact: float  # I(x; z), nats
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]  # N -> x, z
    log_q: Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, z -> log q(z_i|x_j), [N, N]


def planar() -> tuple[Law, Law]:
    """The two laws of equal covariance."""
    return gaussian(0.0, 1)._replace(name="independent"), _crossed()


def gaussian(information: float, dim: int) -> Law:
    """Correlated Gaussians with this I(x; z) in nats, dim = d."""
    r, variance = correlation(information, dim)

    def draw(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(number, dim))
        return x, r * x + math.sqrt(variance) * rng.normal(size=(number, dim))

    def log_q(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        squares = np.sum(z**2, axis=1)[:, None] + np.sum((r * x) ** 2, axis=1) - 2 * r * z @ x.T
        return -0.5 * (squares / variance + dim * (_LOG_2PI + math.log(variance)))

    return Law("correlated Gaussians", information, draw, log_q)


def correlation(information: float, dim: int) -> tuple[float, float]:
    """r and 1 - r^2 of correlated Gaussians with this I(x; z) in nats."""
    variance = math.exp(-2 * information / dim)
    return math.sqrt(1 - variance), variance


def critic(information: float, dim: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(x, z) -> r x_j . z_i / (1 - r^2), [N, N]: scores that lack the part of log q(z|x) in |x|^2.

    InfoNCE with these scores is a lower bound that lies below the one with log q(z|x).
    """
    r, variance = correlation(information, dim)
    return lambda x, z: r * z @ x.T / variance


def barber_agakov(information: float, dim: int, x: np.ndarray, z: np.ndarray) -> float:
    """H(z) + mean of log q(z_i|x_i), of N draws, for the q(z|x) that is not the true one."""
    r, _ = correlation(information, dim)
    v = _bound_variance(information, dim)
    squares = np.sum((z - SHARE * r * x) ** 2, axis=1)
    log_q = -0.5 * (squares / v + dim * (_LOG_2PI + math.log(v)))
    return 0.5 * dim * (_LOG_2PI + 1) + float(np.mean(log_q))


def exact_barber_agakov(information: float, dim: int) -> float:
    """The bound's expectation, -d/2 log v."""
    return -0.5 * dim * math.log(_bound_variance(information, dim))


def _bound_variance(information: float, dim: int) -> float:
    r, variance = correlation(information, dim)
    return variance + ((1 - SHARE) * r) ** 2


def _crossed() -> Law:
    variance = 1 - CROSSED**2

    def draw(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(number, 1))
        sign = rng.choice([-1.0, 1.0], size=(number, 1))
        noise = math.sqrt(variance) * rng.normal(size=(number, 1))
        return x, sign * CROSSED * x + noise

    def log_q(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        arms = [-0.5 * (z - sign * CROSSED * x.T) ** 2 / variance for sign in (-1, 1)]
        return np.logaddexp(*arms) - math.log(2) - 0.5 * (_LOG_2PI + math.log(variance))

    # H(z) - H(z|x), by the trapezoidal rule over x and z: both integrands vanish at the ends.
    x, z = np.linspace(-9, 9, 1201)[:, None], np.linspace(-10, 10, 1601)[:, None]
    log_density = log_q(x, z)  # [1601, 1201]
    entropy = -np.sum(np.exp(log_density) * log_density, axis=0) * (z[1, 0] - z[0, 0])
    weights = np.exp(-0.5 * x[:, 0] ** 2 - 0.5 * _LOG_2PI) * (x[1, 0] - x[0, 0])
    exact = 0.5 * (_LOG_2PI + 1) - float(weights @ entropy)
    return Law("crossed", exact, draw, log_q)
