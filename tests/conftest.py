"""Settings of all tests."""

import jax
import pytest

# A key that is used twice raises, in eager code and inside compiled programs.
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def fast_compilation():
    """Compiles with few optimizations, which takes a fifth of the time: for tests of many small
    programs that compare nothing bit for bit with another process.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
