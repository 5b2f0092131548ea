"""Several processes that compute one run together (`jax.distributed`).

All processes run the same program on the same data; only process 0 writes files and prints. At the
same point of the program, the other processes receive its decisions and learn of its failures. With
a single process the functions here only call the function that they are passed.
"""

import contextlib
import os
import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from elbo_lab.errors import UserError


def connect(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, timeout: int
) -> None:
    """Joins the other processes; call before the first computation.

    The first three arguments are all given, or all None: then they are detected from the
    environment of SLURM, Open MPI, Kubernetes or a TPU pod.

    Args:
      coordinator_address: HOST:PORT where process 0 listens.
      num_processes: number of processes.
      process_id: index of this process, 0..num_processes - 1.
      timeout: seconds to wait for the other processes; after that, this process prints an error
        message and exits with status 2.

    Raises:
      UserError: the arguments are invalid together, or no cluster is detected.
    """
    check(coordinator_address, num_processes, process_id, timeout)
    where = f"--coordinator_address={coordinator_address}" if coordinator_address else "the cluster"

    def give_up() -> None:
        # JAX's own timeout would abort the process with a stack trace.
        message = (
            f"Error: {where}: not all processes of --distributed could connect within {timeout} "
            "seconds (--initialization_timeout).\n"
        )
        with contextlib.suppress(OSError):  # standard error may be closed
            os.write(2, message.encode())
        os._exit(2)

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    # JAX's service would catch SIGTERM, which then neither ends the process nor stops the run if it
    # comes before `progress.Interrupt` handles it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, initialization_timeout=timeout + 60
        )
    except (ValueError, RuntimeError) as error:
        if coordinator_address is None:
            raise UserError(
                "--distributed detects no cluster (SLURM, Open MPI, Kubernetes, TPU pod); give "
                "--coordinator_address=HOST:PORT, --num_processes and --process_id."
            ) from error
        raise UserError(f"{where}: {str(error).splitlines()[0][:200]}.") from error
    finally:
        timer.cancel()
    _redirect_native_output()


def check(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, timeout: int
) -> None:
    """Raises UserError if the arguments of `connect` are invalid together."""
    settings = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in settings.items() if value is None]
    if 0 < len(missing) < len(settings):
        flag = next(f"--{name}={value}" for name, value in settings.items() if value is not None)
        raise UserError(f"{flag} needs --{' and --'.join(missing)} as well.")
    if timeout < 1:
        raise UserError(f"--initialization_timeout must be at least 1 second; got {timeout}.")
    if missing:
        return
    address = re.fullmatch(r"(\[[^\]]+\]|[^:]+):(\d{1,5})", coordinator_address)
    if not address or not 1 <= int(address[2]) <= 65535:
        raise UserError(f"--coordinator_address must be HOST:PORT; got {coordinator_address!r}.")
    if num_processes < 1:
        raise UserError(f"--num_processes must be at least 1; got {num_processes}.")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id must lie in 0..{num_processes - 1} (--num_processes={num_processes}); "
            f"got {process_id}."
        )


def _redirect_native_output() -> None:
    """Redirects the output of C libraries (Gloo prints its connections) to standard error.

    Python's sys.stdout, for the results, remains standard output.
    """
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def is_first() -> bool:
    """True in process 0, which writes files and prints."""
    return jax.process_count() == 1 or jax.process_index() == 0


def on_first(function: Callable[[], Any]) -> Any:
    """The result of the function, called by process 0 alone, on every process.

    The result must be picklable. If the function raises, the other processes exit silently with
    status 2.
    """
    if jax.process_count() == 1:
        return function()
    result, error = None, None
    if is_first():
        try:
            result = function()
        except Exception as raised:
            error = raised
    payload = _broadcast(pickle.dumps((error is None, result)))
    if error is not None:
        raise error
    succeeded, received = pickle.loads(payload)
    if not succeeded:
        raise SystemExit(2)
    return result if is_first() else received


@contextlib.contextmanager
def context_on_first(make: Callable[[], Any]) -> Iterator[Any]:
    """A context that process 0 enters alone: yields the value of `make()` there, None elsewhere."""
    with contextlib.ExitStack() as stack:
        value = None

        def enter() -> None:  # returns nothing: the value need not be picklable
            nonlocal value
            value = stack.enter_context(make())

        on_first(enter)
        yield value


def on_all(function: Callable[[], Any]) -> Any:
    """The function's result on each process; if the function raises on one, all processes end."""
    if jax.process_count() == 1:
        return function()
    error, result = None, None
    try:
        result = function()
    except Exception as raised:
        error = raised
    failed = max_over_processes(int(error is not None))
    if error is not None:
        raise error
    if failed:
        raise SystemExit(2)
    return result


def check_same(fingerprint: str) -> None:
    """Raises UserError on every process if the fingerprints of the processes differ."""
    if jax.process_count() == 1:
        return
    first = on_first(lambda: fingerprint)
    if max_over_processes(int(first != fingerprint)):
        raise UserError(
            "the processes of --distributed have different flags, images or versions; start them "
            "with the same command except for --process_id."
        )


def max_over_processes(number: int) -> int:
    """The greatest number of all processes, on every process."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def _broadcast(message: bytes) -> bytes:
    """The message of process 0, on every process."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    # Padded to a power of two, at least 64, so that few shapes are compiled.
    padded = np.zeros(1 << max(size - 1, 63).bit_length(), np.uint8)
    if is_first():
        padded[:size] = np.frombuffer(message, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded)[:size].tobytes()
