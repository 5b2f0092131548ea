"""JAX's checks of implicit promotion, on for our code and for tests, off inside other libraries.

NumPyro, Distrax and TFP promote ranks themselves, e.g. NumPyro's `Normal.sample`.
"""

import contextlib
import functools
import types

import jax


def refused():
    """A context in which neither ranks nor types of arrays are promoted."""
    return _settings("raise", "strict")


def _settings(rank, dtype):
    stack = contextlib.ExitStack()
    stack.enter_context(jax.numpy_rank_promotion(rank))
    stack.enter_context(jax.numpy_dtype_promotion(dtype))
    return stack


def allowed(function):
    """The function, which may promote."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        with _settings("allow", "standard"):
            return function(*args, **kwargs)

    return call


def allow_inside(*modules):
    """Lets the methods and properties of every class of these modules promote."""
    package = modules[0].__name__.partition(".")[0]
    found = [value for module in modules for value in vars(module).values()]
    ancestors = {c for cls in found if isinstance(cls, type) for c in cls.__mro__}
    for cls in ancestors:
        if cls.__module__.partition(".")[0] == package:
            _allow_in(cls)


def _allow_in(cls):
    for name, value in list(vars(cls).items()):
        if isinstance(value, types.FunctionType):
            setattr(cls, name, allowed(value))
        elif isinstance(value, property):
            setattr(cls, name, property(allowed(value.fget), value.fset))
