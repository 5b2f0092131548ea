"""Several processes that compute one run together (`jax.distributed`).

All of them run the same program on the same data; process 0 alone writes files and speaks. What it
decides, and what fails there, the others learn from it at the same place in the program. With one
process every function here does nothing but call what it is given.
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
    """Joins the other processes; before the first computation.

    Args:
      coordinator_address: HOST:PORT, where process 0 listens.
      num_processes: how many there are.
      process_id: which one this is. Without these three SLURM, Open MPI, Kubernetes or a TPU pod
        are asked.
      timeout: seconds to wait for the others; then the process ends with a sentence and status 2.

    Raises:
      UserError: settings that do not fit together, or nothing that tells them.
    """
    check(coordinator_address, num_processes, process_id, timeout)
    where = f"--coordinator_address={coordinator_address}" if coordinator_address else "the cluster"

    def give_up() -> None:
        # JAX itself would abort the process, with a stack trace.
        with contextlib.suppress(OSError):  # Nobody may be there to read it.
            os.write(
                2,
                f"Error: {where}: not all processes of --distributed could connect within "
                f"{timeout} seconds (--initialization_timeout).\n".encode(),
            )
        os._exit(2)

    alarm = threading.Timer(timeout, give_up)
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, initialization_timeout=timeout + 60
        )
    except (ValueError, RuntimeError) as error:
        if coordinator_address is None:
            raise UserError(
                "--distributed finds no cluster (SLURM, Open MPI, Kubernetes, TPU pod) that it "
                "knows; give --coordinator_address=HOST:PORT, --num_processes and --process_id."
            ) from error
        raise UserError(f"{where}: {str(error).splitlines()[0][:200]}.") from error
    finally:
        alarm.cancel()
    _chatter_to_stderr()


def check(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, timeout: int
) -> None:
    """Raises UserError for settings of `connect` that do not fit together."""
    given = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        has = next(f"--{name}={value}" for name, value in given.items() if value is not None)
        raise UserError(f"{has} needs --{' and --'.join(missing)} as well.")
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


def _chatter_to_stderr() -> None:
    """What C libraries print (Gloo, whom it connected) goes to standard error, not the results'
    standard output.
    """
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return jax.process_count() == 1 or jax.process_index() == 0


def on_first(function: Callable[[], Any]) -> Any:
    """Process 0 calls the function; every process returns what it returned (which must pickle).

    Where it raises there, the others end silently with status 2.
    """
    if jax.process_count() == 1:
        return function()
    result, error = None, None
    if is_first():
        try:
            result = function()
        except Exception as raised:
            error = raised
    told = _broadcast(pickle.dumps((error is None, result)))
    if error is not None:
        raise error
    well, other = pickle.loads(told)
    if not well:
        raise SystemExit(2)
    return result if is_first() else other


@contextlib.contextmanager
def held_by_first(make: Callable[[], Any]) -> Iterator[Any]:
    """Process 0 enters the context that `make()` gives; yields its value there, None elsewhere."""
    with contextlib.ExitStack() as stack:
        held = []
        on_first(lambda: held.append(stack.enter_context(make())))
        yield held[0] if held else None


def on_all(function: Callable[[], Any]) -> Any:
    """Every process calls the function; where it raises in one, all of them end."""
    if jax.process_count() == 1:
        return function()
    error, result = None, None
    try:
        result = function()
    except Exception as raised:
        error = raised
    failed = greatest(int(error is not None))
    if error is not None:
        raise error
    if failed:
        raise SystemExit(2)
    return result


def check_same(fingerprint: str) -> None:
    """Raises UserError on every process if the text is not the same on all of them."""
    if jax.process_count() == 1:
        return
    first = on_first(lambda: fingerprint)
    if greatest(int(first != fingerprint)):
        raise UserError(
            "the processes of --distributed have different flags, images or versions; they must be "
            "started with the same command but for --process_id."
        )


def greatest(number: int) -> int:
    """The greatest of the processes' numbers, which all of them get."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def _broadcast(message: bytes) -> bytes:
    """Process 0's message, on every process."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    # A power of two, so that few programs are compiled.
    room = np.zeros(1 << max(size - 1, 63).bit_length(), np.uint8)
    if is_first():
        room[:size] = np.frombuffer(message, np.uint8)
    return multihost_utils.broadcast_one_to_all(room)[:size].tobytes()
