"""The only training loop: `fit` yields after every compiled call of many steps.

Randomness is stateless: each key is fold_in(fold_in(base_key, STREAM), index), so a run that was
stopped and resumed computes the same bits as one that was not. Many steps run inside one jitted
`lax.scan` with a donated state; images lie on the device; the host sees one transfer a call.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from elbo_lab import objective as objectives
from elbo_lab import optimizer
from elbo_lab.config import Config
from elbo_lab.data import binarization
from elbo_lab.models.base import Model

# One constant per use of randomness, so that no two uses share a key.
STEPS, PERMUTATIONS, INITIALIZATION, EVALUATION, FIGURES, FIXED_BINARIZATION = range(6)
ACTIVE_UNITS = 6
# Binarization of a data set by a fixed key does not depend on the run's seed: runs compare on the
# same test images.
FIXED_BINARIZATION_SEED = 0
TRAIN_SPLIT, TEST_SPLIT = range(2)

# What a step differentiates, of the batch's losses [B].
BATCH_GRADIENTS: dict[str, Callable[[Array], Array]] = {"mean": jnp.mean, "sum": jnp.sum}

# Draws that one compiled call works through where log_every is not given: about a second on a CPU.
DRAWS_PER_CALL = 50_000

# Images that are binarized together, from one step or several: their random bits fit the cache.
VISIT_ROWS = 320


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


class Record(NamedTuple):
    """What `fit` yields: the state after a compiled call, and means over its steps and batches."""

    state: TrainState
    step: int
    metrics: dict[str, np.ndarray]  # [] or [R] each; nats per image
    failed_at: np.ndarray  # [] or [R], int32, -1 where all is well


def stream_key(base_key: Array, stream: int, index: Array | int = 0) -> Array:
    """The key of one use (a stream) at one index (a step, an epoch, an image)."""
    return jax.random.fold_in(jax.random.fold_in(base_key, stream), index)


def replicas(config: Config) -> tuple[Config, ...]:
    """The runs of one seed each, seed .. seed + R - 1, that a config stands for."""
    return tuple(
        dataclasses.replace(config, seed=config.seed + r, replicates=1)
        for r in range(config.replicates)
    )


def base_keys(runs: Sequence[Config]) -> Array:
    """The base key of one run, or [R] of them."""
    if len(runs) == 1:
        return jax.random.key(runs[0].seed)
    return jax.vmap(jax.random.key)(jnp.asarray([run.seed for run in runs]))


def steps_per_epoch(config: Config, num_train: int) -> int:
    """Full batches in a pass; the remainder of each (newly permuted) pass is left out."""
    return num_train // config.batch_size


def total_steps(config: Config, num_train: int) -> int:
    """Steps of the whole run."""
    return config.epochs * steps_per_epoch(config, num_train)


def steps_per_call(config: Config, num_train: int) -> int:
    """Steps in one compiled call, at most a pass: `log_every`, or a divisor of the run's length
    (so that all calls are alike and compile once) near DRAWS_PER_CALL draws.
    """
    total, epoch = total_steps(config, num_train), steps_per_epoch(config, num_train)
    if config.log_every is not None:
        return min(config.log_every, epoch, total)
    wanted = DRAWS_PER_CALL // (config.batch_size * config.k * config.m)
    wanted = min(max(wanted, 10), epoch, total)
    divisors = [d for d in range(max(wanted // 2, 1), min(2 * wanted, epoch) + 1) if total % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / wanted)), default=wanted)


def train_step(
    loss_fn: objectives.LossFn,
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
    gradient are not finite is recorded with those terms; `make_loop` undoes what follows from it.

    Returns:
      The new state, and the means over the batch of the loss's terms.
    """

    hparams = at_step(hparams, state.step)

    def batch_loss(params: Any) -> tuple[Array, dict[str, Array]]:
        loss, terms = loss_fn(key, params, x, hparams)
        return reduce(loss), jax.tree.map(jnp.mean, terms)

    (_, terms), grads = jax.value_and_grad(batch_loss, has_aux=True)(state.params)
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


