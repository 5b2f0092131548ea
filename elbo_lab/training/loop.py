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
from jax import Array

from elbo_lab.configs import Config
from elbo_lab.data import binarization, streaming
from elbo_lab.devices import sharding
from elbo_lab.keys import INITIALIZATION, PERMUTATIONS, STEPS, keys_of_seeds, stream_key
from elbo_lab.methods import variational
from elbo_lab.models.base import Model
from elbo_lab.training import hyper, optimizer
from elbo_lab.training.step import BATCH_GRADIENTS, Failure, TrainState, train_step

# Draws that one compiled call works through where log_every is not given: about a second on a CPU.
DRAWS_PER_CALL = 50_000

# Images that are binarized together, from one step or several: their random bits fit the cache.
VISIT_ROWS = 320


class Record(NamedTuple):
    """What `fit` yields: the state after a compiled call, and means over its steps and batches."""

    state: TrainState
    step: int
    metrics: dict[str, np.ndarray]  # [] or [R] each; nats per image
    failed_at: np.ndarray  # [] or [R], int32, -1 where all is well


def replicas(config: Config) -> tuple[Config, ...]:
    """The runs of one seed each, seed .. seed + R - 1, that a config stands for."""
    return tuple(
        dataclasses.replace(config, seed=config.seed + r, replicates=1)
        for r in range(config.replicates)
    )


def base_keys(runs: Sequence[Config]) -> Array:
    """The base key of one run, or [R] of them."""
    return keys_of_seeds([run.seed for run in runs])


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


class Loop(NamedTuple):
    """The compiled functions of a run."""

    init: Callable[..., TrainState]  # (base_keys, mean image [D]) -> state
    orders: Callable[..., Array]  # (base_keys, epoch) -> [2, N] or [R, 2, N], see `chosen`
    run: Callable[..., Any]  # (state, base_keys, orders, hparams, images, num_steps), many steps
    # (state, base_keys, hparams, batches, num_steps), the same steps on batches [T, B, D] or
    # [R, T, B, D] of stored images
    run_batches: Callable[..., Any]
    mesh: jax.sharding.Mesh | None = None  # None: one device


def make_loop(
    config: Config,
    model: Model,
    num_train: int,
    loss_fn: variational.LossFn | None = None,
    shard_batch: bool | None = None,
) -> Loop:
    """Builds the functions that `fit` calls, mapped over replicates, sharded and jitted.

    Args:
      config: the run's.
      model: its `init` starts the parameters.
      num_train: N, training images.
      loss_fn: what is minimized; the configured objective where not given.
      shard_batch: see `sharding.make_mesh`, of all devices.
    """
    loss_fn = variational.objective_loss(config, model, num_train) if loss_fn is None else loss_fn
    tx = optimizer.make(config)
    at_step = hyper.courses(config, total_steps(config, num_train))
    take_step = functools.partial(
        train_step, loss_fn, tx, at_step, BATCH_GRADIENTS[config.batch_gradient]
    )
    mesh = sharding.make_mesh(config.replicates, config.batch_size, shard_batch)
    pin = sharding.pin(mesh)
    replicated = functools.partial(sharding.over_replicates, config.replicates, mesh=mesh)
    placing = functools.partial(sharding.placing, mesh=mesh, replicates=config.replicates)

    def init(base_key: Array, mean_image: Array):
        mean_image = mean_image.astype(jnp.float32)  # whatever JAX_ENABLE_X64 makes of it
        params = model.init(stream_key(base_key, INITIALIZATION), mean_image)
        return params, tx.init(params), Failure(jnp.int32(-1), jnp.int32(0))

    @functools.partial(jax.jit, donate_argnums=0, static_argnames="num_steps")
    def run_all(state: TrainState, keys, orders, hparams, images, num_steps: int):
        def run(carried, key, orders, hparams, step, images):
            steps = step + jnp.arange(num_steps, dtype=jnp.int32)
            indices = chosen(config, orders, images.shape[0], step, steps)
            pick = images.__getitem__
            return many_steps(config, take_step, pin, pick, carried, key, indices, hparams, step)

        carried, terms = replicated(run, mapped=4)(
            tuple(state[1:]), keys, orders, hparams, state.step, images
        )
        return TrainState(state.step + num_steps, *carried), terms

    @functools.partial(jax.jit, donate_argnums=0, static_argnames="num_steps")
    def run_batches(state: TrainState, keys, hparams, batches, num_steps: int):
        def run(carried, key, hparams, batches, step):
            pick = _as_it_is
            return many_steps(config, take_step, pin, pick, carried, key, batches, hparams, step)

        carried, terms = replicated(run, mapped=4)(
            tuple(state[1:]), keys, hparams, batches, state.step
        )
        return TrainState(state.step + num_steps, *carried), terms

    @jax.jit
    def init_all(keys, mean_image):
        return TrainState(jnp.int32(0), *replicated(init, mapped=1)(keys, mean_image))

    orders = functools.partial(passes, config, num_train)
    return Loop(
        init=placing(init_all, kinds="rs"),
        orders=placing(jax.jit(replicated(orders, mapped=1)), kinds="rs"),
        run=placing(run_all, kinds="rrrrs-"),
        run_batches=placing(run_batches, kinds="rrr--"),
        mesh=mesh,
    )


