"""Signal-to-noise ratios of gradients, by the toy of Rainforth et al. 2018, section 4.

z ~ N(mu, I_20), x|z ~ N(z, I), q(z|x) = N(Ax + b, 2/3 I), near the optimum A = I/2, b = mu/2. For M
repeats of a bound of K draws, the ratio |mean| / standard deviation of a gradient estimate goes as
M^(1/2) K^(1/2) for the generation network and, by reparam, as M^(1/2) K^(-1/2) for the inference
network; by dreg it does not fall in K (Tucker et al. 2019).

The paper takes the sum over 1,024 points at offsets of 0.01 from the optimum. Its mean grows with
the number of points and with the offset, its standard deviation with the square root of the
number: 8 points at offsets of 0.08 have ratios near the paper's, at a small part of the cost. mu is
further off, for the mean of its gradient to be that of log p(x) at few draws already. The slopes in
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
        posterior = dist.Normal(X @ A.T + params["b"][None], math.sqrt(2 / 3)).to_event(1)
        prior = dist.Normal(params["mu"], 1.0).to_event(1)
        return jnp.sum(
            losses.miwae(
                key,
                posterior,
                prior,
                lambda z: dist.Normal(z, 1.0).to_event(1).log_prob(X),
                num_outer=num_outer,
                num_samples=num_samples,
                estimator=estimator,
                vectorized=True,
            )[0]
        )

    @jax.jit
    def compute(key):
        def one(keys):
            return [jax.grad(loss)(PARAMS, keys[i], n) for i, n in enumerate(("reparam", "dreg"))]

        return jax.lax.map(one, jax.random.split(key, (DRAWS, 2)), batch_size=25)

    found = compute(jax.random.fold_in(jax.random.key(num_outer), num_samples))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)


def log_ratio(mean_of, noise_of):
    """log |mean| / standard deviation, over all parameters, of [draws, 20] each.

    Both estimators of the inference network have one mean (`test_path_estimators.py`): it is taken
    from the one that is sure of it. Its square is freed of the noise's own part.
    """
    signal = np.sum(np.mean(mean_of, axis=0) ** 2)
    signal -= np.sum(np.var(mean_of, axis=0, ddof=1)) / len(mean_of)
    return 0.5 * np.log(signal / np.sum(np.var(noise_of, axis=0, ddof=1)))


def slope_interval(cases, counts, pick):
    """Slope of the log ratio over log counts by least squares: the interval of four standard
    errors, by bootstrap.
    """
    rng = np.random.default_rng(1)
    samples = [pick(*gradients(*case)) for case in cases]

    def slope(resample):
        values = []
        for mean_of, noise_of in samples:
            rows = rng.integers(DRAWS, size=(2, DRAWS)) if resample else [slice(None)] * 2
            same = mean_of is noise_of
            values.append(log_ratio(mean_of[rows[0]], noise_of[rows[0 if same else 1]]))
        return np.polyfit(np.log(counts), values, 1)[0]

    error = np.std([slope(True) for _ in range(200)])
    assert error < 0.025  # The interval is worth something.
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
