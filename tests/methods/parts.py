"""A training step in parts of the batch beside that of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elbo_lab.data import Batch
from elbo_lab.methods import Method
from elbo_lab.training import step


def assert_step_by_parts_is_that_of_the_batch(
    method: Method, params, stats, batch: Batch, hparams: dict
) -> dict[str, np.ndarray]:
    """Compares gradient, stats and terms of a step in parts of two examples with the whole batch's.

    Returns:
      The terms of the whole batch.
    """
    minus_gradient = optax.with_extra_args_support(optax.scale(-1.0))
    none = step.Failure.none(method.terms)
    state = step.TrainState(jnp.int32(0), params, minus_gradient.init(params), none, stats)

    def steps(keys):
        def one(gradient_batch):
            stepper = step.Stepper(
                method.loss,
                minus_gradient,
                lambda h, _: h,
                jnp.mean,
                gradient_batch=gradient_batch,
                update=method.update,
            )
            options = hparams | {"learning_rate": jnp.float32(1.0)}
            after, terms = step.train_step(stepper, options, state, keys, batch)
            gradient = jax.tree.map(jnp.subtract, params, after.params)
            return {"gradient": gradient, "stats": after.stats, "terms": terms}

        return one(2), one(None)

    with jax.debug_key_reuse(False):  # Both steps take the same keys.
        by_parts, whole = jax.jit(steps)(jax.random.split(jax.random.key(7)))
    assert set(whole["terms"]) == set(method.terms)
    for part, value in zip(jax.tree.leaves(by_parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(part, value, rtol=2e-5, atol=1e-5)
    return whole["terms"]
