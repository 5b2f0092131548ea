"""The contract between models and everything else."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

Params = dict[str, Any]


class Given(NamedTuple):
    """What distributions are conditioned on besides x or z. Batch dimensions align with the
    trailing ones of z; models broadcast them explicitly.
    """

    label: Array | None = None  # [*batch], int32
    context: Array | None = None  # [*batch, M]
    key: Array | None = None  # for dropout; None: no dropout, as in evaluation


class Density(NamedTuple):
    """A model with an exact p(x): PixelCNN, flows, mixtures."""

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params; as in `Model`."""

    distribution: Callable[..., Any]
    """(params, stats, given) -> p(x|.) with log_prob and sample; x is [*any, D]."""


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
