"""Settings and fixtures of all tests."""

import contextlib
import resource

import jax
import pytest

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
