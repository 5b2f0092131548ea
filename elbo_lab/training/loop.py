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
from elbo_lab.data.dataset import Batch
from elbo_lab.devices import sharding
from elbo_lab.keys import INITIALIZATION, PERMUTATIONS, STEPS, keys_of_seeds, stream_key
from elbo_lab.methods.base import Method
from elbo_lab.training import hyper, optimizer
from elbo_lab.training.step import (
    BATCH_GRADIENTS,
    PARAMETERS,
    STATS,
    Failure,
    Stepper,
    TrainState,
    all_finite,
    train_step,
)

# Draws that one compiled call works through where log_every is not given: about a second on a CPU.
DRAWS_PER_CALL = 50_000

# Examples that are binarized together, from one step or several: their random bits fit the cache.
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
    wanted = DRAWS_PER_CALL // (config.batch_size * (config.k or 1) * config.m)
    wanted = min(max(wanted, 10), epoch, total)
    divisors = [d for d in range(max(wanted // 2, 1), min(2 * wanted, epoch) + 1) if total % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / wanted)), default=wanted)


class Own(NamedTuple):
    """What each replicate has of its own; with R replicates every array has a leading axis [R]."""

    state: TrainState  # without its step, which all replicates share
    key: Array  # the base key
    hparams: dict[str, Array]
    orders: Array | None = None  # [2, N]: `passes`
    batches: Batch | None = None  # stored examples [T, B, ...], where they are streamed


class Shared(NamedTuple):
    """What all replicates share."""

    step: Array  # [], steps taken before
    data: Batch | None = None  # stored training examples [N, ...], where they are on the device


class Loop(NamedTuple):
    """The compiled functions of a run."""

    init: Callable[..., TrainState]  # (base keys, first batch, mean [D] or None) -> state
    orders: Callable[..., Array]  # (base keys, epoch) -> [2, N] or [R, 2, N], see `chosen`
    # (state, own, data, num_steps) -> (state, terms): many steps, of own.orders over the data, or
    # of own.batches where data is None
    run: Callable[..., Any]
    mesh: jax.sharding.Mesh | None = None  # None: one device


class Program(NamedTuple):
    """What is compiled into the steps of a run."""

    config: Config
    kind: str  # of the examples, `Spec.kind`
    stepper: Stepper
    pin: Callable[..., Any]  # says which axis of examples is the batch, `sharding.pin`


def make_loop(
    config: Config,
    method: Method,
    num_train: int,
    kind: str = "image",
    shard_batch: bool | None = None,
) -> Loop:
    """Builds the functions that `fit` calls, mapped over replicates, sharded and jitted.

    Args:
      config: the run's.
      method: starts params and stats, and gives the loss.
      num_train: N, training examples.
      kind: of the examples, `Spec.kind`.
      shard_batch: see `sharding.make_mesh`, of all devices.
    """
    stepper = Stepper(
        method.loss,
        optimizer.make(config),
        hyper.courses(config, total_steps(config, num_train)),
        BATCH_GRADIENTS[config.batch_gradient],
    )
    mesh = sharding.make_mesh(config.replicates, config.batch_size, shard_batch)
    program = Program(config, kind, stepper, sharding.pin(mesh))
    replicated = functools.partial(sharding.over_replicates, config.replicates, mesh=mesh)
    own_spec, shared_spec = sharding.own_spec(config.replicates), jax.P()

    def init_one(base_key: Array, start: tuple[Batch, Array | None]) -> TrainState:
        params, stats = method.init(stream_key(base_key, INITIALIZATION), *start)
        opt_state = stepper.optimizer.init(params)
        return TrainState(None, params, opt_state, Failure.none(method.terms), stats)

    @jax.jit
    def init_all(base_keys: Array, start: tuple[Batch, Array | None]) -> TrainState:
        return replicated(init_one)(base_keys, start)._replace(step=jnp.int32(0))

    @functools.partial(jax.jit, donate_argnums=0, static_argnames="num_steps")
    def run_all(state: TrainState, own: Own, data: Batch | None, num_steps: int):
        def run(own: Own, shared: Shared) -> tuple[TrainState, dict[str, Array]]:
            return many_steps(program, own, shared, num_steps)

        own = own._replace(state=state._replace(step=None))
        end, terms = replicated(run)(own, Shared(state.step, data))
        return end._replace(step=state.step + num_steps), terms

    orders_all = jax.jit(replicated(functools.partial(passes, config, num_train)))

    def init(base_keys: Array, batch: Batch, mean: Array | None = None) -> TrainState:
        start = batch, None if mean is None else jnp.asarray(mean, jnp.float32)
        return init_all(
            sharding.place(base_keys, mesh, own_spec), sharding.place(start, mesh, shared_spec)
        )

    def orders(base_keys: Array, epoch: int) -> Array:
        return orders_all(sharding.place(base_keys, mesh, own_spec), epoch)

    def run(state: TrainState, own: Own, data: Batch | None, num_steps: int):
        batches = own.batches  # They are where they should be: sent there by `streaming`.
        own = sharding.place(own._replace(batches=None), mesh, own_spec)
        state = sharding.place(state, mesh, own_spec)
        return run_all(state, own._replace(batches=batches), data, num_steps)

    return Loop(init, orders, run, mesh)


def passes(config: Config, num_train: int, base_key: Array, epoch: Array) -> Array:
    """The examples' order in a pass and in the next one, [2, N]."""

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


def many_steps(
    program: Program, own: Own, shared: Shared, num_steps: int
) -> tuple[TrainState, dict[str, Array]]:
    """T steps of one replicate from `shared.step` on, in one scan.

    Returns:
      The new state (without its step), and the means of the terms over the steps. A replicate that
      fails in this call keeps the params, optimizer state and stats that it had before, and the
      record of the failure; its terms are NaN from then on.
    """
    config, pin = program.config, program.pin
    steps = shared.step + jnp.arange(num_steps, dtype=jnp.int32)
    keys = jax.vmap(lambda s: jax.random.split(stream_key(own.key, STEPS, s)))(steps)
    if own.batches is None:
        num_train = shared.data.x.shape[0]
        rows = pin(chosen(config, own.orders, num_train, shared.step, steps), 1)
        pick = lambda row: jax.tree.map(lambda array: array[row], shared.data)  # noqa: E731
    else:
        rows, pick = pin(own.batches, 1), lambda batch: batch
    mode = binarization.of_kind(config.binarization, program.kind)
    visits = _visits(mode, keys[:, 0], rows, pick)

    def body(state: TrainState, inputs: tuple[Any, Array | None, Array]):
        row, visit, key = inputs
        batch = pick(row)
        x = batch.x if visit is None else visit
        batch = batch._replace(x=binarization.as_model_sees(x, program.kind))
        return train_step(program.stepper, own.hparams, state, key, pin(batch))

    start = own.state._replace(step=shared.step)
    end, terms = jax.lax.scan(body, start, (rows, pin(visits, 1), keys[:, 1]))
    is_finite = {PARAMETERS: all_finite(end.params), STATS: all_finite(end.stats)}
    failure = end.failure.updated(steps[-1], is_finite)
    succeeded = failure.step < 0

    def kept(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda n, o: jnp.where(succeeded, n, o), new, old)

    state = TrainState(
        None,
        kept(end.params, start.params),
        kept(end.opt_state, start.opt_state),
        failure,
        kept(end.stats, start.stats),
    )
    return state, {n: jnp.where(succeeded, jnp.mean(t), jnp.nan) for n, t in terms.items()}


def _visits(mode: str, keys: Array, rows: Any, pick: Callable[[Any], Batch]) -> Array | None:
    """[T, B, D] binary images of all steps, uint8; None where examples are taken as they lie.

    They are drawn in blocks of steps: random bits for one small batch at a time, as for its key,
    take a small step a tenth of its time.
    """
    if mode != "dynamic":
        return None
    batch_size = jax.tree.leaves(rows)[0].shape[1]
    return jax.lax.map(
        lambda step: binarization.visited(step[0], pick(step[1]).x, "dynamic"),
        (keys, rows),
        batch_size=max(1, VISIT_ROWS // batch_size),
    )


def fit(
    config: Config,
    loop: Loop,
    data: Batch | streaming.Examples,
    state: TrainState,
    base_keys: Array,
    hparams: dict[str, Array] | None = None,
) -> Iterator[Record]:
    """Trains from `state` to the run's last step, yielding after every compiled call.

    The state is donated to the next call: what is to be kept of it must be copied or saved before
    the iterator goes on. Call boundaries are counted from step 0, wherever training starts.

    Args:
      config: the run's.
      loop: from `make_loop`.
      data: stored training examples [N, ...] on the device (`binarization.stored`), or examples
        that stay where they are and are streamed to the device in the same order.
      state: from `loop.init` or a checkpoint.
      base_keys: `base_keys` of the replicas.
      hparams: `hyper.hyperparameters` of the replicas; the config's own if not given.
    """
    streamed = isinstance(data, streaming.Examples)
    num_train = len(data) if streamed else data.x.shape[0]
    total, per_epoch = total_steps(config, num_train), steps_per_epoch(config, num_train)
    call = steps_per_call(config, num_train)
    if hparams is None:
        hparams = hyper.hyperparameters(replicas(config))
    step = int(state.step)
    calls = _Calls(step, total, call)
    own = Own(None, base_keys, hparams)
    if streamed:
        batches = iter(_streamed(config, loop.mesh, data, base_keys, calls))
        data = None
    else:
        data = sharding.place(data, loop.mesh, jax.P())
    epoch = -1
    for step, end in calls:
        if data is None:
            own = own._replace(batches=next(batches))
        elif step // per_epoch != epoch:
            epoch = step // per_epoch
            own = own._replace(orders=loop.orders(base_keys, epoch))
        state, terms = loop.run(state, own, data, end - step)
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
    examples: streaming.Examples,
    keys: Array,
    calls: Sequence[tuple[int, int]],
) -> Iterator[Batch]:
    """The batches of each call, [T, B, ...] or [R, T, B, ...], in the order of passes in memory."""
    num_train = len(examples)
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
    return streaming.batches(examples, calls, indices, where)
