"""The only training loop: `fit` yields after every compiled call of many steps.

Randomness is stateless: each key is fold_in(fold_in(base_key, STREAM), index), so a run that was
stopped and resumed computes the same bits as one that was not. Many steps run inside one jitted
`lax.scan` with a donated state. Data lie on the device, or are streamed to it. Each call makes one
transfer to the host.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.configs import Config
from elbo_lab.data import binarization, streaming
from elbo_lab.data.dataset import Batch
from elbo_lab.devices import setup, sharding
from elbo_lab.keys import INITIALIZATION, PERMUTATIONS, STEPS, keys_of_seeds, stream_key
from elbo_lab.methods.base import Method
from elbo_lab.training import hyper, optimizer
from elbo_lab.training.lengths import Calls, steps_per_call, steps_per_epoch, total_steps
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

# Examples that are binarized together, from one step or several: their random bits fit the cache.
BINARIZED_TOGETHER = 320


class Record(NamedTuple):
    """The state after a compiled call of `fit`, and means over the call's steps and batches."""

    state: TrainState
    step: int  # steps taken
    metrics: dict[str, np.ndarray]  # term -> [] or [R]; nats per image
    failed_at: np.ndarray  # [] or [R], int32, the first step that failed; -1 if none has


def replicas(config: Config) -> tuple[Config, ...]:
    """The configurations of single seeds, seed .. seed + R - 1, of a config's R replicates."""
    return tuple(
        dataclasses.replace(config, seed=config.seed + r, replicates=1)
        for r in range(config.replicates)
    )


def base_keys(runs: Sequence[Config]) -> Array:
    """The base key of one run, or [R] of several."""
    return keys_of_seeds([run.seed for run in runs])


class PerReplicate(NamedTuple):
    """Inputs that differ between replicates; with R of them every array has a leading axis [R]."""

    state: TrainState  # without its step, which all replicates share
    key: Array  # the base key
    hparams: dict[str, Array]
    orders: Array | None = None  # [2, N], `pass_orders`; None if batches are streamed
    batches: Batch | None = None  # stored examples [T, B, ...] if they are streamed


class Shared(NamedTuple):
    """Inputs that all replicates share."""

    step: Array  # [], steps taken before
    data: Batch | None = None  # stored training examples [N, ...]; None if they are streamed


class Loop(NamedTuple):
    """The compiled functions of a run."""

    init: Callable[..., TrainState]  # (base keys, first batch, mean [D] or None) -> state
    shapes: Callable[..., TrainState]  # the same, to the shapes and types of the state's arrays
    orders: Callable[..., Array]  # (base keys, epoch) -> [2, N] or [R, 2, N], `pass_orders`
    # (state, PerReplicate, data, num_steps) -> (state, terms). Batches are taken from data by
    # PerReplicate.orders, or from PerReplicate.batches if data is None.
    run: Callable[..., Any]
    mesh: jax.sharding.Mesh | None = None  # None: one device


