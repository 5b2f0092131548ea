"""log p(x) = ELBO(q) + KL(q || p(z|x)) for a latent variable of K values (textbook 13.3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as laws
from scipy.special import logsumexp, rel_entr

from elbo_lab.evaluation.finite_latents import decomposition
from elbo_lab.models import components

WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[-1.0, 0.5], [1.0, 2.0], [0.0, -2.0]])
X = np.random.default_rng(0).normal(size=(20, 2)) * 2
# log p(x, z) of a mixture with unit covariances, [20, 3], float64
LOG_JOINT = np.log(WEIGHTS) + laws.norm.logpdf(X[:, None] - MEANS).sum(-1)
LOG_PX = logsumexp(LOG_JOINT, axis=1)
POSTERIOR = np.exp(LOG_JOINT - LOG_PX[:, None])
# q that is p(z|x), the prior, uniform, one value alone, and another one for each x
QS = {
    "posterior": POSTERIOR,
    "prior": WEIGHTS,
    "uniform": np.full(3, 1 / 3),
    "point": np.array([0.0, 1.0, 0.0]),
    "any": np.random.default_rng(1).dirichlet(np.ones(3), 20),
}


@pytest.mark.parametrize("name", QS)
def test_the_three_parts_are_those_of_numpy_and_add_up(name):
    q = QS[name]
    arrays = (jnp.log(WEIGHTS), MEANS, jnp.ones((3, 2)))
    law = components.law(*(jnp.asarray(a, jnp.float32) for a in arrays), "diagonal", 0.0)
    log_joint = law.component_log_probs(jnp.asarray(X, jnp.float32))
    log_px, elbo, kl = decomposition(log_joint, jnp.log(jnp.asarray(q, jnp.float32)))
    expected = rel_entr(np.broadcast_to(q, (20, 3)), POSTERIOR).sum(1)
    np.testing.assert_allclose(kl, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(log_px, LOG_PX, rtol=2e-5)
    np.testing.assert_allclose(elbo, LOG_PX - expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(log_px - elbo, kl, atol=2e-5)
    assert np.all(np.asarray(kl) > -2e-6)
    if name == "posterior":
        np.testing.assert_allclose(elbo, log_px, rtol=2e-6)


def test_the_gradient_of_a_q_without_mass_on_a_value_is_finite():
    def total(logits):
        return jnp.sum(decomposition(jnp.asarray(LOG_JOINT, jnp.float32), logits).elbo)

    gradient = jax.grad(total)(jnp.log(jnp.array([0.5, 0.5, 0.0])))
    assert np.all(np.isfinite(gradient))
