"""Checkpoints: exact round trips, pruning, other structures, and errors of the machine."""

import errno
import logging
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbo_lab.errors import UserError
from elbo_lab.training import checkpoint, checkpoint_folders

REPOSITORY = Path(checkpoint.__file__).resolve().parents[2]


class State(NamedTuple):
    params: dict
    opt_state: tuple
    step: jax.Array
    key: jax.Array
    extra: dict


def make_state(seed: int) -> State:
    rng = np.random.default_rng(seed)
    params = {
        "encoder": {"w": jnp.asarray(rng.normal(size=(7, 5)), jnp.float32), "b": jnp.zeros(5)},
        "a.b/c d": jnp.asarray(rng.normal(size=(3,)), jnp.bfloat16),
    }
    extra = {
        "strange": jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-45]),
        "negative_zero": np.full(3, -0.0, np.float32),
        "flags": np.array([True, False]),
        "empty": jnp.zeros((0, 3)),
        "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 2),
        "none": None,
        "tuple": (jnp.uint8(seed), [jnp.ones((2, 1), jnp.complex64)]),
    }
    step = jnp.asarray(seed, jnp.int32)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    return State(params, optimizer.init(params), step, jax.random.key(seed), extra)


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        else:
            assert not a.weak_type
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def small(step: int) -> dict:
    return {
        "w": jnp.full((20, 30), step, jnp.float32),
        "n": jnp.asarray(step, jnp.int32),
        "key": jax.random.key(step),
    }


def folders(directory) -> list[str]:
    return sorted(os.listdir(directory))


def test_round_trip_is_bitwise(tmp_path):
    state = make_state(1)
    checkpoint.save(tmp_path / "new" / "folders", 7, state)
    for like in (state, make_state(2), jax.eval_shape(lambda: state)):
        step, got = checkpoint.restore(tmp_path / "new" / "folders", like)
        assert step == 7
        assert_same(got, state)
    assert jax.random.key_impl(got.extra["keys"]) == jax.random.key_impl(state.extra["keys"])


def test_restored_state_does_not_retrace(tmp_path):
    traces = []

    @jax.jit
    def train_step(state):
        traces.append(1)
        return state._replace(step=state.step + 1)

    state = train_step(make_state(1))
    checkpoint.save(tmp_path, 1, state)
    train_step(checkpoint.restore(tmp_path, state)[1])
    train_step(state)
    assert len(traces) == 1


def test_restored_state_can_be_donated(tmp_path):
    checkpoint.save(tmp_path, 1, small(1))
    _, state = checkpoint.restore(tmp_path, small(1))
    double = jax.jit(lambda w: 2 * w, donate_argnums=0)
    assert (double(double(state["w"])) == 4).all()


