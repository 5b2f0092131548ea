"""Streamed images compared with images on the device: batches and results are equal to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.data import Batch, binarization, load, streaming
from elbo_lab.data.streaming import Examples
from elbo_lab.errors import UserError
from tests.training.toys import NUMBER, assert_identical, on_device, run, start, toy_loop

pytestmark = pytest.mark.usefixtures("fast_compilation")
DIMS = 6
# 4 steps a pass and 3 a call, so that calls extend over two passes.
BASE = configs.make(batch_size=5, epochs=3, log_every=3)
LABELS = np.arange(NUMBER, dtype=np.int32) % 7


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (NUMBER, DIMS)).astype(np.uint8)


def outcome(config: Config, data, state=None) -> tuple[list, list]:
    """Metrics and states after each call."""
    loop = toy_loop(config)
    if state is None:
        state, _ = start(config, loop, images())  # the same for streamed and binarized images
    records = run(config, loop, data, state)
    return [r.metrics for r in records], [r.state for r in records]


@pytest.mark.parametrize(
    ("mode", "replicates", "shuffle", "x"),
    [
        ("dynamic", 1, True, images()),
        pytest.param("dynamic", 2, True, images(), marks=pytest.mark.slow),
        pytest.param("fixed", 2, True, images(), marks=pytest.mark.slow),
        pytest.param(
            *("threshold", 1, False, (images() / 255).astype(np.float32)), marks=pytest.mark.slow
        ),
    ],
)
def test_streamed_runs_equal_those_in_memory_to_the_bit(mode, replicates, shuffle, x):
    config = configs.replace(BASE, binarization=mode, replicates=replicates, shuffle=shuffle)
    key = jax.random.key(3)
    in_memory = outcome(config, binarization.binarize_once(key, jnp.asarray(x), mode))
    assert len(in_memory[0]) == 4
    streamed = outcome(config, Examples(x, mode, key=key))
    assert_identical(streamed, in_memory)


@pytest.mark.slow
def test_a_streamed_run_resumes_at_any_boundary_and_from_a_file(tmp_path):
    np.save(tmp_path / "x.npy", images())
    mapped = Examples(np.load(tmp_path / "x.npy", mmap_mode="r"), "dynamic")
    whole = outcome(BASE, images())
    for i, state in enumerate(whole[1]):
        rest = outcome(BASE, mapped, on_device(state))
        assert_identical(rest, (whole[0][i + 1 :], whole[1][i + 1 :]))


def test_the_batches_are_those_of_the_orders_and_the_keys_alone():
    """Compared with NumPy: rows in the order of the pass, each image binarized by its own draw."""
    calls = [(0, 3), (3, 4)]
    order = np.random.default_rng(1).permutation(NUMBER)

    def indices(start: int, end: int) -> np.ndarray:
        return order[5 * start : 5 * end].reshape(-1, 5)

    def actual(examples: Examples) -> list[Batch]:
        return list(streaming.batches(examples, calls, indices))

    def expected(x: np.ndarray, label: np.ndarray | None, context=None) -> list[Batch]:
        rows = [indices(start, end) for start, end in calls]
        return [
            Batch(x[row], *(None if a is None else a[row] for a in (label, None, context)))
            for row in rows
        ]

    assert_identical(actual(Examples(images(), "none", LABELS)), expected(images(), LABELS))
    context = np.arange(3 * NUMBER, dtype=np.int32).reshape(NUMBER, 3)
    given = Examples(images(), "none", LABELS, context=context)
    assert_identical(actual(given), expected(images(), LABELS, context))
    key = jax.random.key(2)
    stored = np.asarray(binarization.binarize_once(key, jnp.asarray(images()), "fixed"))
    fixed = actual(Examples(images(), "fixed", key=key))
    assert_identical(fixed, expected(stored, None))


class Device:
    """The attributes of a `jax.Device` that `too_large` reads."""

    def __init__(self, platform: str, memory: int | None):
        self.platform, self.memory = platform, memory

    def memory_stats(self):
        return None if self.memory is None else {"bytes_limit": self.memory}


def test_images_are_streamed_where_they_would_take_a_quarter_of_a_devices_memory():
    assert not streaming.too_large(10**12, Device("cpu", 10**9))
    assert not streaming.too_large(250, Device("gpu", 1000))
    assert streaming.too_large(251, Device("gpu", 1000))
    assert not streaming.too_large(10**12, Device("tpu", None))
    assert not streaming.too_large(10**12)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_from_the_file_if_it_is_not_compressed(tmp_path, save):
    x = images()
    save(tmp_path / "x.npz", x_train=x, x_test=x[:3], y_train=np.arange(NUMBER))
    read, mapped = (load(str(tmp_path / "x.npz"), in_file=in_file) for in_file in (False, True))
    np.testing.assert_array_equal(mapped.x_train, x)
    np.testing.assert_array_equal(mapped.x_test, read.x_test)
    np.testing.assert_array_equal(mapped.y_train, read.y_train)
    assert isinstance(mapped.x_train.base, np.memmap) == (save is np.savez)
    assert not isinstance(read.x_train.base, np.memmap)


def test_a_truncated_npz_is_refused_if_read_from_the_file(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x_train=images(), x_test=images())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=str(path)):
        load(str(path), in_file=True)
