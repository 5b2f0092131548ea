"""One run on several devices: a mesh with the axes "replicates" and "batch".

Replicates are independent, and each device computes its own (`jax.shard_map`). Within a replicate's
step, XLA's automatic partitioning shards the batch; the only constraints are on the images. The
program is therefore that of one device, with sums over the whole batch and the same random bits
(with JAX's default `jax_threefry_partitionable` they are a function of their position). Only the
order of summation differs. With a single device the program has no sharding at all.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import P
from jax.sharding import Mesh, NamedSharding

from elbo_lab.errors import UserError

REPLICATES, BATCH, IMAGES = "replicates", "batch", "images"


def make_mesh(
    replicates: int,
    batch_size: int,
    shard_batch: bool | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh | None:
    """The mesh of a run.

    The axis of replicates has r = gcd(R, N) of the N devices. The batch axis has gcd(B, N / r).

    Args:
      replicates: R.
      batch_size: B.
      shard_batch: False for a batch axis of one device. None: False for the devices of a single
        CPU, whose cores share the work of a small batch at less cost; True for GPUs, TPUs and
        several processes.
      devices: the N devices; those of all processes if None.

    Returns:
      Mesh (replicates, batch), or None if it would have a single device.

    Raises:
      UserError: there are several processes, and some devices would not be used.
    """
    devices = list(jax.devices() if devices is None else devices)
    is_multi_process = len({device.process_index for device in devices}) > 1
    if shard_batch is None:
        shard_batch = is_multi_process or devices[0].platform != "cpu"
    rows = math.gcd(replicates, len(devices))
    columns = math.gcd(batch_size, len(devices) // rows) if shard_batch else 1
    used = rows * columns
    if is_multi_process and used < len(devices):
        raise UserError(
            f"the {len(devices)} devices of all processes do not divide --replicates={replicates} "
            f"times --batch_size={batch_size} evenly ({rows} x {columns} would be used)."
        )
    if used == 1:
        return None
    return _mesh((rows, columns), (REPLICATES, BATCH), devices[:used])


def images_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """A mesh with one axis of all devices, for independent work on images; None for one device."""
    devices = list(jax.devices() if devices is None else devices)
    return _mesh((len(devices),), (IMAGES,), devices) if len(devices) > 1 else None


def _mesh(shape: tuple[int, ...], names: tuple[str, ...], devices: list[jax.Device]) -> Mesh:
    # `devices` are ordered by process, and the first axis is the slowest: if there are enough
    # replicates, different hosts hold different replicates, and no batch spans two hosts.
    auto = (jax.sharding.AxisType.Auto,) * len(shape)
    return Mesh(np.asarray(devices, object).reshape(shape), names, axis_types=auto)


def over_replicates(
    replicates: int, function: Callable[..., Any], mesh: Mesh | None = None
) -> Callable[..., Any]:
    """Maps function(own, shared) over the leading axis [R] of the tree `own`; R = 1 has no axis.

    `shared` is the same for all replicates. Within a device the map is a `vmap` on a GPU or TPU,
    and sequential on a CPU, where batches of small matrices are slower than one matrix at a time.
    Inside the function XLA partitions the batch axis of the mesh automatically, if it has several
    devices, by the constraints from `pin`.

    Args:
      replicates: R.
      function: (own, shared) -> tree, for one replicate.
      mesh: from `make_mesh`.

    Returns:
      function of (own, shared), which returns trees with leading axis [R].
    """
    if replicates > 1:
        function = _map_within_device(function)
    if mesh is None:
        return function
    automatic = {BATCH} if mesh.shape[BATCH] > 1 else set()
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(replicates_spec(replicates), P()),
        out_specs=replicates_spec(replicates),
        axis_names=set(mesh.axis_names) - automatic,
        check_vma=False,
    )


def replicates_spec(replicates: int) -> P:
    """Partition of arrays with a leading axis [R] of replicates; R = 1 has no axis."""
    return P(REPLICATES) if replicates > 1 else P()


def _map_within_device(function: Callable[..., Any]) -> Callable[..., Any]:
    if jax.devices()[0].platform != "cpu":
        return jax.vmap(function, in_axes=(0, None))
    return lambda own, shared: jax.lax.map(lambda replicate: function(replicate, shared), own)


def pin(mesh: Mesh | None) -> Callable[..., Any]:
    """A function (tree, axis=0) -> tree that shards that axis of the arrays over the batch devices.

    It returns the tree itself if the batch axis of the mesh has one device.
    """
    if mesh is None or mesh.shape[BATCH] == 1:
        return lambda tree, axis=0: tree

    def pinned(tree: Any, axis: int = 0) -> Any:
        spec = P(*[None] * axis, BATCH)
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)

    return pinned


def chunk_spec(mesh: Mesh, replicates: int) -> P:
    """Partition of a chunk of batches, [T, B, ...] or [R, T, B, ...]."""
    batch = BATCH if mesh.shape[BATCH] > 1 else None
    return P(REPLICATES, None, batch) if replicates > 1 else P(None, batch)


def place(tree: Any, mesh: Mesh | None, spec: P) -> Any:
    """The tree with its arrays placed on a mesh; scalars are replicated. Without a mesh, the tree.

    If the mesh spans several processes, all of them must pass the same values.
    """
    if mesh is None:
        return tree

    def put(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf  # a Python number
        sharding = NamedSharding(mesh, spec if np.ndim(leaf) else P())
        if isinstance(leaf, jax.Array) and (
            not leaf.is_fully_addressable or leaf.sharding == sharding
        ):
            return leaf
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put_local(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return put_local(leaf, sharding)

    return jax.tree.map(put, tree)


def put_local(array: Any, sharding: NamedSharding) -> jax.Array:
    """A global array; each process copies its devices' parts from its own `array`."""
    host = np.asarray(array)
    # Copies, not views: the global array may be donated, and its memory reused.
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index].copy())


def fetch(tree: Any) -> Any:
    """The tree with its whole arrays as NumPy arrays; all processes must call it."""

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return leaf
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))
