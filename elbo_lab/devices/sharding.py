"""One run on several devices: a mesh of axes "replicates" and "batch".

Replicates are independent, and each device works on its own (`jax.shard_map`). Within a replicate's
step the batch is sharded by XLA's automatic partitioning, from constraints on the images alone: so
the program stays that of one device, with the same random bits (`jax_threefry_partitionable`, JAX's
default, makes bits a function of their position) and with sums over the whole batch, and only the
order in which numbers are added up differs. With one device nothing of this is in the program.
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
    """The mesh of a run: gcd(R, number) devices for replicates, of the rest what divides the batch.

    Args:
      replicates: R.
      batch_size: B.
      shard_batch: whether the batch axis takes devices at all; if not given, GPUs and TPUs, and
        whatever the processes of several have, but not the devices of one CPU (whose cores share
        the work of a small batch at less cost).
      devices: those that there are, of all processes, if not given.

    Returns:
      Mesh (replicates, batch), or None where that is a single device.

    Raises:
      UserError: of several processes some would have nothing to do.
    """
    devices = list(jax.devices() if devices is None else devices)
    several = len({device.process_index for device in devices}) > 1
    if shard_batch is None:
        shard_batch = several or devices[0].platform != "cpu"
    rows = math.gcd(replicates, len(devices))
    columns = math.gcd(batch_size, len(devices) // rows) if shard_batch else 1
    used = rows * columns
    if several and used < len(devices):
        raise UserError(
            f"the {len(devices)} devices of all processes do not divide --replicates={replicates} "
            f"times --batch_size={batch_size} evenly ({rows} x {columns} would be used)."
        )
    if used == 1:
        return None
    return _mesh((rows, columns), (REPLICATES, BATCH), devices[:used])


def images_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """All devices in a row, for work on many images that needs no communication; None if one."""
    devices = list(jax.devices() if devices is None else devices)
    return _mesh((len(devices),), (IMAGES,), devices) if len(devices) > 1 else None


def _mesh(shape: tuple[int, ...], names: tuple[str, ...], devices: list[jax.Device]) -> Mesh:
    # In the order of `devices`, process after process: only replicates lie on different hosts, as
    # long as there are enough of them.
    auto = (jax.sharding.AxisType.Auto,) * len(shape)
    return Mesh(np.asarray(devices, object).reshape(shape), names, axis_types=auto)


def over_replicates(
    replicates: int, function: Callable[..., Any], mesh: Mesh | None = None
) -> Callable[..., Any]:
    """Maps function(own, shared) over the leading axis [R] of `own`, a tree; R = 1 has none.

    `shared` is the same for all replicates. Within a device by `vmap` on a GPU or TPU, one after
    the other on a CPU (small matrices in a batch are slower there than in turn). Inside the
    function the batch axis of the mesh, if it has several devices, is partitioned automatically:
    `pin` says how.
    """
    if replicates > 1:
        function = _within_a_device(function)
    if mesh is None:
        return function
    automatic = {BATCH} if mesh.shape[BATCH] > 1 else set()
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(own_spec(replicates), P()),
        out_specs=own_spec(replicates),
        axis_names=set(mesh.axis_names) - automatic,
        check_vma=False,
    )


def own_spec(replicates: int) -> P:
    """Partition of what each replicate has of its own."""
    return P(REPLICATES) if replicates > 1 else P()


def _within_a_device(function: Callable[..., Any]) -> Callable[..., Any]:
    if jax.devices()[0].platform != "cpu":
        return jax.vmap(function, in_axes=(0, None))
    return lambda own, shared: jax.lax.map(lambda one: function(one, shared), own)


def pin(mesh: Mesh | None) -> Callable[..., Any]:
    """(tree, axis=0) -> the tree with that axis of its arrays over the devices of the batch; the
    tree itself where the batch has one device.
    """
    if mesh is None or mesh.shape[BATCH] == 1:
        return lambda tree, axis=0: tree

    def pinned(tree: Any, axis: int = 0) -> Any:
        spec = P(*[None] * axis, BATCH)
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)

    return pinned


def chunk_spec(mesh: Mesh, replicates: int) -> P:
    """Partition of batches [T, B, ...], or [R, T, B, ...]."""
    batch = BATCH if mesh.shape[BATCH] > 1 else None
    return P(REPLICATES, None, batch) if replicates > 1 else P(None, batch)


def place(tree: Any, mesh: Mesh | None, spec: P) -> Any:
    """The arrays of a tree over the devices of a mesh; scalars (but keys) on each of them. The tree
    itself where there is no mesh.

    Where a mesh spans several processes each of them must have the same values.
    """

    if mesh is None:
        return tree

    def put(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf  # Python's own numbers are everywhere
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
    """A global array of which each process takes its devices' parts from its own copy."""
    host = np.asarray(array)
    # True copies: what is donated later must not be memory that is used elsewhere.
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index].copy())


def fetch(tree: Any) -> Any:
    """The whole arrays of a tree as NumPy's, on every process (which must all take part)."""

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return leaf
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))
