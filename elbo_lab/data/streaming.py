"""Training images too large for the device: streamed by grain, compiled call after compiled call.

The images stay in host memory, or in a file that is mapped into it. Which ones a call needs is
computed as it is for images on the device; they are read and sent to the device while earlier
calls still compute there. The same keys and the same images give the same batches, so that both
ways train to the same bits.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax import Array

from elbo_lab.data import binarization
from elbo_lab.data.dataset import Batch
from elbo_lab.devices.sharding import put_local

# Calls whose batches wait in host memory, and on the device, besides the one at work.
READ_AHEAD, SENT_AHEAD = 2, 1
# What "auto" leaves on a device: activations, parameters and the batches of a call need the rest.
SHARE_OF_MEMORY = 0.25


@dataclasses.dataclass(frozen=True)
class Examples:
    """Training examples that stay where they are, and how they are binarized on the way."""

    array: np.ndarray  # [N, D], uint8 or float32; np.memmap too
    mode: str  # of `binarization`
    label: np.ndarray | None = None  # [N]
    key: Array | None = None  # for what is drawn once ("fixed"), as `binarization.stored` takes it

    def __len__(self) -> int:
        return len(self.array)


def too_large(num_bytes: int, device: jax.Device | None = None) -> bool:
    """Whether images should be streamed: never to a CPU, whose memory they are in already."""
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
    """Stored examples of each compiled call, read and sent ahead of time.

    Args:
      examples: all of them.
      calls: first and last step (exclusive) of every call.
      indices: (first, last) -> which examples each step sees, [..., T, B].
      sharding: where the batches go; the default device if not given.

    Yields:
      [..., T, B, D] for each call, of the images' type, as `binarization.stored` would have them,
      with their labels [..., T, B].
    """
    import grain  # Half a second that other runs do not have.

    def send(read: tuple[Batch, np.ndarray]) -> tuple[Batch, Array]:
        if sharding is None:
            return jax.device_put(read)
        return jax.tree.map(lambda array: put_local(array, sharding), read)

    dataset = grain.MapDataset.source(_Calls(examples, calls, indices))
    # One thread: the order of a pass is computed once, and NumPy copies as fast as memory does.
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=READ_AHEAD)
    sent = grain.experimental.ThreadPrefetchIterDataset(
        dataset.to_iter_dataset(reading).map(send), prefetch_buffer_size=SENT_AHEAD
    )
    for batch, which in sent:
        x = binarization.stored_rows(examples.key, batch.x, which, examples.mode)
        yield batch._replace(x=x)


class _Calls:
    """grain's random access to what each call reads: batch [..., T, B, D], indices [..., T, B]."""

    def __init__(self, examples: Examples, calls: Sequence[tuple[int, int]], indices: Callable):
        self.examples, self.calls, self.indices = examples, calls, indices

    def __len__(self) -> int:
        return len(self.calls)

    def __getitem__(self, index: int) -> tuple[Batch, np.ndarray]:
        which, label = self.indices(*self.calls[index]), self.examples.label
        x = np.asarray(self.examples.array[which])
        return Batch(x, None if label is None else label[which]), which.astype(np.int32)
