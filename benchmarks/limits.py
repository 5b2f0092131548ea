"""The matrix-multiplication limit: the matrix products of a step or of an evaluation, each timed
alone at its shape.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.common import DATA_DIM, HIDDEN, LATENT


class Product(NamedTuple):
    """[rows, inputs] x [inputs, outputs] in a layer; the input's gradient is not always needed."""

    rows: int
    inputs: int
    outputs: int
    input_gradient: bool = True
    backward: bool = True

    @property
    def flop(self) -> int:
        kernels = 1 + self.backward + self.input_gradient
        return 2 * self.rows * self.inputs * self.outputs * kernels


def step_products(batch: int, k: int) -> list[Product]:
    """The matrix products of one step of the 784-200-200-50 model."""
    rows = batch * k
    encoder = [
        Product(batch, DATA_DIM, HIDDEN, input_gradient=False),
        Product(batch, HIDDEN, HIDDEN),
        Product(batch, HIDDEN, LATENT),
        Product(batch, HIDDEN, LATENT),
    ]
    return encoder + decoder_products(rows, backward=True)


def decoder_products(rows: int, backward: bool) -> list[Product]:
    """The generation network's products for so many rows."""
    return [
        Product(rows, LATENT, HIDDEN, backward, backward),
        Product(rows, HIDDEN, HIDDEN, backward, backward),
        Product(rows, HIDDEN, DATA_DIM, backward, backward),
    ]


def kernels(product: Product) -> list[tuple[tuple[int, int], tuple[int, int], Callable]]:
    """Shapes of two operands and their product: forward, weight gradient, input gradient."""
    rows, inputs, outputs = product[:3]
    x, w, g = (rows, inputs), (inputs, outputs), (rows, outputs)
    found = [(x, w, lambda a, b: a @ b)]
    if product.backward:
        found.append((x, g, lambda a, b: a.T @ b))
    if product.input_gradient:
        found.append((g, w, lambda a, b: a @ b.T))
    return found


def repeated(group: list, times: int) -> tuple[Callable, Any]:
    """A jitted scan that computes a group of products `times` times, and its carry.

    An element of the first operand changes at each turn, and results are carried, so that nothing
    can be left out or moved out of the loop.
    """
    rng = np.random.default_rng(0)

    def operand(shape):
        return jnp.asarray(rng.normal(0, 0.05, shape), jnp.float32)

    operands = [(operand(a), operand(b)) for a, b, _ in group]
    results = [f(*ab) for ab, (_, _, f) in zip(operands, group, strict=True)]

    def body(carry, turn):
        operands, _ = carry
        operands = [(a.at[0, 0].set(turn * 1e-6), b) for a, b in operands]
        return (operands, [f(*ab) for ab, (_, _, f) in zip(operands, group, strict=True)]), None

    run = jax.jit(
        lambda carry: jax.lax.scan(body, carry, jnp.arange(times, dtype=jnp.float32))[0],
        donate_argnums=0,
    )
    return run, (operands, results)


class Timed:
    """A function of a carry, called again and again."""

    def __init__(self, run: Callable, carry: Any, units: float):
        self.run, self.units = run, units
        self.carry = jax.block_until_ready(run(carry))  # compiles

    def once(self) -> float:
        """Runs it once more; seconds per unit."""
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.run(self.carry))
        return (time.perf_counter() - start) / self.units


def limits(products: list[Product], seconds: float, flop_per_second: float) -> list[Timed]:
    """Each kernel alone, for about `seconds` in all; the sum of their times is the limit."""
    group = [(kernel, 2 * p.rows * p.inputs * p.outputs) for p in products for kernel in kernels(p)]
    timed = []
    for kernel, flop in group:
        times = max(3, int(seconds / len(group) * flop_per_second / flop))
        timed.append(Timed(*repeated([kernel], times), times))
    return timed
