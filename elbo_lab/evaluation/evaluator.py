"""Evaluates a method on every example of a split, in batches, on one device or on several."""

import functools
import math
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
"""Quantity -> values of all examples, [N, ...]; `quantities` explains the names."""


class Evaluator(NamedTuple):
    """The compiled evaluation of one batch, or of one batch on each device of a mesh."""

    # (key, params, stats, batch of B) -> {quantity: [B, ...]}.
    # On n devices: (keys [n], params, stats, batch of n B) -> {quantity: [n B, ...]}.
    run: Callable[..., dict[str, Array]]
    batch_size: int
    mesh: Mesh | None = None


def make_evaluator(method: Method, mesh: Mesh | None = None) -> Evaluator:
    """Builds the evaluation of a batch, which is compiled at its first use.

    Args:
      method: its `measure` is compiled.
      mesh: `sharding.images_mesh`, devices that evaluate one batch each; one device if not given.
    """
    if mesh is None:
        return Evaluator(jax.jit(method.measure), method.measure_batch)

    def measure_on_device(keys: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        return method.measure(keys[0], params, stats, batch)

    per_device = jax.P(sharding.IMAGES)
    measure = jax.shard_map(
        measure_on_device,
        mesh=mesh,
        in_specs=(per_device, jax.P(), jax.P(), per_device),
        out_specs=per_device,
        check_vma=False,
    )
    return Evaluator(jax.jit(measure), method.measure_batch, mesh)


def evaluate(
    evaluator: Evaluator,
    key: Array,
    params: Any,
    stats: Any,
    examples: Batch,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Evaluates every example of a split.

    The last batch is padded with the last example, and the padding's values are dropped.

    Args:
      evaluator: from `make_evaluator`.
      key: one typed PRNG key; batch b uses fold_in(key, b), whatever the number of devices.
      params: the method's.
      stats: the method's.
      examples: of the whole split, as the model sees them: images are binarized already.
      on_batch: called after each batch with the number of examples done.

    Returns:
      Quantity -> NumPy array [N, ...].
    """
    if evaluator.mesh is not None:
        return _evaluate_on_mesh(evaluator, key, params, stats, examples, on_batch)
    size, num_examples = evaluator.batch_size, examples.x.shape[0]
    parts = []
    for b, start in enumerate(range(0, num_examples, size)):
        rows = jnp.minimum(start + jnp.arange(size), num_examples - 1)
        batch = jax.tree.map(lambda array, rows=rows: array[rows], examples)
        part = evaluator.run(jax.random.fold_in(key, b), params, stats, batch)
        parts.append(jax.device_get(part))
        on_batch(min(start + size, num_examples))
    return _joined(parts, num_examples)


def _evaluate_on_mesh(
    evaluator: Evaluator,
    key: Array,
    params: Any,
    stats: Any,
    examples: Batch,
    on_batch: Callable[[int], None],
) -> Evaluation:
    """`evaluate` with one batch on each device at a time; each batch has the same key as there."""
    mesh, size, num_examples = evaluator.mesh, evaluator.batch_size, examples.x.shape[0]
    devices = mesh.size
    per_device = jax.P(sharding.IMAGES)
    params, stats = sharding.place((params, stats), mesh, jax.P())
    examples = jax.tree.map(np.asarray, examples)
    parts = []
    for b in range(0, math.ceil(num_examples / size), devices):
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(b + jnp.arange(devices))
        rows = np.minimum(b * size + np.arange(devices * size), num_examples - 1)
        batch = jax.tree.map(lambda array, rows=rows: array[rows], examples)
        keys, batch = sharding.place((keys, batch), mesh, per_device)
        parts.append(sharding.fetch(evaluator.run(keys, params, stats, batch)))
        on_batch(min((b + devices) * size, num_examples))
    return _joined(parts, num_examples)


def _joined(parts: list[Evaluation], num_examples: int) -> Evaluation:
    return {
        name: np.concatenate([part[name] for part in parts])[:num_examples] for name in parts[0]
    }
