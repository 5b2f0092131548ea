"""The optimizers, and the parameters that a trained run is evaluated at.

    updates, state = optimizer.update(grads, state, params, learning_rate=rate, step=step)
    params = params + updates

The learning rate is an argument, so that replicates may differ in it; `step` counts from 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from elbo_lab.configs import Config
from elbo_lab.models.base import Params
from elbo_lab.optimizer_options import (
    AdamaxOptions,
    AdamOptions,
    MuonOptions,
    ScheduleFreeOptions,
    SGDOptions,
    SoapOptions,
)
from elbo_lab.training import soap
from elbo_lab.training.step import TrainState

Optimizer = optax.GradientTransformationExtraArgs
# The two parts of a latent-variable model's parameters, for `--encoder_steps`.
_INFERENCE, _GENERATION = "inference", "generation"
# Parameters of the inference network's part: a learned baseline serves its gradient alone, and a
# GAN's discriminator, which has its layers, stands in its place.
_OF_INFERENCE = ("encoder", "baseline", "critic")


def make(config: Config) -> Optimizer:
    """The configured optimizer, after clipping if configured.

    Its `update` takes learning_rate [] and step [] by name, and returns what is added to the
    parameters: the learning rate and the sign are in it.

    With encoder_steps = N > 1 the encoder, or a GAN's discriminator, moves at every step. The
    decoder and the prior, with their part of the optimizer's state, change at the steps N - 1,
    2 N - 1, ... alone, and not by a bit at the others (He et al. 2019).

    Args:
      config: reads optimizer, optimizer_options, encoder_steps, clip_norm.
    """
    optimizer = _RULES[config.optimizer](config.optimizer_options)
    if config.encoder_steps > 1:
        parts = {_INFERENCE: optimizer, _GENERATION: _at_every(config.encoder_steps, optimizer)}
        optimizer = optax.partition(parts, _networks)
    if config.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def evaluation_params(config: Config, state: TrainState) -> Any:
    """The parameters at which a run is evaluated, drawn from, loaded and encoded by.

    They are the averaged weights if the run has them (`--ema`, or schedule_free's x), else the
    parameters that are trained. With R replicates they have a leading axis [R], as the state has.
    """
    if config.ema:
        return state.average
    if config.optimizer != "schedule_free":
        return state.params
    # A chain has a state for each of its parts, and clipping is the first.
    own = state.opt_state if config.clip_norm is None else state.opt_state[1]
    return (_averages if config.replicates > 1 else _average)(own, state.params)


# x = (y - (1 - b1) z) / b1, of one run and of replicates, each with its own b1 [R].
_average = jax.jit(optax.contrib.schedule_free_eval_params)
_averages = jax.jit(jax.vmap(optax.contrib.schedule_free_eval_params))


def _networks(params: Params) -> dict[str, str]:
    """The part, inference or generation, to which each network of the parameters belongs."""
    return {name: _INFERENCE if name in _OF_INFERENCE else _GENERATION for name in params}


def _at_every(number: int, optimizer: Optimizer) -> Optimizer:
    """The optimizer at every `number`-th step, the last of each `number`; at the others updates are
    0 and its state stays. The step that it gets counts its own ones.
    """

    def update(grads, state, params=None, *, learning_rate: Array, step: Array):
        def own_step():
            own = step // number
            return optimizer.update(grads, state, params, learning_rate=learning_rate, step=own)

        def no_step():
            return jax.tree.map(jnp.zeros_like, grads), state

        return jax.lax.cond(step % number == number - 1, own_step, no_step)

    return Optimizer(optimizer.init, update)


def _descending(direction: optax.GradientTransformation) -> Optimizer:
    """The optimizer whose updates are minus the learning rate times the direction's."""
    direction = optax.with_extra_args_support(direction)

    def update(grads, state, params=None, *, learning_rate: Array, step: Array):
        directions, state = direction.update(grads, state, params, step=step)
        return jax.tree.map(lambda d: -(learning_rate * d), directions), state

    return Optimizer(direction.init, update)


def _adam(options: AdamOptions) -> Optimizer:
    """Adam with the choices that published protocols make.

    m <- b1 m + (1 - b1) g and nu <- b2 nu + (1 - b2) g^2, from m = 0 and nu = adam_nu_start. With
    the biases corrected, m^ = m / (1 - b1^t) and nu^ = nu / (1 - b2^t), the direction is
    m^ / (sqrt(nu^) + eps), or, with adam_eps_hat, m^ sqrt(1 - b2^t) / (sqrt(nu) + eps) (Kingma and
    Ba 2015, algorithm 1, and the end of its section 2).
    """
    adam = optax.scale_by_adam(options.adam_b1, options.adam_b2, options.adam_eps)
    if options.adam_eps_hat:
        adam = optax.GradientTransformation(adam.init, _eps_before_correction(options))
    if options.adam_nu_start:
        adam = optax.GradientTransformation(_nu_from(options.adam_nu_start, adam), adam.update)
    return _descending(adam)


def _eps_before_correction(options: AdamOptions) -> optax.TransformUpdateFn:
    def update(grads, state, params=None):
        # Dividing both sqrt(nu) and eps by sqrt(1 - b2^t) gives Optax's form, with this eps.
        correction = jnp.sqrt(1 - options.adam_b2 ** (state.count + 1.0))
        eps = options.adam_eps / correction
        adam = optax.scale_by_adam(options.adam_b1, options.adam_b2, eps)
        return adam.update(grads, state, params)

    return update


def _nu_from(start: float, adam: optax.GradientTransformation) -> optax.TransformInitFn:
    def init(params):
        state = adam.init(params)
        return state._replace(nu=jax.tree.map(lambda p: jnp.full_like(p, start), params))

    return init


def _adamax(options: AdamaxOptions) -> Optimizer:
    """m^ / u with u <- max(b2 u, |g| + eps) (Kingma and Ba 2015, algorithm 2)."""
    return _descending(optax.scale_by_adamax(options.adam_b1, options.adam_b2, options.adam_eps))


def _muon(options: MuonOptions) -> Optimizer:
    """Muon for parameters of two or more axes, Adam for the others; Nesterov's momentum in both."""
    muon = optax.contrib.muon(
        learning_rate=-1.0,  # `_descending` applies the rate and the sign.
        ns_steps=options.muon_steps,
        beta=options.muon_beta,
        eps=options.adam_eps,
        adam_b1=options.adam_b1,
        adam_b2=options.adam_b2,
        muon_weight_dimension_numbers=_matrices,
        consistent_rms=options.muon_rms,
    )
    return _descending(muon)


def _matrices(params: Any) -> Any:
    """For each parameter how Muon reads it as a matrix: all axes but the last are rows; None for
    vectors and scalars.
    """

    def axes(leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(axes, params)


def _soap(options: SoapOptions) -> Optimizer:
    """Adam in the eigenbasis of Shampoo's factors; see `soap.scale_by_soap`."""
    return _descending(
        soap.scale_by_soap(
            b1=options.adam_b1,
            b2=options.adam_b2,
            eps=options.adam_eps,
            decay=options.soap_decay,
            frequency=options.soap_frequency,
            max_dim=options.soap_max_dim,
            factor_every=options.soap_factor_every,
        )
    )


def _schedule_free(options: ScheduleFreeOptions) -> Optimizer:
    """Schedule-free Adam (Defazio et al. 2024, equations 2 to 4 and algorithm 1).

    The params of the state are y = (1 - b1) z + b1 x, where gradients are taken. z descends by
    RMSprop's direction with a corrected bias, and x averages z with weights max(rates)^power.
    """

    def with_rate(learning_rate: Any) -> Optimizer:
        base = optax.chain(
            optax.scale_by_rms(
                options.adam_b2, options.adam_eps, eps_in_sqrt=False, bias_correction=True
            ),
            optax.scale_by_learning_rate(learning_rate),
        )
        b1, power = options.schedule_free_b1, options.schedule_free_power
        return optax.contrib.schedule_free(base, learning_rate, b1, power)

    def update(grads, state, params, *, learning_rate: Array, step: Array):
        del step  # The state counts its own.
        return with_rate(learning_rate).update(grads, state, params)

    return Optimizer(with_rate(0.0).init, update)


def _sgd(options: SGDOptions) -> Optimizer:
    """v <- g + momentum v, and the direction is v, or g + momentum v with Nesterov's momentum."""
    if not options.momentum:
        return _descending(optax.identity())
    return _descending(optax.trace(options.momentum, options.nesterov))


_RULES: dict[str, Callable[[Any], Optimizer]] = {
    "adam": _adam,
    "adamax": _adamax,
    "muon": _muon,
    "soap": _soap,
    "schedule_free": _schedule_free,
    "sgd": _sgd,
}