class Loop(NamedTuple):
    """The compiled functions of a run."""

    init: Callable[..., TrainState]  # (base_keys, mean image [D]) -> state
    orders: Callable[..., Array]  # (base_keys, epoch) -> [2, N] or [R, 2, N], see `many_steps`
    run: Callable[..., Any]  # (state, base_keys, orders, hparams, images, num_steps), many steps


def make_loop(
    config: Config, model: Model, num_train: int, loss_fn: objectives.LossFn | None = None
) -> Loop:
    """Builds the functions that `fit` calls, mapped over replicates and jitted.

    Args:
      config: the run's.
      model: its `init` starts the parameters.
      num_train: N, training images.
      loss_fn: what is minimized; the configured objective where not given.
    """
    loss_fn = objectives.objective_loss(config, model, num_train) if loss_fn is None else loss_fn
    tx = optimizer.make(config)
    at_step = objectives.courses(config, total_steps(config, num_train))
    take_step = functools.partial(
        train_step, loss_fn, tx, at_step, BATCH_GRADIENTS[config.batch_gradient]
    )
    replicated = functools.partial(over_replicates, config.replicates)

    def init(base_key: Array, mean_image: Array):
        params = model.init(stream_key(base_key, INITIALIZATION), mean_image)
        return params, tx.init(params), Failure(jnp.int32(-1), jnp.int32(0))

    def orders(base_key: Array, epoch: Array) -> Array:
        def order(epoch: Array) -> Array:
            if not config.shuffle:
                return jnp.arange(num_train)
            return jax.random.permutation(stream_key(base_key, PERMUTATIONS, epoch), num_train)

        return jax.lax.map(order, epoch + jnp.arange(2))

    @functools.partial(jax.jit, donate_argnums=0, static_argnames="num_steps")
    def run_all(state: TrainState, keys, orders, hparams, images, num_steps: int):
        run = functools.partial(many_steps, config, take_step, num_steps)
        carried, terms = replicated(run, mapped=4)(
            tuple(state[1:]), keys, orders, hparams, state.step, images
        )
        return TrainState(state.step + num_steps, *carried), terms

    @jax.jit
    def init_all(keys, mean_image):
        return TrainState(jnp.int32(0), *replicated(init, mapped=1)(keys, mean_image))

    return Loop(init_all, jax.jit(replicated(orders, mapped=1)), run_all)


def many_steps(
    config: Config,
    take_step: Callable[..., tuple[TrainState, dict[str, Array]]],
    num_steps: int,
    carried: tuple[Any, Any, Failure],
    base_key: Array,
    orders: Array,
    hparams: dict[str, Array],
    step: Array,
    images: Array,
) -> tuple[tuple[Any, Any, Failure], dict[str, Array]]:
    """`num_steps` steps of one replicate from `step` on, in one scan.

    Args:
      carried: params, optimizer state and failure (the state but for its step).
      orders: [2, N], the images' order in the pass of the first step, and in the next pass.
      hparams: scalars by name, `objective.hyperparameters`.
      images: stored training images [N, D].

    Returns:
      The new `carried`, and the means of the terms over the steps. A replicate that fails in this
      call keeps the params and optimizer state that it had before, and the record of the failure;
      its terms are NaN from then on.
    """
    per_epoch = steps_per_epoch(config, images.shape[0])
    steps = step + jnp.arange(num_steps)
    # Row s of [T, B]: the images of step s, from this pass's order or the next one's.
    within = (steps % per_epoch)[:, None] * config.batch_size + jnp.arange(config.batch_size)
    same_pass = (steps // per_epoch == step // per_epoch)[:, None]
    indices = jnp.where(same_pass, orders[0][within], orders[1][within])
    keys = jax.vmap(lambda s: jax.random.split(stream_key(base_key, STEPS, s)))(steps)
    visits = _visits(config.binarization, keys[:, 0], images, indices)

    def body(state: TrainState, inputs: tuple[Array, Array]):
        rows, key = inputs
        x = binarization.grey_levels(images[rows] if visits is None else rows)
        return take_step(hparams, state, key, x)

    inputs = (indices if visits is None else visits, keys[:, 1])
    end, terms = jax.lax.scan(body, TrainState(step, *carried), inputs)
    sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(end.params)]))
    missed = (end.failure.step < 0) & ~sound
    failure = Failure(
        jnp.where(missed, steps[-1], end.failure.step),
        jnp.where(missed, 1 << (len(terms) + 1), end.failure.terms),
    )
    well = failure.step < 0
    kept = jax.tree.map(
        lambda new, old: jnp.where(well, new, old), (end.params, end.opt_state), carried[:2]
    )
    return (*kept, failure), {n: jnp.where(well, jnp.mean(t), jnp.nan) for n, t in terms.items()}


