"""One optimizer step on one batch, and the record of the first that is not finite."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from elbo_lab.data.dataset import Batch
from elbo_lab.methods.base import Loss

# What a step differentiates, of the batch's losses [B].
BATCH_GRADIENTS: dict[str, Callable[[Array], Array]] = {"mean": jnp.mean, "sum": jnp.sum}

# What is checked besides the terms of the loss: the gradient at every step, the others at the end
# of a compiled call.
GRADIENT, PARAMETERS, STATS = "gradient", "parameters", "stats"


class Failure(NamedTuple):
    """The first step at which something was not finite."""

    step: Array  # [], int32, -1 while all is well
    is_finite: dict[str, Array]  # name -> [], bool, at that step; all True while all is well

    @classmethod
    def none(cls, terms: Iterable[str]) -> "Failure":
        """The record of a run in which nothing has failed."""
        names = (*terms, GRADIENT, PARAMETERS, STATS)
        return cls(jnp.int32(-1), {name: jnp.bool_(True) for name in names})

    def updated(self, step: Array, is_finite: dict[str, Array]) -> "Failure":
        """The record after a step (or a call) at which some things were finite and others not."""
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
    """What a step changes. With R replicates all but `step` has a leading axis [R]."""

    step: Array | None  # [], int32, steps taken; None where it travels beside the state
    params: Any
    opt_state: Any
    failure: Failure
    stats: Any = ()  # state that no gradient moves


class Stepper(NamedTuple):
    """What every step of a run has in common."""

    loss: Callable[..., Loss]  # `Method.loss`
    optimizer: optax.GradientTransformation
    at_step: Callable[[dict[str, Array], Array], dict[str, Array]]  # `hyper.courses`
    reduce: Callable[[Array], Array]  # one of BATCH_GRADIENTS


def train_step(
    stepper: Stepper, hparams: dict[str, Array], state: TrainState, key: Array, batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """One optimizer step on one batch, for one replicate.

    Takes the only mean (or sum: `Stepper.reduce`) over the batch. The first step whose loss terms
    or gradient are not finite is recorded with those terms; `loop.many_steps` undoes what follows.

    Returns:
      The new state, and the means over the batch of the loss's terms.
    """
    hparams = stepper.at_step(hparams, state.step)

    def batch_loss(params: Any) -> tuple[Array, tuple[dict[str, Array], Any]]:
        loss = stepper.loss(key, params, state.stats, batch, hparams)
        chex.assert_shape([loss.loss, *loss.terms.values()], batch.x.shape[:1])
        return stepper.reduce(loss.loss), (jax.tree.map(jnp.mean, loss.terms), loss.stats)

    (_, (terms, stats)), grads = jax.value_and_grad(batch_loss, has_aux=True)(state.params)
    # Optax multiplies floats with integer counts, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = stepper.optimizer.update(grads, state.opt_state, state.params)
    rate = hparams["learning_rate"]
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    is_finite = {name: jnp.isfinite(term) for name, term in terms.items()}
    failure = state.failure.updated(state.step, is_finite | {GRADIENT: _finite(grads)})
    return TrainState(state.step + 1, params, opt_state, failure, stats), terms


def failed_terms(is_finite: dict[str, Any]) -> list[str]:
    """What was not finite by a `Failure.is_finite`: terms of the loss, then the others."""
    others = (GRADIENT, PARAMETERS, STATS)
    names = [*sorted(set(is_finite) - set(others)), *others]
    return [name for name in names if not is_finite[name]]


def all_finite(tree: Any) -> Array:
    """[], whether every number of a tree is finite; True of an empty tree."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.bool_(True)


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
