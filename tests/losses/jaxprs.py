"""The operations of a traced program."""

import jax


def primitives(jaxpr):
    """Names of all operations of a jaxpr and of those that it calls."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)
