"""Process-wide JAX settings of a script; call before the first computation."""

import contextlib
import ctypes
import os
from typing import NamedTuple

import jax

from elbo_lab import keys
from elbo_lab.errors import UserError

# What brings JAX's platforms besides "cpu".
PACKAGES = {
    **dict.fromkeys(
        ("cuda", "gpu"), 'an NVIDIA GPU needs its driver and pip install "jax[cuda13]"'
    ),
    "rocm": 'an AMD GPU needs its driver and pip install "jax[rocm7-local]"',
    "tpu": 'a TPU needs pip install "jax[tpu]"',
}


class Placement(NamedTuple):
    """Where a run computes, and where its training images lie; None leaves it to the device."""

    shard_batch: bool | None = None  # see `sharding.make_mesh`
    stream: bool | None = None  # see `streaming.too_large`


def set_up(platform: str | None, replicates: int, cache_dir: str, cache_dir_given: bool) -> None:
    """Chooses the platform, CPU devices for replicates, and the compilation cache.

    Args:
      platform: "cpu", "cuda", ...; None for the best there is.
      replicates: R; on CPU as many devices as cores divide R evenly are made, unless
        JAX_NUM_CPU_DEVICES or XLA_FLAGS say how many.
      cache_dir: where compiled programs are kept; "" for nowhere.
      cache_dir_given: whether a person named that folder, so that it must be writable.

    Raises:
      UserError: unknown platform, random keys that collide, or the named cache folder cannot be
        written.
    """
    keys.check_implementation()
    if platform:
        jax.config.update("jax_platforms", platform)
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if replicates > 1 and not forced and jax.config.jax_num_cpu_devices < 0:
        # Counts for the CPU platform only; GPUs and TPUs have the devices they have.
        devices = max(d for d in range(1, cores() + 1) if replicates % d == 0)
        jax.config.update("jax_num_cpu_devices", devices)
    _set_cache(cache_dir, cache_dir_given)
    try:
        jax.devices()
    # JAX asserts that there is a device where the platform is known and has none.
    except (RuntimeError, AssertionError) as error:
        raise UserError(_not_available(platform, str(error))) from error


def _not_available(platform: str | None, reason: str) -> str:
    """Why the platform that was asked for cannot be had, which there are, and what brings it."""
    wanted = str(jax.config.jax_platforms)
    asked = f"--platform={platform}" if platform else f"JAX_PLATFORMS={wanted}"
    jax.config.update("jax_platforms", None)
    try:
        present = sorted({device.platform for device in jax.devices()} | {"cpu"})
    except (RuntimeError, AssertionError):
        present = ["cpu"]
    parts = [f"there is {' and '.join(present)}"]
    parts += [PACKAGES[name] for name in wanted.split(",") if name in PACKAGES][:1]
    if reason and "list of known backends" not in reason:
        parts.append(reason.splitlines()[0].split(" (set ")[0][:200])
    return f"{asked} is not available ({'; '.join(parts)})."


def release_memory() -> None:
    """Gives memory that compilation has freed back to the system, where the C library can.

    Compiling a step leaves 150 MB in the allocator's free lists, a quarter of a run's peak.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def describe() -> str:
    """The device as a line for reports, e.g. "cpu, 2 cores"."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        number = f"{cores()} core{'s' if cores() > 1 else ''}"
        several = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return f"cpu, {number}{several}"
    return f"{device.device_kind}, {jax.device_count()} device(s)"


def processor() -> str:
    """The processor's name, where the system says it, else ""."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


def cores() -> int:
    """Cores that this process may use."""
    # macOS cannot say which cores a process may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _set_cache(cache_dir: str, given: bool) -> None:
    if not cache_dir:
        return
    path = os.path.expanduser(cache_dir)
    try:
        os.makedirs(path, exist_ok=True)
        writable = os.access(path, os.W_OK)
        reason = "permission denied"
    except OSError as error:
        writable, reason = False, error.strerror
    if not writable:
        if given:
            raise UserError(f"--compilation_cache_dir={cache_dir} cannot be written: {reason}.")
        return  # A home directory that is read-only costs seconds, not the run.
    jax.config.update("jax_compilation_cache_dir", path)
    # At the defaults nothing that takes less than a second to compile is kept.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
