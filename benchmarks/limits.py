"""The matrix-multiplication limit: the time of the matrix products of a step or an evaluation, each
timed alone at its shape.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.common import DATA_DIM, HIDDEN, LATENT


class Product(NamedTuple):
    """[rows, inputs] x [inputs, outputs] in a layer."""

    rows: int
    inputs: int
    outputs: int
    input_gradient: bool = True  # True if the input's gradient is computed
    weight_gradient: bool = True  # True if the weight's gradient is computed

    @property
    def flop(self) -> int:
        """Floating-point operations, of the forward and backward products."""
        num_products = 1 + self.weight_gradient + self.input_gradient
        return 2 * self.rows * self.inputs * self.outputs * num_products


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
    """The generation network's products for a number of rows, with gradients if `backward`."""
    return [
        Product(rows, LATENT, HIDDEN, backward, backward),
        Product(rows, HIDDEN, HIDDEN, backward, backward),
        Product(rows, HIDDEN, DATA_DIM, backward, backward),
    ]


class Kernel(NamedTuple):
    """One matrix product."""

    left: tuple[int, int]  # shape of the first operand
    right: tuple[int, int]  # shape of the second operand
    multiply: Callable  # (first operand, second operand) -> their product


def kernels(product: Product) -> list[Kernel]:
    """The products of a layer: forward, weight gradient, input gradient."""
    rows, inputs, outputs = product.rows, product.inputs, product.outputs
    x, w, g = (rows, inputs), (inputs, outputs), (rows, outputs)
    result = [Kernel(x, w, lambda a, b: a @ b)]
    if product.weight_gradient:
        result.append(Kernel(x, g, lambda a, b: a.T @ b))
    if product.input_gradient:
        result.append(Kernel(g, w, lambda a, b: a @ b.T))
    return result


def repeated(group: list[Kernel], times: int) -> tuple[Callable, Any]:
    """A jitted scan that computes a group of products `times` times, and its carry.

    An element of the first operand changes in each iteration, and the products are carried, so that
    XLA cannot remove a product or hoist it out of the loop.
    """
    rng = np.random.default_rng(0)

    def operand(shape):
        return jnp.asarray(rng.normal(0, 0.05, shape), jnp.float32)

    def multiply(operands):
        return [kernel.multiply(a, b) for kernel, (a, b) in zip(group, operands, strict=True)]

    operands = [(operand(kernel.left), operand(kernel.right)) for kernel in group]
    products = multiply(operands)

    def body(carry, iteration):
        operands, _ = carry
        operands = [(a.at[0, 0].set(iteration * 1e-6), b) for a, b in operands]
        return (operands, multiply(operands)), None

    run = jax.jit(
        lambda carry: jax.lax.scan(body, carry, jnp.arange(times, dtype=jnp.float32))[0],
        donate_argnums=0,
    )
    return run, (operands, products)


class Timed:
    """A function carry -> carry that is timed.

    Args:
      run: the function.
      carry: its first argument.
      units: the units of work in one call.
    """

    def __init__(self, run: Callable, carry: Any, units: float):
        self.run, self.units = run, units
        self.carry = jax.block_until_ready(run(carry))  # compiles

    def once(self) -> float:
        """Calls the function once. Returns seconds per unit."""
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.run(self.carry))
        return (time.perf_counter() - start) / self.units


def limits(products: list[Product], seconds: float, flop_per_second: float) -> list[Timed]:
    """Each kernel alone; the sum of their times is the limit.

    Args:
      products: of a step or an evaluation.
      seconds: approximate time of one call of all kernels.
      flop_per_second: the speed by which the number of repetitions is chosen.
    """
    num_kernels = sum(len(kernels(product)) for product in products)
    timed = []
    for product in products:
        flop = 2 * product.rows * product.inputs * product.outputs
        times = max(3, int(seconds / num_kernels * flop_per_second / flop))
        for kernel in kernels(product):
            run, carry = repeated([kernel], times)
            timed.append(Timed(run, carry, times))
    return timed
