"""What the loss of a latent-variable model passes to its networks."""

import jax
import numpy as np
import pytest

from elbo_lab import configs, models
from elbo_lab.data import Batch, Spec
from elbo_lab.methods import variational
from elbo_lab.training import hyper
from tests.test_keys import key_data, with_splits

SPEC = Spec("image", (2, 2), 2)


@pytest.mark.parametrize("objective", ["elbo", "sumo", "wake_sleep", "info_vae"])
def test_the_key_of_dropout_is_none_that_the_objective_draws_with(objective):
    """An objective draws z with its key or with those that it is split into. With the same key for
    dropout, z would say which pixels the decoder misses.
    """
    config = configs.resolved(
        configs.make(objective=objective, hidden_dims=(3,), latent_dims=(2,), batch_size=2)
    )
    model = models.make(config, SPEC)
    seen = []

    def likelihood(params, z, given):
        seen.append(given.key)
        return model.likelihood(params, z, given)

    loss = variational.objective_loss(config, model._replace(likelihood=likelihood), 10)
    batch = Batch(np.float32([[0, 1, 1, 0], [1, 0, 1, 1]]))
    params = model.init(jax.random.key(0), batch)
    key = jax.random.key(1)
    loss(key, params, (), batch, hyper.hyperparameters([config]))
    assert seen and not {key_data(k) for k in seen} & with_splits(key)
