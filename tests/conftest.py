"""Settings of all tests."""

import jax
import pytest

# A key that is used twice raises, in eager code and inside compiled programs.
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def fast_compilation():
    """Compiles with few optimizations, in a third of the time: for tests of large programs on small
    arrays. Not for tests of the last digits, nor for bit-for-bit comparisons with another process.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
