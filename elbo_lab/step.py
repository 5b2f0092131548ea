"""One optimizer step on one batch, and the record of the first that is not finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from elbo_lab.objective import LossFn

# What a step differentiates, of the batch's losses [B].
BATCH_GRADIENTS: dict[str, Callable[[Array], Array]] = {"mean": jnp.mean, "sum": jnp.sum}


class Failure(NamedTuple):
    """The first step at which something was not finite."""

    step: Array  # [], int32, -1 while all is well
    terms: Array  # [], int32, one bit for each: see `failed_terms`


class TrainState(NamedTuple):
    """What a step changes. With R replicates all but `step` has a leading axis [R]."""

    step: Array  # [], int32, steps taken
    params: Any
    opt_state: Any
    failure: Failure


def train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    at_step: Callable[[dict[str, Array], Array], dict[str, Array]],
    reduce: Callable[[Array], Array],
    hparams: dict[str, Array],
    state: TrainState,
    key: Array,
    x: Array,
) -> tuple[TrainState, dict[str, Array]]:
    """One optimizer step on one batch x [B, D] (float32 in [0, 1]), for one replicate.

    Takes the only mean (or sum: `reduce`) over the batch. The first step whose loss terms or
    gradient are not finite is recorded with those terms; `train.many_steps` undoes what follows.

    Returns:
      The new state, and the means over the batch of the loss's terms.
    """

    hparams = at_step(hparams, state.step)

    def batch_loss(params: Any) -> tuple[Array, dict[str, Array]]:
        loss, terms = loss_fn(key, params, x, hparams)
        chex.assert_shape([loss, *terms.values()], x.shape[:1])
        return reduce(loss), jax.tree.map(jnp.mean, terms)

    (_, terms), grads = jax.value_and_grad(batch_loss, has_aux=True)(state.params)
    # Optax multiplies floats with integer counts, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
    rate = hparams["learning_rate"]
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)

    finite = [jnp.isfinite(terms[name]) for name in sorted(terms)] + [_finite(grads)]
    bits = sum(jnp.where(well, 0, 1 << i) for i, well in enumerate(finite))
    first = (state.failure.step < 0) & (bits > 0)
    failure = Failure(
        jnp.where(first, state.step, state.failure.step),
        jnp.where(first, bits, state.failure.terms),
    )
    return TrainState(state.step + 1, params, opt_state, failure), terms


def failed_terms(names: list[str], bits: int) -> list[str]:
    """Which of a loss's terms, "gradient" and "parameters" a `Failure.terms` stands for."""
    checked = [*sorted(names), "gradient", "parameters"]
    return [name for i, name in enumerate(checked) if bits >> i & 1]


def _finite(grads: Any) -> Array:
    """Whether a gradient is finite, judged by its vectors where it has any.

    A bias's gradient is the sum over rows of what its layer's weight gradient is a product with, so
    a layer's shows in its bias; looking at the matrices as well would cost a small step a tenth of
    its time. What only they show makes the next step's loss not finite, or is found in
    the parameters at the end of the compiled call.
    """
    leaves = jax.tree.leaves(grads)
    vectors = [leaf for leaf in leaves if leaf.ndim <= 1]
    # Not by their sum, which the compiler joins with the sums over rows that made them, and so goes
    # through every layer's output once more.
    return jnp.all(jnp.isfinite(jnp.concatenate([leaf.ravel() for leaf in vectors or leaves])))