def test_relative_path_and_single_leaf(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("runs/a", 1, jnp.float32(2.5))
    assert checkpoint.restore(tmp_path / "runs" / "a", jnp.float32(0)) == (1, 2.5)


def test_the_newest_steps_stay(tmp_path):
    assert checkpoint.restore(tmp_path / "none", small(0)) is None
    assert checkpoint.restore(tmp_path, small(0)) is None
    for step in (0, 10, 200, 3000):
        checkpoint.save(tmp_path, step, small(step))
        assert checkpoint.restore(tmp_path, small(0))[0] == step
    assert folders(tmp_path) == ["step_00000200", "step_00003000"]
    checkpoint.save(tmp_path, 123456789, small(4), keep=1)
    assert folders(tmp_path) == ["step_123456789"]
    assert_same(checkpoint.restore(tmp_path, small(0))[1], small(4))


def test_saving_a_step_again_replaces_it(tmp_path):
    for value in (1, 2, 3):
        checkpoint.save(tmp_path, 5, small(value))
    assert len(folders(tmp_path)) == 1
    step, got = checkpoint.restore(tmp_path, small(0))
    assert step == 5
    assert_same(got, small(3))


def test_saving_below_the_newest_step_is_refused(tmp_path):
    checkpoint.save(tmp_path, 5, small(5))
    with pytest.raises(UserError, match="of step 5, later than 4"):
        checkpoint.save(tmp_path, 4, small(4))
    assert_same(checkpoint.restore(tmp_path, small(0))[1], small(5))


def test_a_refused_checkpoint_is_set_aside_and_blocks_no_other(tmp_path):
    for step in (5, 99):
        checkpoint.save(tmp_path, step, small(step))

    def refusal(step, state):
        return "the run ends at step 10" if int(state["n"]) > 10 else ""

    for name in ("set_aside_step_00000099", "set_aside_step_00000099_"):
        with pytest.warns(checkpoint.CheckpointWarning, match=f"{name}: the run ends at step 10"):
            step, got = checkpoint.restore(tmp_path, small(0), refusal=refusal)
        assert step == 5
        assert_same(got, small(5))
        shutil.copytree(tmp_path / name, tmp_path / "step_00000099")
    shutil.rmtree(tmp_path / "step_00000099")
    checkpoint.save(tmp_path, 10, small(10))
    assert checkpoint.restore(tmp_path, small(0), refusal=refusal)[0] == 10


def test_files_in_the_places_of_folders_block_no_save(tmp_path):
    for number in (1, 2):
        for name in ("", ".saving", ".1.saving", ".removed"):
            (tmp_path / f"step_{number:08d}{name}").write_text("x")
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, small(step))
        assert_same(checkpoint.restore(tmp_path, small(0))[1], small(step))
    assert folders(tmp_path) == ["step_00000001", "step_00000002", "step_00000003", "step_00000004"]
    assert (tmp_path / "step_00000001").read_text() == "x"  # not ours


def test_a_note_lies_beside_the_state(tmp_path):
    assert checkpoint.read_note(tmp_path / "none") is None
    assert checkpoint.read_note(tmp_path) is None
    checkpoint.save(tmp_path, 1, small(1))
    assert checkpoint.read_note(tmp_path) == {}
    for step in (2, 3):
        note = {"seconds": np.float32(step), "config": {"dims": (1, 2)}}
        checkpoint.save(tmp_path, step, small(step), note=note)
    assert checkpoint.read_note(tmp_path) == {"seconds": 3.0, "config": {"dims": [1, 2]}}
    # A note is verified like the state: if it has changed, the previous checkpoint's is read.
    newest = tmp_path / "step_00000003" / "note.json"
    newest.write_text(newest.read_text().replace("3.0", "4.0"))
    assert checkpoint.read_note(tmp_path)["seconds"] == 2.0
    with pytest.warns(checkpoint.CheckpointWarning, match="note.json has changed"):
        assert checkpoint.restore(tmp_path, small(0))[0] == 2


@pytest.mark.parametrize("step, keep", [(-1, 2), (1, 0)])
def test_bad_numbers(tmp_path, step, keep):
    with pytest.raises(UserError, match="step >= 0 and keep >= 1"):
        checkpoint.save(tmp_path, step, small(1), keep=keep)


@pytest.mark.parametrize(
    "leaf, message",
    [(3, r"\['x'\] is a int"), (np.zeros(2), r"\['x'\] is float64"), ("a", r"\['x'\] is a str")],
)
def test_leaves_that_jax_cannot_hold(tmp_path, leaf, message):
    with pytest.raises(UserError, match=message):
        checkpoint.save(tmp_path, 1, {"x": leaf})
    assert folders(tmp_path) == []


@pytest.mark.parametrize(
    "like, message",
    [
        ({"w": jnp.zeros((20, 31))}, r"\['w'\] is float32\[20, 30\] there and float32\[20, 31\]"),
        ({"w": jnp.zeros((20, 30), jnp.int32)}, r"\['w'\] is float32.* there and int32"),
        ({"n": None}, r"\['n'\] is int32\[\] there and absent here"),
        ({"new": jnp.zeros(1)}, r"\['new'\] is absent there and float32\[1\] here"),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"\['key'\] is key<fry>\[\] there and uint32"),
        ({"key": jax.ShapeDtypeStruct((2,), np.uint32)}, r"\['key'\] is key<fry>"),
    ],
)
def test_another_structure_is_an_error_and_deletes_nothing(tmp_path, like, message):
    checkpoint.save(tmp_path, 1, small(1))
    with pytest.raises(UserError, match=message):
        checkpoint.restore(tmp_path, {**small(0), **like})
    assert_same(checkpoint.restore(tmp_path, small(0))[1], small(1))


