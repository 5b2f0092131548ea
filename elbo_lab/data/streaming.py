"""Streaming, by grain, of training images that are too large for the device.

The images stay in host memory or in a memory-mapped file. The indices of the images of each
compiled call are computed as for images on the device. The images are read and sent to the device
while earlier calls still compute there. The same keys and images give the same batches, so that
training with and without streaming agrees to the bit.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax import Array

from elbo_lab.data import binarization
from elbo_lab.data.dataset import Batch
from elbo_lab.devices.sharding import put_local

# Calls whose batches are prefetched to host memory, and to the device.
READ_AHEAD, SENT_AHEAD = 2, 1
# Greatest share of a device's memory for images that are not streamed. The rest is for activations,
# parameters and the batches of a call.
SHARE_OF_MEMORY = 0.25


@dataclasses.dataclass(frozen=True)
class Examples:
    """Training examples to stream, and their binarization."""

    array: np.ndarray  # [N, D], uint8 or float32; may be an np.memmap
    mode: str  # one of `binarization.BINARIZATIONS`
    label: np.ndarray | None = None  # [N]
    key: Array | None = None  # the key of `binarization.binarize_once`; only "fixed" needs it
    context: np.ndarray | None = None  # [N, M]

    def __len__(self) -> int:
        return len(self.array)


def too_large(num_bytes: int, device: jax.Device | None = None) -> bool:
    """True if images should be streamed to the device; never to a CPU, which shares host memory."""
    device = jax.local_devices()[0] if device is None else device
    if device.platform == "cpu":
        return False
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return limit is not None and num_bytes > SHARE_OF_MEMORY * limit


def batches(
    examples: Examples,
    calls: Sequence[tuple[int, int]],
    indices: Callable[[int, int], np.ndarray],
    sharding: jax.sharding.NamedSharding | None = None,
) -> Iterator[Batch]:
    """Yields the examples of each compiled call, prefetched to the device.

    Args:
      examples: the whole training set.
      calls: for each call, the first step and the last (exclusive).
      indices: (first, last) -> indices of the examples of each step, [..., T, B].
      sharding: sharding of the batches; the default device if None.

    Yields:
      For each call a batch with x [..., T, B, D], of the images' type and equal to the rows of
      `binarization.binarize_once`, label [..., T, B] and context [..., T, B, M].
    """
    import grain  # here, since importing it takes half a second

    def send(call: tuple[Batch, np.ndarray]) -> tuple[Batch, Array]:
        if sharding is None:
            return jax.device_put(call)
        return jax.tree.map(lambda array: put_local(array, sharding), call)

    dataset = grain.MapDataset.source(_Calls(examples, calls, indices))
    # One thread is enough: NumPy copies as fast as the memory allows, and the order of a pass is
    # then computed only once.
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=READ_AHEAD)
    sent = grain.experimental.ThreadPrefetchIterDataset(
        dataset.to_iter_dataset(reading).map(send), prefetch_buffer_size=SENT_AHEAD
    )
    for batch, rows in sent:
        x = binarization.binarize_rows_once(examples.key, batch.x, rows, examples.mode)
        yield batch._replace(x=x)


class _Calls:
    """A grain data source: for each call the batch, x [..., T, B, D], and indices [..., T, B]."""

    def __init__(self, examples: Examples, calls: Sequence[tuple[int, int]], indices: Callable):
        self.examples, self.calls, self.indices = examples, calls, indices

    def __len__(self) -> int:
        return len(self.calls)

    def __getitem__(self, index: int) -> tuple[Batch, np.ndarray]:
        first, last = self.calls[index]
        rows, examples = self.indices(first, last), self.examples
        x = np.asarray(examples.array[rows])
        label, context = (
            None if array is None else array[rows] for array in (examples.label, examples.context)
        )
        return Batch(x, label, context=context), rows.astype(np.int32)
