"""Evaluates a method on every example of a split: batches, masks and meshes in one place."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from elbo_lab.data.dataset import Batch
from elbo_lab.devices import sharding
from elbo_lab.methods.base import Method

Evaluation = dict[str, np.ndarray]
"""Quantity -> a value for each example, [N, ...]; `quantities` explains the names."""


class Evaluator(NamedTuple):
    """A compiled pass over one batch of examples, or over one batch on each of several devices."""

    # (key, params, stats, batch of B) -> {quantity: [B, ...]}; of n devices (keys [n], params,
    # stats, batch of n B) -> [n B, ...]
    run: Callable[..., dict[str, Array]]
    batch_size: int
    mesh: Mesh | None = None


def make_evaluator(method: Method, mesh: Mesh | None = None) -> Evaluator:
    """Compiles (at first use) the evaluation of a batch.

    Args:
      method: whose `measure` is taken.
      mesh: devices that evaluate a batch each, `sharding.images_mesh`; one device if not given.
    """
    if mesh is None:
        return Evaluator(jax.jit(method.measure), method.measure_batch)
    own = jax.P(sharding.IMAGES)
    each = jax.shard_map(
        lambda keys, params, stats, batch: method.measure(keys[0], params, stats, batch),
        mesh=mesh,
        in_specs=(own, jax.P(), jax.P(), own),
        out_specs=own,
        check_vma=False,
    )
    return Evaluator(jax.jit(each), method.measure_batch, mesh)


def evaluate(
    evaluator: Evaluator,
    key: Array,
    params: Any,
    stats: Any,
    examples: Batch,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Evaluates every example of a split. The last batch is filled up, and its filling left out.

    Args:
      evaluator: from `make_evaluator`.
      key: one typed PRNG key; batch b uses fold_in(key, b), on however many devices.
      params: the method's.
      stats: the method's.
      examples: of the whole split, as the model sees them: images are binarized already.
      on_batch: called with the number of examples done after each batch.

    Returns:
      Quantity -> NumPy array [N, ...].
    """
    if evaluator.mesh is not None:
        return _evaluate_on_mesh(evaluator, key, params, stats, examples, on_batch)
    size, number = evaluator.batch_size, examples.x.shape[0]
    parts = []
    for b, start in enumerate(range(0, number, size)):
        rows = jnp.minimum(start + jnp.arange(size), number - 1)
        batch = jax.tree.map(lambda array, rows=rows: array[rows], examples)
        part = evaluator.run(jax.random.fold_in(key, b), params, stats, batch)
        parts.append(jax.device_get(part))
        on_batch(min(start + size, number))
    return _joined(parts, number)


def _evaluate_on_mesh(
    evaluator: Evaluator,
    key: Array,
    params: Any,
    stats: Any,
    examples: Batch,
    on_batch: Callable[[int], None],
) -> Evaluation:
    """`evaluate` with batches b, b + 1, ... on a device each, by the keys that they have alone."""
    mesh, size, number = evaluator.mesh, evaluator.batch_size, examples.x.shape[0]
    devices = mesh.size
    own = jax.P(sharding.IMAGES)
    params, stats = sharding.place((params, stats), mesh, jax.P())
    examples = jax.tree.map(np.asarray, examples)
    parts = []
    for b in range(0, -(-number // size), devices):
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(b + jnp.arange(devices))
        rows = np.minimum(b * size + np.arange(devices * size), number - 1)
        batch = jax.tree.map(lambda array, rows=rows: array[rows], examples)
        keys, batch = sharding.place((keys, batch), mesh, own)
        parts.append(sharding.fetch(evaluator.run(keys, params, stats, batch)))
        on_batch(min((b + devices) * size, number))
    return _joined(parts, number)


def _joined(parts: list[Evaluation], number: int) -> Evaluation:
    return {name: np.concatenate([p[name] for p in parts])[:number] for name in parts[0]}
