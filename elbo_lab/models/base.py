"""The contract between models and everything else."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from elbo_lab.data.dataset import Batch

Params = dict[str, Any]


class Given(NamedTuple):
    """What distributions are conditioned on besides x or z. Batch dimensions align with the
    trailing ones of z; models broadcast them explicitly.
    """

    label: Array | None = None  # [*batch], int32
    context: Array | None = None  # [*batch, M]
    key: Array | None = None  # for dropout; None: no dropout, as in evaluation


NOTHING_GIVEN = Given()


def given_of(batch: Batch, key: Array | None = None) -> Given:
    """What the distributions of a batch are conditioned on; without a key there is no dropout."""
    return Given(batch.label, batch.context, key)


class Density(NamedTuple):
    """A model with an exact p(x): PixelCNN, flows, mixtures."""

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params; as in `Model`."""

    distribution: Callable[..., Any]
    """(params, stats, given) -> p(x|.) with log_prob and sample; x is [*any, D]."""


class Model(NamedTuple):
    """A latent-variable model as pure functions, valid for any leading batch dimensions.

    Params are {"encoder": ..., "decoder": ..., "prior": ...}. With several stochastic layers z is a
    tuple ordered from the data upwards, and prior and posterior are `distributions.Chain`s. The
    functions take batches as they are: never return a distribution out of `jax.vmap` (NumPyro's
    would keep a stale batch shape). `given` is a `Given`; a model that is conditioned on nothing
    ignores it.
    """

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params. batch: a `Batch`, the first rows of the training data, the
    same for all replicates. mean [D]: that of all training data, which may start an output bias;
    the batch's own where it is not given."""

    prior: Callable[..., Any]
    """(params, given) -> p(z|y), batch shape () or [*batch]."""

    posterior: Callable[..., Any]
    """(params, x [*batch, D], given) -> q(z|x, y), batch shape [*batch]: the inference network."""

    likelihood: Callable[..., Any]
    """(params, z [*batch, L], given) -> p(x|z, y), batch shape [*batch], event [D]: the generation
    network."""

    log_px: Callable[..., Array] | None = None
    """(params, x [*batch, D], given) -> log p(x|y) [*batch], nats, where it can be had exactly."""

    rows: int = 1000
    """Rows (draws x examples) that the evaluation lets the generation network see at once: their
    activations should fit a CPU's cache."""
