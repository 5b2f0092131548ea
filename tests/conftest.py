"""Settings and fixtures of all tests."""

import contextlib
import os
import resource
import subprocess
import sys

import jax
import pytest

# Makes the CPU's kernels without MLIR, where XLA knows the flag: programs compile in half the time.
# XLA ends a process that gives an unknown flag, hence the trial. XLA_FLAGS="" tests the default.
FASTER_COMPILATION = "--xla_cpu_use_fusion_emitters=false"


def set_flags() -> None:
    """Sets XLA_FLAGS of this process, which has not compiled yet, and of those that it starts."""
    if "XLA_FLAGS" not in os.environ:
        trial = [sys.executable, "-c", "import jax; jax.numpy.zeros(1).block_until_ready()"]
        environment = {**os.environ, "XLA_FLAGS": FASTER_COMPILATION, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(trial, env=environment, capture_output=True)
        os.environ["XLA_FLAGS"] = "" if done.returncode else FASTER_COMPILATION


set_flags()
# A key that is used twice raises, in eager code and inside compiled programs.
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def fast_compilation():
    """Turns most compiler optimizations off, which takes a third of the compilation time.

    For tests of large programs on small arrays. Not for tests of the last digits, nor for
    bit-for-bit comparisons with another process.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def file_size_limit():
    """A context manager (limit in bytes) in which writing longer files fails, as on a full disk."""

    @contextlib.contextmanager
    def limited(limit: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
