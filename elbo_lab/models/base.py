"""The contract between models and everything else."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

Params = dict[str, Any]


class Model(NamedTuple):
    """A latent-variable model as four pure functions, valid for any leading batch dimensions.

    Params are {"encoder": ..., "decoder": ..., "prior": ...}. With several stochastic layers z is a
    tuple ordered from the data upwards, and prior and posterior are `distributions.Chain`s. The
    functions take batches as they are: never return a distribution out of `jax.vmap` (NumPyro's
    would keep a stale batch shape).
    """

    init: Callable[[Array, Array], Params]
    """(key, x [*batch, D] in [0, 1]) -> params. The mean of x over its batch may start the output
    bias; the mean image of the training data alone is enough."""

    prior: Callable[[Params], Any]
    """params -> p(z), batch shape ()."""

    posterior: Callable[[Params, Array], Any]
    """(params, x [*batch, D]) -> q(z|x), batch shape [*batch]: the inference network."""

    likelihood: Callable[[Params, Any], Any]
    """(params, z [*batch, L]) -> p(x|z), batch shape [*batch], event [D]: the generation
    network."""
