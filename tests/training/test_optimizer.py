"""Adam against its formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.training import optimizer

STEPS = 30


def directions(config: Config, gradients: np.ndarray) -> np.ndarray:
    """The library's updates for a sequence of gradients, both [STEPS, P]."""
    tx = optimizer.make(config)
    params = {"w": jnp.zeros(gradients.shape[1:])}
    state, update, steps = tx.init(params), jax.jit(tx.update), []
    for gradient in gradients:
        updates, state = update({"w": jnp.asarray(gradient, jnp.float32)}, state, params)
        steps.append(np.asarray(updates["w"]))
    return np.stack(steps)


def adam(gradients: np.ndarray, b1: float, b2: float, eps: float, hat: bool, nu: float):
    """Kingma and Ba (2015): algorithm 1, or the form at the end of its section 2."""
    m, nu, steps = np.zeros(gradients.shape[1:]), np.full(gradients.shape[1:], nu), []
    for t, g in enumerate(np.asarray(gradients, np.float64), 1):
        m, nu = b1 * m + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
        if hat:
            steps.append(np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(nu) + eps))
        else:
            steps.append(m / (1 - b1**t) / (np.sqrt(nu / (1 - b2**t)) + eps))
    return np.stack(steps)


@pytest.mark.parametrize("hat", [False, True])
@pytest.mark.parametrize("nu", [0.0, 1.0])
@pytest.mark.parametrize("b1", [0.9, 0.99])
def test_every_form_of_adam(hat, nu, b1):
    gradients = np.random.default_rng(0).normal(0, 1e-3, (STEPS, 5))
    config = configs.replace(
        Config(), adam_b1=b1, adam_eps=1e-4, adam_eps_hat=hat, adam_nu_start=nu
    )
    got = directions(config, gradients)
    # 1 - b2^t in float32 is known to 1e-7 / 1e-3 at the first step.
    np.testing.assert_allclose(got, adam(gradients, b1, 0.999, 1e-4, hat, nu), rtol=5e-4)


def test_the_forms_differ():
    gradients = np.random.default_rng(0).normal(0, 1e-3, (STEPS, 5))
    plain, hat = (directions(configs.replace(Config(), adam_eps_hat=h), gradients) for h in (0, 1))
    assert np.abs(plain / hat - 1).max() > 0.5


def test_gradients_are_clipped_before_adam():
    config = configs.replace(Config(), clip_norm=1.0)
    gradients = np.array([[30.0, 40.0]])
    np.testing.assert_allclose(
        directions(config, gradients), adam(gradients / 50, 0.9, 0.999, 1e-4, False, 0.0), rtol=5e-4
    )
