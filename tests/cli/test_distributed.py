"""Two processes on this machine that train one run, and streamed images."""

import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from elbo_lab.devices import distributed
from elbo_lab.errors import UserError
from tests.cli.conftest import TIMEOUT


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def flags_of_two(path, *flags: str) -> list[list[str]]:
    """The flags of each of the two processes of a run."""
    where = [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2"]
    common = [f"--workdir={path}", "--distributed", *where]
    return [[*common, f"--process_id={i}", *flags] for i in range(2)]


def start(cli, path, *flags: str, **options) -> list:
    """Starts both processes of a run."""
    return [cli.start(*own, **options) for own in flags_of_two(path, *flags)]


def finished(processes) -> list[tuple[int, str, str]]:
    """Exit status, standard output and standard error of each process."""
    outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, outputs, strict=True)]


@pytest.mark.slow
def test_two_processes_equal_one_and_stop_and_go_on_together(cli, read, fresh, tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    first, second = finished(start(cli, whole))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "2 processes" in first[1]
    assert second[1] == ""
    assert "training" not in second[2]

    single, both = (read["outcome"](path) for path in (fresh[0], whole))
    assert [line["step"] for line in both["lines"]] == [line["step"] for line in single["lines"]]
    for expected, line in zip(single["lines"], both["lines"], strict=True):
        assert line["bound"] == pytest.approx(expected["bound"], rel=1e-4)
    with (
        np.load(fresh[0] / "evaluation.npz") as expected,
        np.load(whole / "evaluation.npz") as values,
    ):
        assert values.files == expected.files
        for name in values.files:
            np.testing.assert_allclose(values[name], expected[name], rtol=1e-3, atol=1e-4)

    # The second process gets the signal when the first saves step 36.
    flags = flags_of_two(parted)
    receiver = cli.start(*flags[1])
    environment = cli.signalling("step_00000036", signal.SIGTERM, to=receiver.pid)
    stopped = finished([cli.start(*flags[0], env=environment), receiver])
    assert [status for status, _, _ in stopped] == [128 + signal.SIGTERM] * 2, stopped
    assert "saved. The same command goes on" in stopped[0][2]
    assert 6 <= read["records"](parted) < 20
    assert [status for status, _, _ in finished(start(cli, parted))] == [0, 0]
    assert read["outcome"](parted) == both


@pytest.mark.slow
def test_streamed_replicates_of_two_processes_equal_one_process_to_the_bit(cli, read, tmp_path):
    flags = ["--replicates=2", "--epochs=3", "--binarization=fixed"]
    # As XLA compiles by default: with fewer optimizations the two evaluations differ by roundings.
    default = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
    options = {"env": {**cli.environment, **default}}
    cli.run(f"--workdir={tmp_path / 'one'}", *flags, **options)
    done = finished(start(cli, tmp_path / "two", "--stream=true", *flags, **options))
    assert [status for status, _, _ in done] == [0, 0], done
    assert read["outcome"](tmp_path / "two") == read["outcome"](tmp_path / "one")


# Two replicates on the devices of two processes, of which the first has failed at step 3.
FAILED = """
import sys, types
import jax
from elbo_lab.devices import distributed
distributed.connect(sys.argv[1], 2, int(sys.argv[2]), 60)
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from elbo_lab.runs import stages
from elbo_lab.training import Failure
mesh = jax.make_mesh((2,), ("replicates",))
def spread(*values):
    sharding = NamedSharding(mesh, PartitionSpec("replicates"))
    return jax.make_array_from_callback((2,), sharding, lambda index: np.array(values)[index])
terms = {"bound": (False, True), "kl": (True, True), "gradient": (False, True)}
others = dict.fromkeys(("parameters", "stats"), (True, True))
is_finite = {name: spread(*values) for name, values in (terms | others).items()}
failure = Failure(spread(3, -1), is_finite)
run = types.SimpleNamespace(
    failed_at=np.array([-1, -1]), replicas=[types.SimpleNamespace(seed=seed) for seed in (7, 8)]
)
record = types.SimpleNamespace(
    failed_at=np.array([3, -1]), state=types.SimpleNamespace(failure=failure)
)
stages._check_finite(run, record, 0)
print(run.failed_at.tolist())
"""


@pytest.mark.slow
def test_a_replicate_of_another_process_that_fails_is_named():
    address = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FAILED, address, str(i)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            env=environment,
        )
        for i in range(2)
    ]
    first, second = finished(processes)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "Replicate 0 stopped: not finite at step 3, seed 7: bound, gradient; " in first[1]
    assert first[1].endswith("[3, -1]\n") and second[1] == "[3, -1]\n"


@pytest.mark.slow
def test_a_streamed_run_stops_and_goes_on_to_the_bits_of_one_in_memory(cli, read, fresh, tmp_path):
    flags = (f"--workdir={tmp_path}", "--stream=true")
    done = cli.interrupted("step_00000024", signal.SIGTERM, *flags)
    assert done.returncode == 128 + signal.SIGTERM
    cli.run(*flags)
    assert read["outcome"](tmp_path) == read["outcome"](fresh[0])


@pytest.mark.slow
def test_sigterm_ends_a_connected_process_that_does_not_train_yet():
    script = "import os, signal, sys\nfrom elbo_lab.devices import distributed\n"
    script += "distributed.connect(sys.argv[1], 1, 0, 60)\nos.kill(os.getpid(), signal.SIGTERM)\n"
    command = [sys.executable, "-c", script, f"127.0.0.1:{free_port()}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGTERM, done.stderr


@pytest.mark.slow
def test_different_flags_and_a_missing_process_are_one_sentence(cli, tmp_path):
    flags = flags_of_two(tmp_path / "run")
    for status, _, err in finished([cli.start(*flags[0]), cli.start(*flags[1], "--seed=7")]):
        assert status == 2
        assert "different flags, images or versions" in err
        assert "Traceback" not in err
    assert not (tmp_path / "run" / "config.json").exists()
    alone = cli.refused(
        "--distributed",
        f"--coordinator_address=127.0.0.1:{free_port()}",
        "--num_processes=2",
        "--process_id=1",
        "--initialization_timeout=2",
    )
    assert "within 2 seconds" in alone


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (("host:1", 2, 2), "--process_id must lie in 0..1"),
        (("host:1", 0, 0), "--num_processes must be at least 1"),
        (("host", 2, 0), "HOST:PORT; got 'host'"),
        (("host:99999", 2, 0), "HOST:PORT; got 'host:99999'"),
        (("host:1", None, 0), "needs --num_processes"),
        ((None, 2, None), "--num_processes=2 needs --coordinator_address and --process_id"),
    ],
)
def test_settings_that_do_not_fit_together(where, words):
    with pytest.raises(UserError, match=words):
        distributed.check(*where, timeout=60)


def test_one_process_calls_the_function_itself():
    assert distributed.is_first()
    assert distributed.on_first(lambda: [1]) == [1]
    assert distributed.on_all(lambda: [2]) == [2]
    assert distributed.max_over_processes(3) == 3
    distributed.check_same("anything")
    with pytest.raises(UserError, match="own"):
        distributed.on_first(lambda: (_ for _ in ()).throw(UserError("its own")))


def test_flags_of_processes_need_distributed(cli, tmp_path):
    message = cli.refused(f"--workdir={tmp_path / 'run'}", "--num_processes=2")
    assert "need --distributed" in message
