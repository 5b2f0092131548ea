"""Several devices compared with one: equal draws to the bit, equal results to float tolerance."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from elbo_lab.devices import sharding
from elbo_lab.errors import UserError

HERE = Path(__file__).resolve().parent
MESHES = {"r1": (1, 4), "r2": (2, 4), "vmap_r4": (4, 2), "beta_tcvae": (1, 4), "soap": (2, 4)}


class Device:
    """The attributes of a `jax.Device` that `make_mesh` reads."""

    def __init__(self, platform="gpu", process_index=0):
        self.platform, self.process_index = platform, process_index


def shape(*args, **options) -> tuple[int, int]:
    """The shape of the mesh that `make_mesh` gives."""
    mesh = sharding.make_mesh(*args, **options)
    return (1, 1) if mesh is None else tuple(mesh.shape.values())


@pytest.mark.parametrize(
    ("number", "replicates", "batch_size", "expected"),
    [
        (8, 1, 20, (1, 4)),
        (8, 2, 20, (2, 4)),
        (8, 4, 20, (4, 2)),
        (8, 6, 20, (2, 4)),
        (8, 8, 20, (8, 1)),
        (8, 1, 128, (1, 8)),
        (4, 3, 5, (1, 1)),
        (1, 4, 20, (1, 1)),
    ],
)
def test_replicates_take_the_devices_first_and_the_batch_what_is_left(
    number, replicates, batch_size, expected
):
    gpus = [Device() for _ in range(number)]
    assert shape(replicates, batch_size, devices=gpus) == expected
    assert shape(replicates, batch_size, True, [Device("cpu")] * number) == expected


def test_the_batch_is_not_sharded_over_one_cpus_devices_unless_asked():
    cpus = [Device("cpu") for _ in range(8)]
    assert shape(1, 20, devices=cpus) == (1, 1)
    assert shape(2, 20, devices=cpus) == (2, 1)
    assert shape(2, 20, True, devices=cpus) == (2, 4)
    assert shape(2, 20, False, devices=[Device()] * 8) == (2, 1)
    assert shape(1, 20, devices=[Device("cpu", i) for i in range(4)]) == (1, 4)


def test_a_process_with_nothing_to_do_is_refused():
    with pytest.raises(UserError, match="3 devices.*--replicates=1.*--batch_size=20"):
        sharding.make_mesh(1, 20, devices=[Device("cpu", i) for i in range(3)])


@pytest.mark.slow
def test_eight_devices_equal_one(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parents[1])}
    for devices in (1, 8):
        command = [sys.executable, HERE / "sharded_runs.py", str(devices), tmp_path / f"{devices}"]
        subprocess.run(command, check=True, env=environment)
    one, eight = (dict(np.load(tmp_path / f"{n}.npz")) for n in (1, 8))
    assert one.keys() == eight.keys()
    for name, mesh in MESHES.items():
        assert tuple(eight.pop(f"{name}/mesh")) == mesh
    for name, value in eight.items():
        if name.endswith(("/images", "/noise", "/labels")):
            assert np.all(np.ptp(one[name], axis=0) > 0)  # they differ from step to step
            np.testing.assert_array_equal(value, one[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, one[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_nothing_is_placed_without_a_mesh():
    def function(own, shared):
        return own

    assert sharding.over_replicates(1, function) is function
    tree = {"x": jax.numpy.ones(3), "n": 1}
    assert sharding.place(tree, None, jax.P()) is tree
    assert sharding.pin(None)(tree) is tree
