"""One optimizer step on one batch, and the record of the first step that is not finite."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from elbo_lab.data.dataset import Batch
from elbo_lab.methods.base import Loss
from elbo_lab.parts import number_of_parts

# Reductions of the batch's losses [B] to the scalar that a step differentiates.
BATCH_GRADIENTS: dict[str, Callable[[Array], Array]] = {"mean": jnp.mean, "sum": jnp.sum}

# Checked to be finite besides the loss's terms: the gradient at every step, parameters and stats at
# the end of a compiled call.
GRADIENT, PARAMETERS, STATS = "gradient", "parameters", "stats"


class Failure(NamedTuple):
    """The first step at which something was not finite."""

    step: Array  # [], int32; -1 if nothing has failed
    is_finite: dict[str, Array]  # name -> [], bool, at that step; all True if nothing has failed

    @classmethod
    def none(cls, terms: Iterable[str]) -> "Failure":
        """The record of a run in which nothing has failed."""
        names = (*terms, GRADIENT, PARAMETERS, STATS)
        return cls(jnp.int32(-1), {name: jnp.bool_(True) for name in names})

    def updated(self, step: Array, is_finite: dict[str, Array]) -> "Failure":
        """Returns the record after a check; the first failure stays.

        Args:
          step: [], int32, the step that was checked.
          is_finite: name -> [], bool, for the names that were checked at that step.
        """
        all_finite = jnp.all(jnp.stack(list(is_finite.values())))
        is_first = (self.step < 0) & ~all_finite
        return Failure(
            jnp.where(is_first, step, self.step),
            {
                name: jnp.where(is_first, is_finite.get(name, jnp.bool_(True)), before)
                for name, before in self.is_finite.items()
            },
        )


class TrainState(NamedTuple):
    """The state that a step changes. With R replicates all but `step` has a leading axis [R]."""

    step: Array | None  # [], int32, steps taken; None where it travels beside the state
    params: Any
    opt_state: Any
    failure: Failure
    stats: Any = ()  # state that no gradient moves
    average: Any = ()  # averaged weights, like params; () if the run has none


class Stepper(NamedTuple):
    """The functions that all steps of a run share."""

    loss: Callable[..., Loss]  # `Method.loss`
    optimizer: optax.GradientTransformationExtraArgs  # of `optimizer.make`
    # (hyper-parameters, step) -> hyper-parameters at that step: `hyper.courses`
    at_step: Callable[[dict[str, Array], Array], dict[str, Array]]
    reduce: Callable[[Array], Array]  # losses [B] -> []: one of BATCH_GRADIENTS
    ema: float = 0.0  # decay of the averaged weights; 0: there are none
    gradient_batch: int | None = None  # of `Method`
    update: Callable[..., tuple[Any, dict[str, Array]]] | None = None  # `Method.update`


def train_step(
    stepper: Stepper, hparams: dict[str, Array], state: TrainState, keys: Array, batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """Takes one optimizer step on one batch, for one replicate.

    Losses are reduced over the batch here and nowhere else. The first step whose loss terms or
    gradient are not finite is recorded with the names of those terms; `loop.many_steps` then undoes
    its whole call.

    Args:
      stepper: functions of the run.
      hparams: name -> [], hyper-parameters before their courses.
      state: with its step.
      keys: [2], typed PRNG keys, for the loss and for the update of stats.
      batch: of B examples, as the model sees them.

    Returns:
      The new state, and each term's mean over the batch, [].
    """
    hparams = stepper.at_step(hparams, state.step)
    loss_key, update_key = keys
    grads, terms, observed = _gradient(stepper, hparams, state, loss_key, batch)
    stats = state.stats
    if stepper.update is not None:
        stats, batch_terms = stepper.update(update_key, state.params, stats, observed)
        chex.assert_shape(list(batch_terms.values()), ())
        terms = terms | batch_terms
    # Optax multiplies floats with integer counts, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = stepper.optimizer.update(
            grads,
            state.opt_state,
            state.params,
            learning_rate=hparams["learning_rate"],
            step=state.step,
        )
    params = jax.tree.map(jnp.add, state.params, updates)
    average = state.average
    if stepper.ema:
        average = moved_average(average, params, stepper.ema, state.step)
    is_finite = {name: jnp.isfinite(term) for name, term in terms.items()}
    is_finite[GRADIENT] = _gradient_is_finite(grads)
    failure = state.failure.updated(state.step, is_finite)
    return TrainState(state.step + 1, params, opt_state, failure, stats, average), terms


def _gradient(
    stepper: Stepper, hparams: dict[str, Array], state: TrainState, key: Array, batch: Batch
) -> tuple[Any, dict[str, Array], Any]:
    """The gradient of the reduced loss, each term's mean over the batch, and `Loss.observed`."""

    def batch_loss(params: Any, key: Array, batch: Batch) -> tuple[Array, Any]:
        loss = stepper.loss(key, params, state.stats, batch, hparams)
        chex.assert_shape([loss.loss, *loss.terms.values()], batch.x.shape[:1])
        chex.assert_tree_shape_prefix(loss.observed, batch.x.shape[:1])
        return stepper.reduce(loss.loss), (jax.tree.map(jnp.mean, loss.terms), loss.observed)

    gradient = jax.grad(batch_loss, has_aux=True)
    size = batch.x.shape[0]
    number = number_of_parts(size, stepper.gradient_batch)
    if number == 1:
        grads, (terms, observed) = gradient(state.params, key, batch)
        return grads, terms, observed

    def part_of(array: Array) -> Array:
        """[parts, size / parts, ...]; each device of a sharded batch has some of every part."""
        return array.reshape(-1, number, *array.shape[1:]).swapaxes(0, 1)

    def whole_of(parts: Array) -> Array:
        """[size, ...], in the batch's order: the inverse of `part_of`."""
        return parts.swapaxes(0, 1).reshape(size, *parts.shape[2:])

    def added(total: Any, part: tuple[Array, Batch]) -> tuple[Any, Any]:
        grads, (terms, observed) = gradient(state.params, *part)
        return jax.tree.map(jnp.add, total, (grads, terms)), observed

    parts = jax.random.split(key, number), jax.tree.map(part_of, batch)
    first = jax.tree.map(lambda array: array[0], parts)
    shapes, (terms, _) = jax.eval_shape(gradient, state.params, *first)
    zeros = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), (shapes, terms))
    (grads, terms), observed = jax.lax.scan(added, zeros, parts)
    # The mean of the parts' means, or the sum of their sums.
    weight = stepper.reduce(jnp.ones(number)) / number
    grads = jax.tree.map(lambda grad: weight * grad, grads)
    terms = jax.tree.map(lambda term: term / number, terms)
    return grads, terms, jax.tree.map(whole_of, observed)