class Program(NamedTuple):
    """The settings and functions that are compiled into the steps of a run."""

    config: Config
    kind: str  # of the examples, `Spec.kind`
    stepper: Stepper
    pin: Callable[..., Any]  # `sharding.pin`: shards an axis of examples over the batch's devices


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
      method: its `init` starts params and stats, its `loss` is minimized.
      num_train: N, training examples.
      kind: of the examples, `Spec.kind`.
      shard_batch: see `sharding.make_mesh`, of all devices.
    """
    stepper = Stepper(
        method.loss,
        optimizer.make(config),
        hyper.courses(config, total_steps(config, num_train)),
        BATCH_GRADIENTS[config.batch_gradient],
        config.ema,
        method.gradient_batch if jax.default_backend() == "cpu" else None,
        method.update,
    )
    mesh = sharding.make_mesh(config.replicates, config.batch_size, shard_batch)
    program = Program(config, kind, stepper, sharding.pin(mesh))
    return Loop(
        *_init_functions(program, method, mesh),
        _orders_function(config, num_train, mesh),
        _run_function(program, mesh),
        mesh,
    )


def _init_functions(
    program: Program, method: Method, mesh: jax.sharding.Mesh | None
) -> tuple[Callable[..., TrainState], Callable[..., TrainState]]:
    """Returns `Loop.init` and `Loop.shapes`."""
    replicates = program.config.replicates

    def init_one(base_key: Array, start: tuple[Batch, Array | None]) -> TrainState:
        params, stats = method.init(stream_key(base_key, INITIALIZATION), *start)
        opt_state = program.stepper.optimizer.init(params)
        average = params if program.config.ema else ()
        return TrainState(None, params, opt_state, Failure.none(method.terms), stats, average)

    def init_all(base_keys: Array, start: tuple[Batch, Array | None]) -> TrainState:
        states = sharding.over_replicates(replicates, init_one, mesh)(base_keys, start)
        return states._replace(step=jnp.int32(0))

    def placed(base_keys: Array, batch: Batch, mean: Array | None = None) -> tuple[Any, Any]:
        start = batch, None if mean is None else jnp.asarray(mean, jnp.float32)
        keys_spec = sharding.replicates_spec(replicates)
        return sharding.place(base_keys, mesh, keys_spec), sharding.place(start, mesh, jax.P())

    options = setup.RUN_ONCE if jax.default_backend() == "cpu" else None
    compiled = jax.jit(init_all, compiler_options=options)

    def init(*args: Any) -> TrainState:
        return compiled(*placed(*args))

    def shapes(*args: Any) -> TrainState:
        # A function that is compiled with options of its own cannot be traced within another.
        return jax.eval_shape(lambda *args: init_all(*placed(*args)), *args)

    return init, shapes


def _orders_function(
    config: Config, num_train: int, mesh: jax.sharding.Mesh | None
) -> Callable[..., Array]:
    """Returns `Loop.orders`."""
    orders_one = functools.partial(pass_orders, config, num_train)
    orders_all = jax.jit(sharding.over_replicates(config.replicates, orders_one, mesh))

    def orders(base_keys: Array, epoch: int) -> Array:
        spec = sharding.replicates_spec(config.replicates)
        return orders_all(sharding.place(base_keys, mesh, spec), epoch)

    return orders


def _run_function(program: Program, mesh: jax.sharding.Mesh | None) -> Callable[..., Any]:
    """Returns `Loop.run`."""
    replicates = program.config.replicates

    @functools.partial(jax.jit, donate_argnums=0, static_argnames="num_steps")
    def run_all(state: TrainState, inputs: PerReplicate, data: Batch | None, num_steps: int):
        def run_one(inputs: PerReplicate, shared: Shared) -> tuple[TrainState, dict[str, Array]]:
            return many_steps(program, inputs, shared, num_steps)

        inputs = inputs._replace(state=state._replace(step=None))
        mapped = sharding.over_replicates(replicates, run_one, mesh)
        end, terms = mapped(inputs, Shared(state.step, data))
        return end._replace(step=state.step + num_steps), terms

    def run(state: TrainState, inputs: PerReplicate, data: Batch | None, num_steps: int):
        spec = sharding.replicates_spec(replicates)
        batches = inputs.batches  # `streaming` has placed them already.
        inputs = sharding.place(inputs._replace(batches=None), mesh, spec)
        state = sharding.place(state, mesh, spec)
        return run_all(state, inputs._replace(batches=batches), data, num_steps)

    return run


def pass_orders(config: Config, num_train: int, base_key: Array, epoch: Array) -> Array:
    """The examples' order in pass `epoch` and in the next one, [2, N]."""

    def order(epoch: Array) -> Array:
        if not config.shuffle:
            return jnp.arange(num_train)
        return jax.random.permutation(stream_key(base_key, PERMUTATIONS, epoch), num_train)

    return jax.lax.map(order, epoch + jnp.arange(2))


def example_indices(config: Config, orders: Any, num_train: int, first: Any, steps: Any) -> Any:
    """[T, B], the examples of each step's batch.

    Args:
      config: the run's.
      orders: [2, N], `pass_orders` of the pass of the first step.
      num_train: N.
      first: [], the first of `steps`.
      steps: [T], consecutive, in the two passes of `orders`. All arrays are JAX's, or all NumPy's.
    """
    xp = steps.__array_namespace__()
    per_epoch = steps_per_epoch(config, num_train)
    places = (steps % per_epoch)[:, None] * config.batch_size + xp.arange(config.batch_size)
    same_pass = (steps // per_epoch == first // per_epoch)[:, None]
    return xp.where(same_pass, orders[0][places], orders[1][places])


def many_steps(
    program: Program, inputs: PerReplicate, shared: Shared, num_steps: int
) -> tuple[TrainState, dict[str, Array]]:
    """Takes T steps of one replicate from `shared.step` on, in one scan.

    Returns:
      The new state (without its step), and the means of the terms over the steps. A replicate that
      fails in this call keeps the params, optimizer state, stats and averaged weights from before
      the call, with the record of the failure; its terms are NaN from then on.
    """
    pin, kind = program.pin, program.kind
    steps = shared.step + jnp.arange(num_steps, dtype=jnp.int32)
    keys = jax.vmap(lambda step: jax.random.split(stream_key(inputs.key, STEPS, step), 3))(steps)
    sources, batch_from = _batch_sources(program, inputs, shared, steps)
    images = None
    if binarization.mode_for_kind(program.config.binarization, kind) == "dynamic":
        images = _dynamic_images(keys[:, 0], sources, batch_from)

    def body(state: TrainState, step_inputs: tuple[Any, Array | None, Array]):
        source, image, step_keys = step_inputs
        batch = batch_from(source)
        x = batch.x if image is None else image
        batch = batch._replace(x=binarization.model_input(x, kind))
        return train_step(program.stepper, inputs.hparams, state, step_keys, pin(batch))

    start = inputs.state._replace(step=shared.step)
    end, terms = jax.lax.scan(body, start, (sources, pin(images, 1), keys[:, 1:]))
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
        kept(end.average, start.average),
    )
    means = {
        name: jnp.where(succeeded, jnp.mean(values), jnp.nan) for name, values in terms.items()
    }
    return state, means


