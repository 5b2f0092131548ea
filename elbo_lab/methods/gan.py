"""Generative adversarial network over a latent-variable model's networks (Goodfellow et al. 2014).

The generator G maps z ~ p(z) to the mean of p(x|z). The discriminator D has the layers of the
inference network and one output. Each has a loss of its own, in which the other is held fixed; both
take a step at the same time, unless --encoder_steps lets the discriminator take several.

    nonsaturating   D: softplus(-D(x)) + softplus(D(G(z)))      G: softplus(-D(G(z)))
    wasserstein     D: D(G(z)) - D(x) + lambda (|dD(v)/dv| - 1)^2,  v = e x + (1 - e) G(z)
                    G: -D(G(z))

with z ~ p(z) and e uniform in [0, 1], one for each example (Gulrajani et al. 2017 for the second).
There is no density of x, no bound and no q(z|x).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions.means import closed_form_mean
from elbo_lab.losses.posteriors import sample_from
from elbo_lab.methods import variational
from elbo_lab.methods.base import Loss, Method
from elbo_lab.models.base import NOTHING_GIVEN, Model
from elbo_lab.objective_options import NONSATURATING

TERMS = ("discriminator", "generator")
# Examples that are measured at once.
MEASURE_BATCH = 500


def make(model: Model, spec: Spec, gan_loss: str = NONSATURATING, is_plane: bool = False) -> Method:
    """The method of a GAN.

    Params are {"decoder", "prior", "critic"}: the generator's and the discriminator's. Terms are
    the two losses. Quantities: "critic_real", D(x) of each example, and "critic_generated", D(G(z))
    of a draw for each; no quantity says how good the samples are, and sweeps compare nothing.

    Args:
      model: its prior has no parameters; it has a `critic`.
      spec: of the data.
      gan_loss: one of `objective_options.GAN_LOSSES`. The traced setting "gradient_penalty" is
        lambda.
      is_plane: True if z is [*batch, 2].

    Raises:
      ValueError: the model has no critic; (when traced) p(x|z) has no mean in closed form.
    """
    if model.critic is None:
        raise ValueError("objective=gan needs a model with a discriminator: mlp or conv.")

    def init(key: Array, batch: Batch, mean: Array | None = None) -> tuple[Any, tuple]:
        params = model.init(key, batch, mean)
        # A folded key: the generator starts as the generation network of a VAE with this key.
        critic = model.critic.init(jax.random.fold_in(key, 0), jnp.zeros(spec.dim))["params"]
        return {"decoder": params["decoder"], "prior": params["prior"], "critic": critic}, ()

    def generated(key: Array, params: Any, number: int) -> Array:
        z = sample_from(model.prior(params, NOTHING_GIVEN), key, (number,))
        x = closed_form_mean(model.likelihood(params, z, NOTHING_GIVEN))
        if x is None:
            raise ValueError("objective=gan needs a p(x|z) with a closed-form mean.")
        return x

    def critic(params: Any, x: Array) -> Array:
        return model.critic.apply({"params": params["critic"]}, x)[..., 0]

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict[str, Array]) -> Loss:
        z_key, e_key = jax.random.split(key)
        x, number = batch.x, len(batch.x)
        fake = generated(z_key, params, number)
        held = jax.lax.stop_gradient(fake)
        # D(x) and D(G(z)) as functions of the discriminator, then D(G(z)) as one of the generator.
        d_real, d_fake = critic(params, x), critic(params, held)
        g_fake = critic(params | {"critic": jax.lax.stop_gradient(params["critic"])}, fake)
        if gan_loss == NONSATURATING:
            discriminator_loss = jax.nn.softplus(-d_real) + jax.nn.softplus(d_fake)
            generator_loss = jax.nn.softplus(-g_fake)
        else:
            e = jax.random.uniform(e_key, (number, 1))
            slope = jax.grad(lambda v: jnp.sum(critic(params, v)))(e * x + (1 - e) * held)
            penalty = hparams["gradient_penalty"] * _penalty(slope)
            discriminator_loss = d_fake - d_real + penalty
            generator_loss = -g_fake
        terms = {"discriminator": discriminator_loss, "generator": generator_loss}
        return Loss(discriminator_loss + generator_loss, terms)

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        fake = generated(key, params, len(batch.x))
        return {"critic_real": critic(params, batch.x), "critic_generated": critic(params, fake)}

    pictures = variational.pictures(model, is_plane)
    del pictures["reconstructions"]
    return Method(
        init=init,
        loss=loss,
        terms=TERMS,
        tabled_terms=len(TERMS),
        measure=measure,
        measure_batch=MEASURE_BATCH,
        pictures=pictures,
        headline=None,
        sample=functools.partial(variational.sample_compiled, model),
        decode=lambda params, stats, z, given: model.likelihood(params, z, given),
        remedy="a lower --learning_rate, --adam_b1=0.5 or --gan_loss=wasserstein may help",
    )


def _penalty(slope: Array) -> Array:
    """(|s| - 1)^2 of slopes [B, D]; its derivative is finite at s = 0 too."""
    square = jnp.sum(slope**2, axis=-1)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    return jnp.where(square > 0, (norm - 1) ** 2, 1)
