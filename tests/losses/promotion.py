"""Switches for JAX's checks of implicit promotion.

They are on for our code and the tests, and off inside NumPyro, Distrax and TFP, which promote ranks
themselves, e.g. in NumPyro's `Normal.sample`.
"""

import contextlib
import functools
import types

import jax


def refused():
    """A context in which promoting ranks or types of arrays raises."""
    return _settings("raise", "strict")


def _settings(rank, dtype):
    stack = contextlib.ExitStack()
    stack.enter_context(jax.numpy_rank_promotion(rank))
    stack.enter_context(jax.numpy_dtype_promotion(dtype))
    return stack


def allowed(function):
    """The function, wrapped so that promotion is allowed inside it."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        with _settings("allow", "standard"):
            return function(*args, **kwargs)

    return call


def allow_inside(*modules):
    """Allows promotion in all methods and properties of these modules' classes.

    Base classes of the same package are included.
    """
    package = modules[0].__name__.partition(".")[0]
    values = [value for module in modules for value in vars(module).values()]
    classes = {base for cls in values if isinstance(cls, type) for base in cls.__mro__}
    for cls in classes:
        if cls.__module__.partition(".")[0] == package:
            _allow_in(cls)


def _allow_in(cls):
    for name, value in list(vars(cls).items()):
        if isinstance(value, types.FunctionType):
            setattr(cls, name, allowed(value))
        elif isinstance(value, property):
            setattr(cls, name, property(allowed(value.fget), value.fset))