def _visits(mode: str, keys: Array, images: Array, indices: Array) -> Array | None:
    """[T, B, D] binary images of all steps, uint8; None where images are taken as they lie.

    They are drawn in blocks of steps: random bits for one small batch at a time, as for its key,
    take a small step a tenth of its time.
    """
    if mode != "dynamic":
        return None
    return jax.lax.map(
        lambda step: binarization.visited(step[0], images[step[1]], "dynamic"),
        (keys, indices),
        batch_size=max(1, VISIT_ROWS // indices.shape[1]),
    )


def over_replicates(replicates: int, function: Callable, mapped: int) -> Callable:
    """Maps a function over the leading axis [R] of its first `mapped` arguments.

    On a GPU or TPU by `vmap`. On CPUs one after the other (small matrices in a batch are slower
    there than in turn), sharded over as many CPU devices as divide R. R = 1 changes nothing.
    """
    if replicates == 1:
        return function
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return lambda *args: jax.vmap(
            function, in_axes=(0,) * mapped + (None,) * (len(args) - mapped)
        )(*args)

    def one_after_the_other(*args):
        return jax.lax.map(lambda own: function(*own, *args[mapped:]), args[:mapped])

    count = math.gcd(replicates, len(devices))
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((count,), ("replicates",), axis_types=auto, devices=devices[:count])
    own, shared = jax.P("replicates"), jax.P()

    def sharded(*args):
        specs = (own,) * mapped + (shared,) * (len(args) - mapped)
        return jax.shard_map(
            one_after_the_other, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False
        )(*args)

    return sharded


def fit(
    config: Config,
    loop: Loop,
    images: Array,
    state: TrainState,
    keys: Array,
    hparams: dict[str, Array] | None = None,
) -> Iterator[Record]:
    """Trains from `state` to the run's last step, yielding after every compiled call.

    The state is donated to the next call: what is to be kept of it must be copied or saved before
    the iterator goes on. Call boundaries are counted from step 0, wherever training starts.

    Args:
      config: the run's.
      loop: from `make_loop`.
      images: stored training images [N, D] on the device (`binarization.stored`).
      state: from `loop.init` or a checkpoint.
      keys: `base_keys` of the replicas.
      hparams: `objective.hyperparameters` of the replicas; the config's own if not given.
    """
    num_train = images.shape[0]
    total, per_epoch = total_steps(config, num_train), steps_per_epoch(config, num_train)
    call = steps_per_call(config, num_train)
    if hparams is None:
        hparams = objectives.hyperparameters(replicas(config))
    step = int(state.step)
    epoch, orders = -1, None
    while step < total:
        num_steps = min(call - step % call, total - step)
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            orders = loop.orders(keys, epoch)
        state, terms = loop.run(state, keys, orders, hparams, images, num_steps)
        step += num_steps
        terms, failed_at = jax.device_get((terms, state.failure.step))
        yield Record(state, step, terms, failed_at)