def moved_average(average: Any, params: Any, decay: float, step: Array) -> Any:
    """The average of the weights after a step, corrected for its start.

    With t = step + 1 it is sum_{s=1..t} d^(t-s) params_s (1 - d) / (1 - d^t), as Adam averages
    gradients (Kingma and Ba 2015, section 3): the weights of the steps sum to one.

    Args:
      average: after the step before; of the first step it has no effect.
      params: after this step.
      decay: d, in (0, 1).
      step: [], int32, steps taken before this one.
    """
    exponent = (step + 1).astype(jnp.float32) * math.log(decay)
    # expm1 keeps the digits of 1 - d^t where d^t is near 1.
    weight = (1 - decay) / -jnp.expm1(exponent)
    return jax.tree.map(lambda a, p: a + weight * (p - a), average, params)


def failed_terms(is_finite: dict[str, Any]) -> list[str]:
    """Names the entries of a `Failure.is_finite` that are False: first terms of the loss, sorted,
    then gradient, parameters and stats.
    """
    after_terms = (GRADIENT, PARAMETERS, STATS)
    names = [*sorted(set(is_finite) - set(after_terms)), *after_terms]
    return [name for name in names if not is_finite[name]]


def all_finite(tree: Any) -> Array:
    """[], True if every number of a tree is finite; True for an empty tree."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.bool_(True)


def _gradient_is_finite(grads: Any) -> Array:
    """[], True if a gradient's vectors and scalars are finite; if it has none, its other arrays.

    A layer's bias gradient sums the same backpropagated errors that its weight gradient multiplies
    with the layer's inputs, so errors that are not finite show in the bias. Checking the matrices
    too would make a small step a tenth slower. A value that is not finite in a matrix alone makes
    the next step's loss not finite, or is found in the parameters at the end of the compiled call.
    """
    leaves = jax.tree.leaves(grads)
    if not leaves:
        return jnp.bool_(True)  # as of EM, whose state lies in the stats
    vectors = [leaf for leaf in leaves if leaf.ndim <= 1]
    # Not isfinite(sum): XLA fuses that sum with the bias gradients' own sums over rows, and then
    # reads every layer's output once more.
    return jnp.all(jnp.isfinite(jnp.concatenate([leaf.ravel() for leaf in vectors or leaves])))
