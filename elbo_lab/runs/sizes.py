"""Refuses runs that are too large, from shapes alone, before anything is compiled.

Two lower bounds of the memory that a run needs are counted: the parameters with their gradient,
their average and the optimizer's state, and the largest result of a matrix product in a step. A run
that passes may still be too large.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab import losses, methods
from elbo_lab.configs import Config, flag_text, traced
from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.errors import UserError
from elbo_lab.models.conditions import is_conditional
from elbo_lab.options import values_of
from elbo_lab.reports import words
from elbo_lab.runs.examples import blank
from elbo_lab.training import optimizer

# Operations whose results are stored; those of elementwise operations may be fused.
_PRODUCTS = ("dot_general", "conv_general_dilated")
_FLOAT_BYTES = 4
# Bytes that every machine has: runs that need less are not compared with the device's memory.
_SMALL = 10**9
# Draws for each test example: a million take hours on a CPU, and a run can be stopped between
# batches alone.
MOST_EVALUATED = 10_000_000


def check(config: Config, spec: Spec, num_train: int, memory: int | None = None) -> None:
    """Raises a UserError for a run that cannot fit into memory or whose bound takes too long; it
    names the flag.

    Args:
      config: a checked and resolved configuration.
      spec: of the data.
      num_train: N, training examples.
      memory: bytes of memory; `total_memory()` if not given.
    """
    if config.objective == "jackknife":
        _check_subsets(config)
    if config.eval_k > MOST_EVALUATED >= (config.k or 0):
        raise UserError(f"--eval_k must be at most {MOST_EVALUATED:,}; got {config.eval_k:,}.")
    most = _most(config, spec.dim) if _is_plain(config) else math.inf
    if memory is None:
        memory = _SMALL if most <= _SMALL else total_memory()
    if most <= memory:
        return  # True for nearly every run, and spares a tenth of a second of tracing.
    method = methods.make(config, spec, num_train)
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = jax.eval_shape(lambda: blank(spec, config.batch_size))
    params, stats = jax.eval_shape(method.init, key, batch)
    _check_parameters(config, params, stats, memory)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    finite = {n: v for n, v in traced(config).items() if isinstance(v, str) or math.isfinite(v)}

    def step(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict[str, Array]) -> Any:
        loss_key, update_key = jax.random.split(key)
        loss = method.loss(loss_key, params, stats, batch, hparams)
        if method.update is None:
            return loss
        return loss, method.update(update_key, params, stats, loss.observed)

    traced_step = jax.make_jaxpr(step)(key, params, stats, batch, dict.fromkeys(finite, number))
    largest = max(_products(traced_step.jaxpr), default=0)
    if largest > memory:
        name = max(("k", "m", "batch_size"), key=lambda name: getattr(config, name) or 0)
        examples = words.for_kind("images", spec.kind)
        raise UserError(
            f"--{name}={getattr(config, name)} is too large: an array of one step, of "
            f"{(config.k or 1) * config.m:,} draws for each of {config.batch_size:,} {examples}, "
            f"takes {_gigabytes(largest)}, {_more_than(memory)}."
        )


def _check_parameters(config: Config, params: Any, stats: Any, memory: int) -> None:
    """Raises a UserError for parameters that do not fit with their gradient, the optimizer's state
    and their average. Stats count as parameters without these.
    """
    average = params if config.ema else ()
    opt_state = jax.eval_shape(optimizer.make(config).init, params)
    state = _bytes((params, params, opt_state, average, stats))
    if config.replicates * state <= memory:
        return
    name, value = "replicates", config.replicates
    if state > memory:  # for a single replicate
        widths = _widths(config)
        name = max(widths, key=lambda name: np.max(widths[name]))
        value = widths[name]
    number = sum(leaf.size for leaf in jax.tree.leaves((params, stats)))
    of_all = f" for {config.replicates:,} replicates" if config.replicates > 1 else ""
    average_text = ", their average" if config.ema else ""
    raise UserError(
        f"--{name}={flag_text(value)} is too large: the parameters of a model, {number:,}, take "
        f"{_gigabytes(config.replicates * state)} with their gradient{average_text} and the "
        f"optimizer's state{of_all}, {_more_than(memory)}."
    )


def _check_subsets(config: Config) -> None:
    """Raises a UserError for a jackknife of too many draws at too high an order."""
    draws = config.k - 1 if config.estimator == "score_loo" else config.k
    order = config.objective_options.order
    log_w = jax.ShapeDtypeStruct((draws,), jnp.float32)
    try:
        jax.eval_shape(functools.partial(losses.bounds.jackknife, order=order), log_w)
    except ValueError as error:
        raise UserError(
            f"--order={order} with --k={config.k} takes too many subsets of draws: {error}"
        ) from error


def total_memory() -> int:
    """Bytes of memory that a run may use: the GPUs' or TPUs' own, else the host's."""
    import psutil  # here, since it takes 20 ms

    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in jax.local_devices()]
    local = psutil.virtual_memory().total
    if all(limits) and jax.local_devices()[0].platform != "cpu":
        local = sum(limits)
    return local * jax.process_count()


def _is_plain(config: Config) -> bool:
    """True for an mlp whose inputs and heads are as wide as x or z, and Adam."""
    if config.model != "mlp" or config.optimizer != "adam":
        return False
    options = config.model_options
    has_wide_outputs = options.likelihood in ("logistic_mixture", "categorical")
    has_own_laws = options.posterior != "diagonal" or options.prior != "standard"
    return not (has_wide_outputs or has_own_laws or is_conditional(options))


def _most(config: Config, data_dim: int) -> int:
    """An upper bound, in bytes, of the two amounts that `check` counts, where `_is_plain`.

    It takes arithmetic alone: a network has at most as many weights as there are pairs of the
    model's widths, and no array of a step is wider than the widest layer.
    """
    settings = (v if isinstance(v, tuple) else (v,) for v in _widths(config).values())
    widths = (data_dim, *itertools.chain(*settings))
    networks = 2 * len(config.model_options.latent_dims)
    weights = networks * 2 * (sum(widths) + 1) ** 2  # two heads, and biases
    draws = (config.k or 1) * config.m * config.batch_size
    copies = 5  # parameters, gradient, two moments, average
    return _FLOAT_BYTES * max(config.replicates * copies * weights, draws * max(widths))


def _widths(config: Config) -> dict[str, int | tuple[int, ...]]:
    """The settings of the model family that are whole numbers: widths of its layers, and counts."""
    options = values_of(config.model_options)
    return {name: value for name, value in options.items() if type(value) in (int, tuple)}


def _products(jaxpr: Any) -> Iterator[int]:
    """Bytes of each result of a matrix product, in the jaxpr and in those that it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in _PRODUCTS:
            yield _bytes([variable.aval for variable in equation.outvars])
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from _products(inner)


def _bytes(tree) -> int:
    """Bytes of all arrays of a tree."""
    return sum(
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB"


def _more_than(memory: int) -> str:
    return f"more than the {_gigabytes(memory)} of memory there is"
