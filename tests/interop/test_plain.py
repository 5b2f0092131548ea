"""A user's own class with `sample` and `log_prob`, independent of any library."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses import guests

pytestmark = pytest.mark.usefixtures("fast_compilation")


class Plain:
    """A normal whose second dimension is shifted by the first; no pytree, no declared shapes."""

    def __init__(self, mean, scale, matrix):
        self.mean, self.scale = mean, scale
        self.tril = jnp.eye(guests.L).at[1, 0].set(matrix[0, 1])

    def sample(self, key, sample_shape=()):
        noise = jax.random.normal(key, (*sample_shape, *self.mean.shape))
        return self.mean + (self.scale * noise) @ self.tril.T

    def log_prob(self, z):
        noise = (z - self.mean) @ jnp.linalg.inv(self.tril).T / self.scale
        return jnp.sum(-0.5 * (noise**2 + np.log(2 * np.pi)) - jnp.log(self.scale), axis=-1)


@pytest.mark.slow
def test_freezing():
    guests.check_freezing(Plain)


@pytest.mark.slow
def test_estimators_follow_the_exact_gradient():
    guests.check_gradients(Plain)


@pytest.mark.parametrize("estimator", ["stl", pytest.param("dreg", marks=pytest.mark.slow)])
def test_reaches_log_px(estimator):
    guests.check_flow(Plain, None, estimator)
