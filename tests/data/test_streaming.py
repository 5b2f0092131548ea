"""Streamed images against images on the device: the same batches, the same bits."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import configs, training
from elbo_lab.configs import Config
from elbo_lab.data import binarization, load, streaming
from elbo_lab.errors import UserError
from elbo_lab.models import Model

pytestmark = pytest.mark.usefixtures("fast_compilation")
NUMBER, DIMS = 24, 6
BASE = Config(batch_size=5, epochs=3, log_every=3)  # 4 steps a pass: calls cross from one to next


def toy_init(key: jax.Array, mean_image: jax.Array) -> dict:
    return {"w": mean_image + 0.1 * jax.random.normal(key, (DIMS,))}


def toy_loss(key, params, x, hparams):
    """Squared distance to noisy images, and the sum of each pixel's place where it is lit."""
    del hparams
    noise = 0.1 * jax.random.normal(key, x.shape)
    loss = jnp.sum(jnp.square(params["w"] + noise - x), axis=-1)
    return loss, {"bound": -loss, "lit": jnp.sum(x * 2.0 ** jnp.arange(DIMS), axis=-1)}


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (NUMBER, DIMS)).astype(np.uint8)


@functools.cache
def toy_loop(config: Config) -> training.Loop:
    return training.make_loop(config, Model(toy_init, None, None, None), NUMBER, toy_loss)


def outcome(config: Config, x, state=None) -> tuple[list, list]:
    """Metrics and states after each call."""
    loop = toy_loop(config)
    keys = training.base_keys(training.replicas(config))
    state = loop.init(keys, jnp.full(DIMS, 0.5)) if state is None else state
    metrics, states = [], []
    for record in training.fit(config, loop, x, state, keys):
        metrics.append(jax.tree.map(np.asarray, record.metrics))
        states.append(jax.tree.map(np.array, record.state))
    return metrics, states


def assert_identical(a, b) -> None:
    chex.assert_trees_all_equal(a, b, strict=True)


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
    in_memory = outcome(config, binarization.stored(key, jnp.asarray(x), mode))
    assert len(in_memory[0]) == 4
    streamed = outcome(config, streaming.Images(x, mode, key))
    assert_identical(streamed, in_memory)


@pytest.mark.slow
def test_a_streamed_run_resumes_at_any_boundary_and_from_a_file(tmp_path):
    np.save(tmp_path / "x.npy", images())
    mapped = streaming.Images(np.load(tmp_path / "x.npy", mmap_mode="r"), "dynamic")
    whole = outcome(BASE, jnp.asarray(images()))
    for i, state in enumerate(whole[1]):
        rest = outcome(BASE, mapped, jax.tree.map(jnp.array, state))
        assert_identical(rest, (whole[0][i + 1 :], whole[1][i + 1 :]))


def test_the_batches_are_those_of_the_orders_and_the_keys_alone():
    """By NumPy: row s of the chunk is what the pass's order says, each image by its own draw."""
    calls = [(0, 3), (3, 4)]
    order = np.random.default_rng(1).permutation(NUMBER)

    def indices(start: int, end: int) -> np.ndarray:
        return order[5 * start : 5 * end].reshape(-1, 5)

    plain = streaming.batches(streaming.Images(images(), "none"), calls, indices)
    for (start, end), found in zip(calls, plain, strict=True):
        np.testing.assert_array_equal(found, images()[indices(start, end)])
    key = jax.random.key(2)
    fixed = streaming.batches(streaming.Images(images(), "fixed", key), calls, indices)
    stored = np.asarray(binarization.stored(key, jnp.asarray(images()), "fixed"))
    for (start, end), found in zip(calls, fixed, strict=True):
        np.testing.assert_array_equal(found, stored[indices(start, end)])


class Device:
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
    whole, found = (load(str(tmp_path / "x.npz"), in_file=in_file) for in_file in (False, True))
    np.testing.assert_array_equal(found.x_train, x)
    np.testing.assert_array_equal(found.x_test, whole.x_test)
    np.testing.assert_array_equal(found.y_train, whole.y_train)
    assert isinstance(found.x_train.base, np.memmap) == (save is np.savez)
    assert not isinstance(whole.x_train.base, np.memmap)


def test_an_npz_that_was_cut_short_is_refused_from_the_file_too(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x_train=images(), x_test=images())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=str(path)):
        load(str(path), in_file=True)