def passes(config: Config, num_train: int, base_key: Array, epoch: Array) -> Array:
    """The images' order in a pass and in the next one, [2, N]."""

    def order(epoch: Array) -> Array:
        if not config.shuffle:
            return jnp.arange(num_train)
        return jax.random.permutation(stream_key(base_key, PERMUTATIONS, epoch), num_train)

    return jax.lax.map(order, epoch + jnp.arange(2))


def chosen(config: Config, orders: Any, num_train: int, step: Any, steps: Any) -> Any:
    """Row s of [T, B]: the images of step s, from the first step's pass or the next one.

    Args:
      config: the run's.
      orders: [2, N], `passes` of the first step's.
      num_train: N.
      step: [], the first of steps.
      steps: [T], consecutive, within the two passes; JAX's or NumPy's arrays, as all of these.
    """
    xp = steps.__array_namespace__()
    per_epoch = steps_per_epoch(config, num_train)
    within = (steps % per_epoch)[:, None] * config.batch_size + xp.arange(config.batch_size)
    same_pass = (steps // per_epoch == step // per_epoch)[:, None]
    return xp.where(same_pass, orders[0][within], orders[1][within])


def _as_it_is(rows: Array) -> Array:
    return rows


def many_steps(
    config: Config,
    take_step: Callable[..., tuple[TrainState, dict[str, Array]]],
    pin: Callable[..., Array],
    pick: Callable[[Array], Array],
    carried: tuple[Any, Any, Failure],
    base_key: Array,
    batches: Array,
    hparams: dict[str, Array],
    step: Array,
) -> tuple[tuple[Any, Any, Failure], dict[str, Array]]:
    """T steps of one replicate from `step` on, in one scan.

    Args:
      config: the run's.
      take_step: one step, `train_step`.
      pin: says which axis of images is the batch, `sharding.pin`.
      pick: rows of `batches` -> stored images [..., D].
      carried: params, optimizer state and failure (the state but for its step).
      base_key: the replicate's.
      batches: what `pick` takes, one row [B, ...] a step.
      hparams: scalars by name, `objective.hyperparameters`.
      step: [], steps taken before.

    Returns:
      The new `carried`, and the means of the terms over the steps. A replicate that fails in this
      call keeps the params and optimizer state that it had before, and the record of the failure;
      its terms are NaN from then on.
    """
    steps = step + jnp.arange(batches.shape[0], dtype=jnp.int32)
    batches = pin(batches, 1)
    keys = jax.vmap(lambda s: jax.random.split(stream_key(base_key, STEPS, s)))(steps)
    visits = _visits(config.binarization, keys[:, 0], batches, pick)

    def body(state: TrainState, inputs: tuple[Array, Array]):
        rows, key = inputs
        x = binarization.grey_levels(pick(rows) if visits is None else rows)
        return take_step(hparams, state, key, pin(x))

    inputs = (batches if visits is None else pin(visits, 1), keys[:, 1])
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


def _visits(mode: str, keys: Array, batches: Array, pick: Callable[[Array], Array]) -> Array | None:
    """[T, B, D] binary images of all steps, uint8; None where images are taken as they lie.

    They are drawn in blocks of steps: random bits for one small batch at a time, as for its key,
    take a small step a tenth of its time.
    """
    if mode != "dynamic":
        return None
    return jax.lax.map(
        lambda step: binarization.visited(step[0], pick(step[1]), "dynamic"),
        (keys, batches),
        batch_size=max(1, VISIT_ROWS // batches.shape[1]),
    )


def fit(
    config: Config,
    loop: Loop,
    images: Array | streaming.Images,
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
      images: stored training images [N, D] on the device (`binarization.stored`), or images that
        stay where they are and are streamed to the device in the same order.
      state: from `loop.init` or a checkpoint.
      keys: `base_keys` of the replicas.
      hparams: `objective.hyperparameters` of the replicas; the config's own if not given.
    """
    num_train = len(images)
    total, per_epoch = total_steps(config, num_train), steps_per_epoch(config, num_train)
    call = steps_per_call(config, num_train)
    if hparams is None:
        hparams = hyper.hyperparameters(replicas(config))
    step = int(state.step)
    calls = _Calls(step, total, call)
    streamed = isinstance(images, streaming.Images)
    if streamed:
        batches = iter(_streamed(config, loop.mesh, images, keys, calls))
    elif loop.mesh is not None:
        images = sharding.place(images, loop.mesh, jax.P())
    epoch, orders = -1, None
    for step, end in calls:
        if streamed:
            state, terms = loop.run_batches(state, keys, hparams, next(batches), end - step)
        else:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                orders = loop.orders(keys, epoch)
            state, terms = loop.run(state, keys, orders, hparams, images, end - step)
        terms, failed_at = sharding.fetch((terms, state.failure.step))
        yield Record(state, end, terms, failed_at)


class _Calls(Sequence[tuple[int, int]]):
    """First and last step (exclusive) of every compiled call from a step on, of however many."""

    def __init__(self, step: int, total: int, call: int):
        self.step, self.total, self.call = step, total, call

    def __len__(self) -> int:
        return -(-self.total // self.call) - self.step // self.call if self.step < self.total else 0

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = (self.step // self.call + index) * self.call
        return max(start, self.step), min(start + self.call, self.total)


def _streamed(
    config: Config,
    mesh: jax.sharding.Mesh | None,
    images: streaming.Images,
    keys: Array,
    calls: Sequence[tuple[int, int]],
) -> Iterator[Array]:
    """The batches of each call, [T, B, D] or [R, T, B, D], in the order of the pass in memory."""
    num_train = len(images)
    per_epoch = steps_per_epoch(config, num_train)
    # On this process's device alone: each process reads all of the order.
    both = functools.partial(passes, config, num_train)
    both = jax.jit(both if config.replicates == 1 else jax.vmap(both, in_axes=(0, None)))
    orders = functools.lru_cache(maxsize=2)(lambda epoch: np.asarray(both(keys, epoch)))

    def indices(start: int, end: int) -> np.ndarray:
        """[T, B] or [R, T, B]."""
        found = orders(start // per_epoch)
        rows = [
            chosen(config, order, num_train, np.asarray(start), np.arange(start, end))
            for order in found.reshape(-1, 2, num_train)
        ]
        return np.stack(rows) if config.replicates > 1 else rows[0]

    where = None
    if mesh is not None:
        spec = sharding.chunk_spec(mesh, config.replicates)
        where = jax.sharding.NamedSharding(mesh, spec)
    return streaming.batches(images, calls, indices, where)
