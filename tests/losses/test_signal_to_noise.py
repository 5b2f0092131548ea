"""Signal-to-noise ratios of gradients, by the toy of Rainforth et al. 2018, section 4.

z ~ N(mu, I_20), x|z ~ N(z, I), q(z|x) = N(Ax + b, 2/3 I), near the optimum A = I/2, b = mu/2. For M
repeats of a bound of K draws, the ratio |mean| / standard deviation of a gradient estimate grows as
M^(1/2) K^(1/2) for the generation network and, with reparam, as M^(1/2) K^(-1/2) for the inference
network. With dreg it does not fall in K (Tucker et al. 2019).

The paper sums over 1,024 points at offsets of 0.01 from the optimum. The mean grows with the number
of points and the offset, the standard deviation with the square root of the number. Thus 8 points
at offsets of 0.08 have ratios near the paper's, at a fraction of the cost. mu is further from the
optimum, so that few draws already give its gradient the mean of log p(x)'s gradient. The slopes in
K are limits for many draws: 32 to 512 are enough here.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses

pytestmark = pytest.mark.slow

SIZE, POINTS, OFFSET, DRAWS = 20, 8, 0.08, 400
RNG = np.random.default_rng(0)
X = (RNG.normal(size=SIZE) + math.sqrt(2) * RNG.normal(size=(POINTS, SIZE))).astype(np.float32)
MU = np.mean(X, axis=0) + 0.5 * RNG.normal(size=SIZE)
A = (np.eye(SIZE) / 2 + 0.002 * RNG.normal(size=(SIZE, SIZE))).astype(np.float32)
PARAMS = {
    "mu": MU.astype(np.float32),
    "b": (MU / 2 + OFFSET * RNG.normal(size=SIZE)).astype(np.float32),
}
MANY_OUTER = [(1, 32), (4, 32), (16, 32)]  # (M, K)
MANY_INNER = [(1, 32), (1, 128), (1, 512)]


@functools.cache
def gradients(num_outer, num_samples):
    """Independent gradients by reparam and by dreg, each of mu and b, [DRAWS, 20], float64."""

    def loss(params, key, estimator):
        def log_likelihood(z):
            return dist.Normal(z, 1.0).to_event(1).log_prob(X)

        posterior = dist.Normal(X @ A.T + params["b"][None], math.sqrt(2 / 3)).to_event(1)
        arguments = posterior, dist.Normal(params["mu"], 1.0).to_event(1), log_likelihood
        numbers = {"num_outer": num_outer, "num_samples": num_samples}
        options = {"estimator": estimator, "vectorized": True}
        return jnp.sum(losses.miwae(key, *arguments, **numbers, **options)[0])

    @jax.jit
    def compute(key):
        def gradients_of_one_draw(keys):
            return [jax.grad(loss)(PARAMS, keys[i], n) for i, n in enumerate(("reparam", "dreg"))]

        keys = jax.random.split(key, (DRAWS, 2))
        return jax.lax.map(gradients_of_one_draw, keys, batch_size=25)

    results = compute(jax.random.fold_in(jax.random.key(num_outer), num_samples))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), results)


def log_ratio(signal_draws, noise_draws):
    """log(|mean| / standard deviation) over all parameters; draws [DRAWS, 20] each.

    Both estimators have the same mean for the inference network (`test_path_estimators.py`), so the
    mean may be taken from the one with less noise. The squared mean is corrected for its noise.
    """
    signal = np.sum(np.mean(signal_draws, axis=0) ** 2)
    signal -= np.sum(np.var(signal_draws, axis=0, ddof=1)) / len(signal_draws)
    return 0.5 * np.log(signal / np.sum(np.var(noise_draws, axis=0, ddof=1)))


def slope_interval(cases, counts, pick):
    """Least-squares slope of the log ratio over log counts, minus and plus four standard errors.

    The standard error is by bootstrap.

    Args:
      cases: arguments of `gradients`.
      counts: the number, of draws or repeats, that each case stands for.
      pick: (reparam's gradients, dreg's gradients) -> the arguments of `log_ratio`.
    """
    rng = np.random.default_rng(1)
    samples = [pick(*gradients(*case)) for case in cases]

    def slope(resample):
        values = []
        for signal_draws, noise_draws in samples:
            if resample:
                signal_rows, noise_rows = rng.integers(DRAWS, size=(2, DRAWS))
                if signal_draws is noise_draws:
                    noise_rows = signal_rows
                signal_draws, noise_draws = signal_draws[signal_rows], noise_draws[noise_rows]
            values.append(log_ratio(signal_draws, noise_draws))
        return np.polyfit(np.log(counts), values, 1)[0]

    error = np.std([slope(True) for _ in range(200)])
    assert error < 0.025  # Otherwise the interval tells nothing.
    return slope(False) - 4 * error, slope(False) + 4 * error


PICK = {
    "mu": lambda reparam, dreg: (reparam["mu"], reparam["mu"]),
    "b by reparam": lambda reparam, dreg: (dreg["b"], reparam["b"]),
    "b by dreg": lambda reparam, dreg: (dreg["b"], dreg["b"]),
}


@pytest.mark.parametrize("name", PICK)
def test_ratios_grow_with_the_root_of_the_outer_repeats(name):
    low, high = slope_interval(MANY_OUTER, [1, 4, 16], PICK[name])
    assert low <= 0.5 <= high


@pytest.mark.parametrize("name, slope", [("mu", 0.5), ("b by reparam", -0.5)])
def test_ratios_rise_for_the_generation_network_and_fall_for_inference(name, slope):
    low, high = slope_interval(MANY_INNER, [32, 128, 512], PICK[name])
    assert low <= slope <= high


def test_dregs_ratio_does_not_fall_with_draws():
    low, _ = slope_interval(MANY_INNER, [32, 128, 512], PICK["b by dreg"])
    assert low >= 0
