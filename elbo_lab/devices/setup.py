"""Process-wide JAX settings of a script; call before the first computation."""

import contextlib
import ctypes
import os
from typing import NamedTuple

import jax

from elbo_lab import keys
from elbo_lab.errors import UserError

_NVIDIA = 'an NVIDIA GPU needs its driver and pip install "jax[cuda13]"'
# How to install JAX's platforms other than "cpu", for error messages.
PACKAGES = {
    "cuda": _NVIDIA,
    "gpu": _NVIDIA,
    "rocm": 'an AMD GPU needs its driver and pip install "jax[rocm7-local]"',
    "tpu": 'a TPU needs pip install "jax[tpu]"',
}
# What a processor's generation is named by: our word -> the field of /proc/cpuinfo.
_GENERATION = {"family": "cpu family", "model": "model"}
# Vector instructions, the widest first: the flag of /proc/cpuinfo -> their name.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
# Compiler options of a program that a CPU runs once. The initial parameters of networks with many
# kernels take seconds to compile, since each shape has a generator of its own; without the second
# half of LLVM's optimizations a third of that, and the numbers are the same to the last bit.
RUN_ONCE = {"xla_backend_optimization_level": 1}


class Placement(NamedTuple):
    """Placement of a run's batches and training images; None chooses by the device."""

    shard_batch: bool | None = None  # shard batches over devices; see `sharding.make_mesh`
    stream: bool | None = None  # stream the training images; see `streaming.too_large`


def set_up(platform: str | None, replicates: int, cache_dir: str, cache_dir_given: bool) -> None:
    """Sets the platform, the number of CPU devices, and the folder of compiled programs.

    Args:
      platform: "cpu", "cuda", ...; None for JAX's choice.
      replicates: R; the number of CPU devices is the greatest divisor of R that does not exceed
        the number of cores, unless JAX_NUM_CPU_DEVICES or XLA_FLAGS set it.
      cache_dir: folder of compiled programs; "" for none.
      cache_dir_given: True if the user chose the folder, which then must be writable.

    Raises:
      UserError: the platform is unavailable, JAX's implementation of random keys is refused
        (`keys.check_implementation`), or the user's cache folder cannot be written.
    """
    keys.check_implementation()
    if platform:
        jax.config.update("jax_platforms", platform)
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if replicates > 1 and not forced and jax.config.jax_num_cpu_devices < 0:
        # Affects the CPU platform only.
        devices = max(d for d in range(1, cores() + 1) if replicates % d == 0)
        jax.config.update("jax_num_cpu_devices", devices)
    _set_cache(cache_dir, cache_dir_given)
    try:
        jax.devices()
    # AssertionError: JAX knows the platform, but finds no device of it.
    except (RuntimeError, AssertionError) as error:
        raise UserError(_not_available(platform, str(error))) from error


def _not_available(platform: str | None, reason: str) -> str:
    """The error message for an unavailable platform: available ones, and how to install it.

    Args:
      platform: the value of --platform; None if the environment's JAX_PLATFORMS chose it.
      reason: JAX's error message.
    """
    requested = str(jax.config.jax_platforms)
    setting = f"--platform={platform}" if platform else f"JAX_PLATFORMS={requested}"
    jax.config.update("jax_platforms", None)
    try:
        available = sorted({device.platform for device in jax.devices()} | {"cpu"})
    except (RuntimeError, AssertionError):
        available = ["cpu"]
    parts = [f"there is {' and '.join(available)}"]
    parts += [PACKAGES[name] for name in requested.split(",") if name in PACKAGES][:1]
    if reason and "list of known backends" not in reason:
        parts.append(reason.splitlines()[0].split(" (set ")[0][:200])
    return f"{setting} is not available ({'; '.join(parts)})."


def release_memory() -> None:
    """Returns memory freed by compilation to the system, if the C library has malloc_trim (glibc).

    Compiling a step leaves 150 MB in the allocator's free lists, a quarter of a run's peak memory.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def describe() -> str:
    """A description of the device for reports, e.g. "cpu, 2 cores"."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        plural = "s" if cores() > 1 else ""
        processes = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return f"cpu, {cores()} core{plural}{processes}"
    return f"{device.device_kind}, {jax.device_count()} device(s)"


def processor(file: str = "/proc/cpuinfo") -> str:
    """The processor's name, generation and widest vector instructions; "" if they are unknown.

    "AMD EPYC, family 25, model 17, AVX-512": the names of some processors are the same for several
    generations, whose speeds differ.

    Args:
      file: Linux's description of the processors.
    """
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError), open(file, encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    if "model name" not in fields:
        return ""
    generation = [f"{n} {fields[key]}" for n, key in _GENERATION.items() if fields.get(key)]
    flags = fields.get("flags", "").split()
    widest = [name for flag, name in _VECTORS.items() if flag in flags][:1]
    return ", ".join([fields["model name"], *generation, *widest])


def cores() -> int:
    """The number of cores that this process may use."""
    # macOS has no sched_getaffinity.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _set_cache(cache_dir: str, must_be_writable: bool) -> None:
    """Makes JAX keep compiled programs in a folder; "" for none."""
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
        if must_be_writable:
            raise UserError(f"--compilation_cache_dir={cache_dir} cannot be written: {reason}.")
        return  # Without a cache the run only takes some seconds longer.
    jax.config.update("jax_compilation_cache_dir", path)
    # Store all programs: by default those that compile in less than a second are not.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