def _batch_sources(
    program: Program, inputs: PerReplicate, shared: Shared, steps: Array
) -> tuple[Any, Callable[[Any], Batch]]:
    """Inputs of the scan [T, B, ...], and the function from one step's [B, ...] to its batch.

    The inputs are indices of examples on the device, which the scan gathers step by step, or the
    streamed batches themselves.
    """
    if inputs.batches is not None:
        return program.pin(inputs.batches, 1), lambda batch: batch
    num_train = shared.data.x.shape[0]
    indices = example_indices(program.config, inputs.orders, num_train, shared.step, steps)

    def gathered(indices: Array) -> Batch:
        return jax.tree.map(lambda array: array[indices], shared.data)

    return program.pin(indices, 1), gathered


def _dynamic_images(keys: Array, sources: Any, batch_from: Callable[[Any], Batch]) -> Array:
    """[T, B, D] images of all steps, uint8, binarized by the steps' keys [T].

    They are drawn in blocks of steps: drawing the bits of one small batch at a time, inside the
    scan, takes a tenth of a small step's time.
    """
    batch_size = jax.tree.leaves(sources)[0].shape[1]
    return jax.lax.map(
        lambda step: binarization.binarize_visit(step[0], batch_from(step[1]).x, "dynamic"),
        (keys, sources),
        batch_size=max(1, BINARIZED_TOGETHER // batch_size),
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

    The state is donated to the next call: copy or save what must outlive it before the iterator
    goes on. Call boundaries are counted from step 0, wherever training starts.

    Args:
      config: the run's.
      loop: from `make_loop`.
      data: training examples [N, ...] on the device, as `binarization.binarize_once` returns them,
        or examples in host memory, which are streamed to the device in the same order.
      state: from `loop.init` or a checkpoint.
      base_keys: `base_keys` of the replicas.
      hparams: `hyper.hyperparameters` of the replicas; if not given, they are made from `config`.
    """
    streamed = isinstance(data, streaming.Examples)
    num_train = len(data) if streamed else data.x.shape[0]
    per_epoch = steps_per_epoch(config, num_train)
    if hparams is None:
        hparams = hyper.hyperparameters(replicas(config))
    calls = Calls(
        int(state.step), total_steps(config, num_train), steps_per_call(config, num_train)
    )
    inputs = PerReplicate(None, base_keys, hparams)
    if streamed:
        batches = iter(_streamed(config, loop.mesh, data, base_keys, calls))
        data = None
    else:
        data = sharding.place(data, loop.mesh, jax.P())
    epoch = -1
    for start, end in calls:
        if streamed:
            inputs = inputs._replace(batches=next(batches))
        elif start // per_epoch != epoch:
            epoch = start // per_epoch
            inputs = inputs._replace(orders=loop.orders(base_keys, epoch))
        state, terms = loop.run(state, inputs, data, end - start)
        terms, failed_at = sharding.fetch((terms, state.failure.step))
        yield Record(state, end, terms, failed_at)


def _streamed(
    config: Config,
    mesh: jax.sharding.Mesh | None,
    examples: streaming.Examples,
    keys: Array,
    calls: Sequence[tuple[int, int]],
) -> Iterator[Batch]:
    """The batches [T, B, ...] or [R, T, B, ...] of each call, in the same order as from memory."""
    num_train = len(examples)
    per_epoch = steps_per_epoch(config, num_train)
    orders_one = functools.partial(pass_orders, config, num_train)
    several = config.replicates > 1
    # On this process's default device, not over the mesh: each process reads the whole order.
    orders_all = jax.jit(jax.vmap(orders_one, in_axes=(0, None)) if several else orders_one)

    @functools.lru_cache(maxsize=2)
    def orders_of(epoch: int) -> np.ndarray:
        """[R, 2, N]."""
        return np.asarray(orders_all(keys, epoch)).reshape(-1, 2, num_train)

    def indices(start: int, end: int) -> np.ndarray:
        """[T, B] or [R, T, B]."""
        steps = np.arange(start, end)
        each = [
            example_indices(config, orders, num_train, np.asarray(start), steps)
            for orders in orders_of(start // per_epoch)
        ]
        return np.stack(each) if several else each[0]

    batch_sharding = None
    if mesh is not None:
        spec = sharding.chunk_spec(mesh, config.replicates)
        batch_sharding = jax.sharding.NamedSharding(mesh, spec)
    return streaming.batches(examples, calls, indices, batch_sharding)
