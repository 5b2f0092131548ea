"""Adam with the choices that published protocols make."""

import jax
import jax.numpy as jnp
import optax

from elbo_lab.configs import Config


def make(config: Config) -> optax.GradientTransformation:
    """Returns Adam, after clipping if configured; `step.train_step` applies the learning rate.

    m <- b1 m + (1 - b1) g and nu <- b2 nu + (1 - b2) g^2, from m = 0 and nu = adam_nu_start. With
    the biases corrected, m^ = m / (1 - b1^t) and nu^ = nu / (1 - b2^t), the direction is
    m^ / (sqrt(nu^) + eps), or, with adam_eps_hat, m^ sqrt(1 - b2^t) / (sqrt(nu) + eps) (Kingma and
    Ba 2015, algorithm 1, and the end of its section 2).

    Args:
      config: reads adam_b1, adam_b2, adam_eps, adam_eps_hat, adam_nu_start, clip_norm.
    """
    adam = optax.scale_by_adam(config.adam_b1, config.adam_b2, config.adam_eps)
    if config.adam_eps_hat:
        adam = optax.GradientTransformation(adam.init, _eps_before_correction(config))
    if config.adam_nu_start:
        adam = optax.GradientTransformation(_nu_from(config.adam_nu_start, adam), adam.update)
    if config.clip_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)


def _eps_before_correction(config: Config) -> optax.TransformUpdateFn:
    def update(grads, state, params=None):
        # Dividing both sqrt(nu) and eps by sqrt(1 - b2^t) gives Optax's form, with this eps.
        correction = jnp.sqrt(1 - config.adam_b2 ** (state.count + 1.0))
        adam = optax.scale_by_adam(config.adam_b1, config.adam_b2, config.adam_eps / correction)
        return adam.update(grads, state, params)

    return update


def _nu_from(start: float, adam: optax.GradientTransformation) -> optax.TransformInitFn:
    def init(params):
        state = adam.init(params)
        return state._replace(nu=jax.tree.map(lambda p: jnp.full_like(p, start), params))

    return init