def test_each_checkpoint_is_read_like_the_first_that_has_its_arrays(tmp_path):
    older = {"w": jnp.zeros((20, 30)), "bits": jnp.zeros((), jnp.int32)}
    checkpoint.save(tmp_path, 1, older)
    checkpoint.save(tmp_path, 2, small(2))
    forms = {"like": small(0), "others": [{"other": jnp.zeros(1)}, older]}
    assert_same(checkpoint.restore(tmp_path, **forms)[1], small(2))
    (tmp_path / "step_00000002" / "manifest.json").write_text("{}")
    with pytest.warns(checkpoint.CheckpointWarning, match="deleted the damaged checkpoint"):
        step, got = checkpoint.restore(tmp_path, **forms)
    assert step == 1
    assert_same(got, older)
    with pytest.raises(UserError, match=r"\['key'\] is absent there and key<fry>\[\] here"):
        checkpoint.restore(tmp_path, small(0), others=[{"other": jnp.zeros(1)}])


def test_another_key_implementation_is_an_error(tmp_path):
    checkpoint.save(tmp_path, 1, jax.random.key(1))
    with pytest.raises(UserError, match="key<fry>.*key<rbg>"):
        checkpoint.restore(tmp_path, jax.random.key(1, impl="rbg"))


def test_directory_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    for call in (
        lambda directory: checkpoint.save(directory, 1, small(1)),
        lambda directory: checkpoint.restore(directory, small(1)),
    ):
        with pytest.raises(UserError, match=f"{tmp_path}/file.*: Not a directory$"):
            call(tmp_path / "file" / "runs")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorStore's.
def test_disk_full(tmp_path):
    checkpoint.save(tmp_path, 1, small(1))
    big = {"w": np.ones((300, 300), np.float32)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=f"cannot save .* in {tmp_path}: File too large$"):
            checkpoint.save(tmp_path, 2, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folders(tmp_path) == ["step_00000001"]
    assert_same(checkpoint.restore(tmp_path, small(0))[1], small(1))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("RESOURCE_EXHAUSTED: Error writing 'a': No space left [os_error_code='28']"),
        ValueError("UNKNOWN: write failed: No space left on device"),
    ],
)
def test_disk_full_when_flushing(tmp_path, monkeypatch, error):
    def fail(_):
        raise error

    checkpoint.save(tmp_path, 1, small(1))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_folders, "sync", fail)
        with pytest.raises(UserError, match=f"in {tmp_path}: No space left on device$"):
            checkpoint.save(tmp_path, 2, small(2))
    assert folders(tmp_path) == ["step_00000001"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_errors_of_the_machine_are_no_damage(tmp_path, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    checkpoint.save(tmp_path, 1, small(1))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "open", fail, raising=False)  # Permissions do not stop root.
        with pytest.raises(UserError, match=f"step_00000001: {os.strerror(code)}$"):
            checkpoint.restore(tmp_path, small(0))
    assert_same(checkpoint.restore(tmp_path, small(0))[1], small(1))


def test_the_terminal_stays_quiet(tmp_path, capfd, caplog):
    with caplog.at_level(logging.DEBUG, logger="absl"):
        checkpoint.save(tmp_path, 1, small(1))
        checkpoint.restore(tmp_path, small(0))
        logging.getLogger("absl").info("mine")
    assert capfd.readouterr() == ("", "")
    assert [record.message for record in caplog.records if record.name == "absl"] == ["mine"]


def test_starting_without_a_checkpoint_does_not_import_orbax():
    code = (
        "import sys; from elbo_lab.training import checkpoint; checkpoint.restore('none', {}); "
        "sys.exit('orbax' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
