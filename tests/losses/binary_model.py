"""A model of one or two binary latents, in JAX and in NumPy, and grids of the noise of their draws.

q(z|x) is a product over bits, sizes (1,) or (2,), or a chain of two bits, sizes (1, 1). log p(x|z)
is a polynomial of z, which is also defined, and not linear, between 0 and 1. The NumPy functions
take real and complex numbers.
"""

import itertools
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab.distributions import BernoulliVector, Chain
from elbo_lab.losses import binary_draws
from elbo_lab.losses.weights import Prior
from tests.losses import numpy_bounds

CHAIN = (1, 1)
PARAMS = {
    # Logits: of each bit; in a chain of the first bit, and of the second one, q_1 + q_2 z_1.
    "q": np.array([0.6, -0.9, 1.3]),
    "prior": np.array([-0.4, 0.7]),
    # c_0 + c_1 z_1^2 + c_2 z_2 + c_3 z_1 z_2
    "likelihood": np.array([-2.0, 1.4, -0.8, 1.9]),
}


def arguments(params, sizes):
    """Posterior, prior and log_likelihood of one example, batch shape ()."""
    q, c, number = params["q"], params["likelihood"], sum(sizes)

    def second(z):
        return BernoulliVector(
            jnp.broadcast_to(q[1:2], z.shape) + jnp.broadcast_to(q[2:3], z.shape) * z
        )

    def bits(z):
        return jnp.concatenate(z, axis=-1) if sizes == CHAIN else z

    def log_likelihood(z):
        z = bits(z)
        value = c[0] + c[1] * z[..., 0] ** 2
        if number == 2:
            value = value + c[2] * z[..., 1] + c[3] * z[..., 0] * z[..., 1]
        return value

    prior = BernoulliVector(params["prior"][:number])
    if sizes == CHAIN:
        posterior = Chain(BernoulliVector(q[:1]), (second,))
        independent = prior
        prior = Prior(lambda z: independent.log_prob(bits(z)))
    else:
        posterior = BernoulliVector(q[:number])
    return posterior, prior, log_likelihood


# The same in NumPy.


def log_bernoulli(logits, z):
    return z * logits - np.log(1 + np.exp(logits))


def densities(params, sizes, z):
    """log p(x|z), log p(z) and log q(z|x) of z [..., L]."""
    q, prior, c = params["q"], params["prior"], params["likelihood"]
    first, last = z[..., 0], z[..., -1]
    log_px_z = c[0] + c[1] * first**2
    log_pz, log_q = log_bernoulli(prior[0], first), log_bernoulli(q[0], first)
    if sum(sizes) == 2:
        log_px_z = log_px_z + c[2] * last + c[3] * first * last
        log_pz = log_pz + log_bernoulli(prior[1], last)
        log_q = log_q + log_bernoulli(q[1] + (q[2] * first if sizes == CHAIN else 0), last)
    return log_px_z, log_pz, log_q


def expectation(params, sizes, value, number):
    """E_q[value] over all tuples of a number of draws."""
    z = np.array(list(itertools.product((0.0, 1.0), repeat=sum(sizes))))
    parts = densities(params, sizes, z)
    tuples = np.array(list(itertools.product(range(len(z)), repeat=number))).T  # [K, T]
    probability = np.exp(np.sum(parts[2][tuples], axis=0))
    return np.sum(probability * value(*(part[tuples] for part in parts)))


def complex_step(function, params):
    """Gradient of a real, analytic function of the parameters: Im f(x + ih) / h."""

    def along(name, i):
        moved = {key: leaf.astype(complex) for key, leaf in params.items()}
        moved[name][i] += 1j * numpy_bounds.STEP
        return function(moved).imag / numpy_bounds.STEP

    return {
        name: np.array([along(name, i) for i in range(len(leaf))]) for name, leaf in params.items()
    }


# Grids of noise.


def _rule(ends, nodes):
    """Points and weights of Gauss-Legendre rules between neighbouring ends."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    pairs = [
        (left + (right - left) * (points + 1) / 2, (right - left) * weights / 2)
        for left, right in itertools.pairwise(ends)
    ]
    return [np.concatenate(parts) for parts in zip(*pairs, strict=True)]


def noise_grid(sizes, number, nodes=1):
    """Noise u of K draws and its weights, for exact means over u ~ U(0, 1).

    Draws and partners, 1[u < p] and 1[1 - u < p], are constant between the ends of intervals. One
    node per interval gives exact means of what is linear in u there, two of cubic polynomials.

    Returns:
      ([T, K, L_i] of each layer, weights [T]).
    """
    q = PARAMS["q"]
    logits = [[q[0]], [q[1], q[1] + q[2]] if sizes == CHAIN else [q[1]]][: sum(sizes)]
    rules = []
    for of_unit in logits:
        p = 1 / (1 + np.exp(-np.array(of_unit)))
        rules.append(_rule(np.unique(np.concatenate([[0.0, 1.0], p, 1 - p])), nodes))
    points = itertools.product(*[rule[0] for rule in rules] * number)
    weights = itertools.product(*[rule[1] for rule in rules] * number)
    u = np.array(list(points)).reshape(-1, number, sum(sizes))
    layers = tuple(np.split(u, np.cumsum(sizes)[:-1], axis=-1))
    return layers, np.prod(np.array(list(weights)), axis=1)


def given_noise(u):
    """A context in which estimators of binary draws use the noise u, [K, L_i] of each layer."""
    return unittest.mock.patch.object(binary_draws, "uniform_noise", lambda key, problem: u)


def each(objective, sizes, number, grid, estimator, **options):
    """(params) -> the loss at every point of a grid of noise, [T]."""

    def losses_of(params):
        def loss(u):
            with given_noise(u):
                return objective(
                    jax.random.key(0),
                    *arguments(params, sizes),
                    num_samples=number,
                    estimator=estimator,
                    **options,
                )[0]

        return jax.vmap(loss)(grid[0])

    return losses_of


def mean_and_gradient(objective, sizes, number, grid, estimator, **options):
    """The mean loss over a grid of noise, and the mean of its gradient."""
    losses_of = each(objective, sizes, number, grid, estimator, **options)
    mean = jax.value_and_grad(lambda params: jnp.dot(grid[1], losses_of(params)))
    return jax.jit(mean)(PARAMS)
